"""A model worker for `grpc://` upstreams, as short as it can be: copy it, and put your model where `respond` is.

    .venv/bin/python examples/grpc_worker/worker.py --port 50051
    GATEWAY_UPSTREAMS='worker=grpc://localhost:50051' nexus-gateway serve

For:      showing what a worker owes the gateway. The same question gets the same answer, by the built-in mock model.
Touches:  one port, and stdout: one line per call that was given up.
"""

import asyncio
import importlib.util
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import click
import grpc
import msgspec
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health

from nexus_gateway.core.mock.model import Response, respond
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.worker_v1.worker_pb2 import (
    DESCRIPTOR,
    OPERATION_COMPLETIONS,
    OPERATION_EMBEDDINGS,
    ChatRequest,
    ChatResponse,
    ChatStreamRequest,
    ChatStreamResponse,
    Error,
    Usage,
)
from nexus_gateway.upstreams.worker_v1.worker_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)

MAX_REQUEST_BYTES: Final = 32 << 20  # the gateway's GATEWAY_MAX_BODY_BYTES and some
DONE: Final = b"[DONE]"
OPERATIONS: Final = {OPERATION_COMPLETIONS: Operation.COMPLETIONS, OPERATION_EMBEDDINGS: Operation.EMBEDDINGS}


class MockWorker(WorkerServiceServicer):
    """`pause_s`: between two chunks, as a model takes its time."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    async def Chat(self, request: ChatRequest, context: Any) -> ChatResponse:  # noqa: N802
        """A deadline that passes, or a caller who leaves, cancels this coroutine: nothing else is needed."""
        response = answer(request)
        (body,) = response.pieces
        return ChatResponse(error=error(body)) if response.status != 200 else ChatResponse(body=body, **facts(body))

    async def ChatStream(self, request: ChatStreamRequest, context: Any) -> AsyncIterator[ChatStreamResponse]:  # noqa: N802
        """Each `yield` waits while the gateway does not read: a slow caller slows the model, not the memory."""
        try:
            response = answer(request)
            for piece in response.pieces:
                body = piece.removeprefix(b"data: ").rstrip(b"\n")
                if response.status != 200:
                    yield ChatStreamResponse(error=error(body))
                elif body != DONE:
                    yield ChatStreamResponse(body=body, **facts(body))
                    await asyncio.sleep(self._pause_s)
        except (asyncio.CancelledError, GeneratorExit):
            print(f"cancelled {request.request_id}", flush=True)
            raise


def answer(request: ChatRequest | ChatStreamRequest) -> Response:
    """What the model says."""
    return respond(OPERATIONS.get(request.operation, Operation.CHAT), request.body)


def facts(body: bytes) -> dict[str, Any]:
    """What the contract wants to be told beside the JSON."""
    document = msgspec.json.decode(body)
    usage, choices = document.get("usage"), document.get("choices") or [{}]
    return {
        "model": document["model"],
        "finish_reason": choices[0].get("finish_reason") or "",
        "usage": Usage(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage.get("completion_tokens", 0))
        if usage
        else None,
    }


def error(body: bytes) -> Error:
    told = msgspec.json.decode(body)["error"]
    return Error(status=400, **{name: told.get(name) or "" for name in ("message", "type", "code", "param")})


async def serve(port: int, pause_s: float, max_calls: int) -> None:
    """Until SIGTERM or Ctrl-C: then unwell at once, and calls under way get ten seconds."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=max_calls,  # over it RESOURCE_EXHAUSTED, which the gateway takes for a 429
        options=(("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)),
    )
    add_WorkerServiceServicer_to_server(MockWorker(pause_s), server)
    wellness = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(wellness, server)
    if importlib.util.find_spec("grpc_reflection") is not None:
        from grpc_reflection.v1alpha import reflection

        names = (DESCRIPTOR.services_by_name["WorkerService"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"listening on {port}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await wellness.enter_graceful_shutdown()
    await server.stop(10)


@click.command()
@click.option("--port", default=50051, help="0 for any that is free.")
@click.option("--chunk-delay-ms", default=0.0)
@click.option("--max-calls", default=256)
def main(port: int, chunk_delay_ms: float, max_calls: int) -> None:
    asyncio.run(serve(port, chunk_delay_ms / 1000, max_calls))


if __name__ == "__main__":
    main()
