"""A worker of nexus.worker.v1 on a free port of 127.0.0.1: the mock model behind gRPC.

For:      adapters and gateways that want a real worker which does what a `MockSpec` says.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from nexus_gateway.config.runtime import MockSpec
from nexus_gateway.core.errors import UpstreamTruncated
from nexus_gateway.core.model import Operation
from nexus_gateway.core.sse import DONE, EventSplitter
from nexus_gateway.upstreams.base import UpstreamRequest
from nexus_gateway.upstreams.mock import MockReply
from nexus_gateway.upstreams.worker_v1 import worker_pb2, worker_pb2_grpc
from tests.support.watched_mock import WatchedMock

PATIENCE_S: Final = 3600.0
ENDING_S: Final = 2.0
GARBAGE: Final = b"\xff\xff\xff"  # no message of any kind
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
OPERATIONS: Final = {
    worker_pb2.OPERATION_CHAT: Operation.CHAT,
    worker_pb2.OPERATION_COMPLETIONS: Operation.COMPLETIONS,
    worker_pb2.OPERATION_EMBEDDINGS: Operation.EMBEDDINGS,
}


@dataclass(frozen=True, slots=True)
class Called:
    """A call as it came. `remaining_s` is None without a deadline."""

    message: Any
    metadata: Sequence[tuple[str, Any]]
    remaining_s: float | None


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """While `is_garbling`, its answers are bytes that are none of the contract's messages."""

    def __init__(self, mock: MockSpec) -> None:
        self.port = 0
        self.called: list[Called] = []
        self.model = WatchedMock(mock)
        self.health = health.HealthServicer()
        self.is_garbling = False

    async def Chat(self, request: Any, context: Any) -> worker_pb2.ChatResponse | bytes:  # noqa: N802
        if self.is_garbling:
            return GARBAGE
        reply = await self._ask(request, context)
        try:
            body = await reply.read_all(1 << 30)
            if reply.status != 200:
                return worker_pb2.ChatResponse(error=_error(reply.status, body))
            return worker_pb2.ChatResponse(body=body)
        finally:
            await reply.aclose()

    async def ChatStream(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.ChatStreamResponse | bytes]:  # noqa: N802
        if self.is_garbling:
            yield GARBAGE
            return
        reply = await self._ask(request, context)
        splitter = EventSplitter()
        try:
            if reply.status != 200:
                error = _error(reply.status, await reply.read_all(1 << 30))
                yield worker_pb2.ChatStreamResponse(error=error)
                return
            while piece := await reply.read(_later()):
                for event in splitter.feed(piece):
                    if event != DONE:
                        yield worker_pb2.ChatStreamResponse(body=event)
        except UpstreamTruncated:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "told to break")
        finally:
            await reply.aclose()

    async def _ask(self, request: Any, context: Any) -> MockReply:
        left_s = context.time_remaining()
        self.called.append(Called(request, context.invocation_metadata(), left_s))
        reply = await self.model.send(
            UpstreamRequest(
                operation=OPERATIONS[request.operation],
                model=request.model,
                body=request.body,
                stream=False,  # the body says what is wanted
                headers=(),
                request_id=request.request_id,
                deadline_s=_later(),
            )
        )
        told = [(name, value) for name, value in reply.headers.items() if name != "content-type"]
        try:
            await context.send_initial_metadata(told)
        except BaseException:
            await reply.aclose()
            raise
        return reply


@asynccontextmanager
async def grpc_worker(
    mock: MockSpec | None = None, *, credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> AsyncIterator[Worker]:
    """Serves until the block ends; calls that are still under way then are cancelled."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)))
    worker = Worker(mock or MockSpec())
    server.add_generic_rpc_handlers((_handlers(worker),))
    health_pb2_grpc.add_HealthServicer_to_server(worker.health, server)
    await worker.health.set("", SERVING)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        worker.port = server.add_insecure_port(address)
    else:
        worker.port = server.add_secure_port(address, credentials)
    async with running(server):
        yield worker


@asynccontextmanager
async def running(server: grpc.aio.Server) -> AsyncIterator[None]:
    """Until the block ends; then every task of the library's is waited for, as its threads outlive a test's loop."""
    before = asyncio.all_tasks()
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        left = asyncio.all_tasks() - before
        if left:
            await asyncio.wait(left, timeout=ENDING_S)


def _handlers(worker: Worker) -> grpc.GenericRpcHandler:
    """As the generated code has them, but that bytes go out as they are."""
    service = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"]
    chat = grpc.unary_unary_rpc_method_handler(worker.Chat, worker_pb2.ChatRequest.FromString, _serialized)
    stream = grpc.unary_stream_rpc_method_handler(
        worker.ChatStream, worker_pb2.ChatStreamRequest.FromString, _serialized
    )
    return grpc.method_handlers_generic_handler(service.full_name, {"Chat": chat, "ChatStream": stream})


def _serialized(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _error(status: int, body: bytes) -> worker_pb2.Error:
    fields = msgspec.json.decode(body)["error"] if body else {}
    told = {name: fields.get(name) or "" for name in ("message", "type", "code", "param")}
    return worker_pb2.Error(status=status, **told)


def _later() -> float:
    return asyncio.get_running_loop().time() + PATIENCE_S
