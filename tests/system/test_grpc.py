"""A gRPC worker behind a whole gateway: what callers see of its faults, and what it sees of theirs."""

import asyncio
from typing import Any

import msgspec
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from nexus_gateway.config.runtime import MockSpec
from tests.support.canaries import SAID, assert_hidden, gateway
from tests.support.gateway import KEY, Running
from tests.support.grpc_worker import grpc_worker

pytestmark = pytest.mark.anyio


async def connect(running: Running, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a chat was asked for."""
    sent = msgspec.json.encode({"model": "worker", "messages": [{"role": "user", "content": SAID}], **body})
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    )
    writer.write(head.encode() + sent)
    return reader, writer


async def ask(running: Running, **body: Any) -> tuple[int, bytes]:
    """Status, and all that came behind the head."""
    reader, writer = await connect(running, body)
    answer = await reader.read()
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (MockSpec(status=429), 429, "rate_limit_exceeded"),
        (MockSpec(status=401), 502, "upstream_auth_error"),
        (MockSpec(status=500), 502, "upstream_error"),
        (MockSpec(delay_s=10), 504, "upstream_timeout"),
    ],
)
async def test_faults_are_those_of_any_upstream(behaviour: MockSpec, status: int, code: str, stream: bool) -> None:
    async with grpc_worker(behaviour) as worker:
        target = f"worker=grpc://127.0.0.1:{worker.port}?timeout_seconds=0.3"
        async with gateway(upstreams=target) as running:
            assert (await ask(running, stream=stream))[0] == status
            await worker.model.reach(0)
            assert running.records.last.error_code == code
            assert running.records.last.masked
        async with gateway({"FALLBACKS": "worker=mock"}, upstreams=f"{target};mock=mock://local") as running:
            assert (await ask(running, stream=stream))[0] == 200
        assert worker.called
        for called in worker.called:
            assert_hidden(called.message.body)


async def test_a_stream_that_breaks_ends_with_an_error_event() -> None:
    async with (
        grpc_worker(MockSpec(fail_after=2)) as worker,
        gateway(upstreams=f"worker=grpc://127.0.0.1:{worker.port}") as running,
    ):
        status, body = await ask(running, stream=True)
    assert status == 200
    assert b'"error"' in body
    assert b"[DONE]" not in body


@pytest.mark.parametrize("behaviour", [MockSpec(delay_s=10), MockSpec(chunk_delay_s=10)])
async def test_a_caller_who_leaves_is_noticed_by_the_worker(behaviour: MockSpec) -> None:
    async with (
        grpc_worker(behaviour) as worker,
        gateway(upstreams=f"worker=grpc://127.0.0.1:{worker.port}") as running,
    ):
        _, writer = await connect(running, {"stream": True})
        await worker.model.reach(1)
        writer.close()
        await worker.model.reach(0)


async def test_usage_is_metered_as_the_worker_tells_it() -> None:
    async with grpc_worker() as worker, gateway(upstreams=f"worker=grpc://127.0.0.1:{worker.port}") as running:
        for stream in (False, True):
            assert (await ask(running, stream=stream))[0] == 200
            await running.idle()
        plain, streamed = running.records.finished_records
    assert plain.usage is not None
    assert plain.usage == streamed.usage


async def test_a_worker_that_calls_itself_unwell_is_skipped() -> None:
    async with grpc_worker() as worker:
        await worker.health.set("", HealthCheckResponse.NOT_SERVING)
        upstreams = f"worker=grpc://127.0.0.1:{worker.port};mock=mock://local"
        async with gateway({"FALLBACKS": "worker=mock"}, upstreams=upstreams) as running, asyncio.timeout(5):
            while True:  # the first check is on its way
                assert (await ask(running))[0] == 200
                await running.idle()
                if running.records.last.upstream == "mock":
                    break
    assert [attempt.upstream for attempt in running.records.last.attempts] == ["mock"]
