"""The example worker owes the gateway what the documentation says of it: reflection, health, limits, an orderly end."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from nexus_gateway.config.runtime import Timeouts, UpstreamSpec
from nexus_gateway.core.sse import DONE
from nexus_gateway.upstreams.grpc import GrpcUpstream
from tests.support.upstream_calls import ask, request
from tests.upstreams.calls import now_s, read_stream

pytestmark = pytest.mark.anyio

WORKER = Path(__file__).parents[2] / "examples/grpc_worker/worker.py"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
SERVICE = "nexus.worker.v1.WorkerService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def streamed(words: int) -> bytes:
    """Asks for an answer of so many chunks, at least."""
    question = [{"role": "user", "content": "word " * words}]
    return msgspec.json.encode({"model": "m", "stream": True, "messages": question})


@dataclass(frozen=True, slots=True)
class Example:
    process: asyncio.subprocess.Process
    port: int

    async def hear(self) -> bytes:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).rstrip()


@asynccontextmanager
async def example(*options: str) -> AsyncIterator[tuple[Example, GrpcUpstream]]:
    """The worker in a process of its own, and the gateway's adapter for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), "--port", "0", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int((await process.stdout.readline()).removeprefix(b"listening on "))
        upstream = GrpcUpstream(UpstreamSpec("east", "grpc", "127.0.0.1", port, ""), Timeouts(connect_s=5.0))
        try:
            yield Example(process, port), upstream
        finally:
            await upstream.aclose()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_tells_what_it_serves() -> None:
    def services(port: int) -> set[str]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    async with example() as (worker, _):
        assert SERVICE in await asyncio.to_thread(services, worker.port)


async def test_the_same_question_gets_the_same_answer_with_its_usage_told_beside_it() -> None:
    async with example() as (_, upstream):
        first, second = [await ask(upstream, body=CHAT, within_s=10) for _ in range(2)]
    assert first == second
    assert msgspec.json.decode(first)["usage"]["total_tokens"] > 0


async def test_over_its_limit_of_calls_the_gateway_is_told_to_come_later() -> None:
    async with example("--max-calls", "1", "--chunk-delay-ms", "10000") as (_, upstream):
        reply = await upstream.send(request(stream=True, body=streamed(10), within_s=10))
        refused = await upstream.send(request(body=CHAT, within_s=10))
        assert refused.status == 429
        await reply.aclose()


async def test_whoever_does_not_read_holds_it_up_and_whoever_leaves_frees_it() -> None:
    """It could not be cancelled any more if it had written all of this into some buffer."""
    async with example() as (worker, upstream):
        reply = await upstream.send(request(stream=True, body=streamed(100_000), within_s=20))
        assert await reply.read(now_s() + 10)
        await reply.aclose()
        assert await worker.hear() == b"cancelled req-1"


async def test_told_to_go_it_is_unwell_at_once_and_finishes_what_it_began() -> None:
    async with example("--chunk-delay-ms", "25") as (worker, upstream):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            await upstream.check(now_s() + 5)
            reply = await upstream.send(request(stream=True, body=streamed(10), within_s=10))
            worker.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            watch.cancel()
            assert (await read_stream(reply))[-1] == DONE
            await reply.aclose()
        assert await worker.process.wait() == 0
