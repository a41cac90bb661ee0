"""What a gRPC worker is told, and what its statuses, messages and silences mean; the contract suite says the rest."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
import trustme
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckResponse

from nexus_gateway.config.runtime import MockSpec, Timeouts, UpstreamSpec
from nexus_gateway.core.answers import StreamJudge
from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamDnsError,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from nexus_gateway.core.sse import DONE
from nexus_gateway.upstreams.base import UpstreamRequest
from nexus_gateway.upstreams.grpc import KEEPALIVE_MS, GrpcUpstream
from nexus_gateway.upstreams.worker_v1.worker_pb2 import ChatResponse, ChatStreamResponse, Error, Usage
from tests.support.grpc_worker import grpc_worker, running
from tests.support.upstream_calls import ask, request

from .calls import now_s, read_stream

pytestmark = pytest.mark.anyio

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}'
LIMIT_BYTES = 100_000
TOLD = (("x-request-id", "theirs"), ("retry-after", "7"))

Handler = Callable[[bytes, Any], Awaitable[bytes]]
StreamHandler = Callable[[bytes, Any], AsyncIterator[bytes]]


@asynccontextmanager
async def adapter(port: int, *, timeouts: Timeouts | None = None, **spec: Any) -> AsyncIterator[GrpcUpstream]:
    fields = {"kind": "grpc", "host": "127.0.0.1", **spec}
    upstream = GrpcUpstream(
        UpstreamSpec("east", port=port, base_path="", **fields),
        timeouts or Timeouts(connect_s=1.0),
        max_answer_bytes=LIMIT_BYTES,
    )
    try:
        yield upstream
    finally:
        await upstream.aclose()


@asynccontextmanager
async def alone(port: int, **spec: Any) -> AsyncIterator[GrpcUpstream]:
    """An adapter without a worker. The end of the other one here comes last through the library's one queue of events,
    which outlives a test's loop."""
    async with grpc_worker(), adapter(port, **spec) as upstream:
        yield upstream


@asynccontextmanager
async def scripted(
    chat: Handler | None = None, stream: StreamHandler | None = None, *, request_limit_bytes: int = 1 << 20
) -> AsyncIterator[GrpcUpstream]:
    """An adapter for a worker that answers with the very bytes it is told to."""
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", request_limit_bytes),))
    handlers: dict[str, Any] = {}
    if chat is not None:
        handlers["Chat"] = grpc.unary_unary_rpc_method_handler(chat)
    if stream is not None:
        handlers["ChatStream"] = grpc.unary_stream_rpc_method_handler(stream)
    service = grpc.method_handlers_generic_handler("nexus.worker.v1.WorkerService", handlers)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    async with running(server), adapter(port) as upstream:
        yield upstream


def always(message: ChatResponse | bytes) -> Handler:
    async def chat(request: bytes, context: Any) -> bytes:
        return message if isinstance(message, bytes) else message.SerializeToString()

    return chat


def events(*messages: ChatStreamResponse | bytes) -> StreamHandler:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in messages:
            yield message if isinstance(message, bytes) else message.SerializeToString()

    return stream


def failing(code: StatusCode, details: str = "no") -> tuple[Handler, StreamHandler]:
    async def chat(request: bytes, context: Any) -> bytes:
        await context.abort(code, details, TOLD)
        raise AssertionError

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(code, details, TOLD)
        yield b""

    return chat, stream


def chunk(text: str, **members: Any) -> ChatStreamResponse:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return ChatStreamResponse(body=msgspec.json.encode({"choices": [choice], **members}))


async def streamed(upstream: GrpcUpstream) -> list[bytes]:
    reply = await upstream.send(request(stream=True, body=STREAM))
    try:
        return await read_stream(reply)
    finally:
        await reply.aclose()


def with_headers(**call: Any) -> UpstreamRequest:
    secret = [(name, b"secret") for name in (b"authorization", b"cookie", b"x-api-key", b"x-other", b"te")]
    trace = [(b"traceparent", b"00-1-2-01"), (b"tracestate", b"a=b"), (b"tracestate", "é".encode())]
    return request(headers=[*secret, *trace], **call)


class TestWhatAWorkerIsTold:
    async def test_the_id_and_the_trace_of_a_request_and_no_credential(self) -> None:
        async with grpc_worker() as worker, adapter(worker.port) as upstream:
            reply = await upstream.send(with_headers(body=CHAT))
            await reply.aclose()
            (called,) = worker.called
        told = dict(called.metadata)
        assert {"x-request-id": "req-1", "traceparent": "00-1-2-01", "tracestate": "a=b"}.items() <= told.items()
        assert told.keys() <= {"x-request-id", "traceparent", "tracestate", "user-agent"}
        assert told["user-agent"].startswith("nexus-gateway/")
        assert (called.message.request_id, called.message.model, called.message.body) == ("req-1", "m", CHAT)

    async def test_what_is_left_of_the_time_for_a_plain_answer(self) -> None:
        async with grpc_worker() as worker, adapter(worker.port) as upstream:
            await (await upstream.send(request(body=CHAT, within_s=5.0))).aclose()
            (called,) = worker.called
        assert called.remaining_s is not None
        assert 3.0 < called.remaining_s < 6.0  # it travels in round numbers

    async def test_a_stream_has_until_its_first_event_and_then_the_time_of_streams(self) -> None:
        async with (
            grpc_worker() as worker,
            adapter(worker.port) as free,
            adapter(worker.port, timeouts=Timeouts(stream_max_s=60.0)) as bounded,
        ):
            for upstream in (free, bounded):
                await (await upstream.send(request(stream=True, body=STREAM, within_s=5.0))).aclose()
            unlimited, limited = worker.called
        assert 3000 < int(dict(unlimited.metadata)["nexus-first-event-timeout-ms"]) <= 5000
        assert unlimited.remaining_s is None or unlimited.remaining_s > 1e6
        assert limited.remaining_s is not None
        assert 60 < limited.remaining_s < 70


class TestStatuses:
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            (StatusCode.INVALID_ARGUMENT, 400),
            (StatusCode.FAILED_PRECONDITION, 400),
            (StatusCode.OUT_OF_RANGE, 400),
            (StatusCode.UNAUTHENTICATED, 401),
            (StatusCode.PERMISSION_DENIED, 403),
            (StatusCode.NOT_FOUND, 404),
            (StatusCode.ALREADY_EXISTS, 409),
            (StatusCode.RESOURCE_EXHAUSTED, 429),
            (StatusCode.UNKNOWN, 500),
            (StatusCode.INTERNAL, 500),
            (StatusCode.DATA_LOSS, 500),
            (StatusCode.UNIMPLEMENTED, 501),
            (StatusCode.ABORTED, 503),
        ],
    )
    async def test_a_status_is_an_answer(self, code: StatusCode, status: int, stream: bool) -> None:
        async with scripted(*failing(code, "what is wrong")) as upstream:
            reply = await upstream.send(request(stream=stream, body=CHAT))
            error = msgspec.json.decode(await reply.read_all(LIMIT_BYTES))["error"]
            await reply.aclose()
        assert (reply.status, error["message"]) == (status, "what is wrong")
        assert reply.headers == {"content-type": "application/json", **dict(TOLD)}

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (StatusCode.UNAVAILABLE, UpstreamConnectError),
            (StatusCode.CANCELLED, UpstreamConnectError),
            (StatusCode.DEADLINE_EXCEEDED, UpstreamTimeout),
        ],
    )
    async def test_or_says_that_there_is_none(self, code: StatusCode, kind: type[UpstreamError], stream: bool) -> None:
        async with scripted(*failing(code)) as upstream:
            with pytest.raises(kind) as raised:
                await upstream.send(request(stream=stream, body=CHAT))
        assert raised.value.upstream == "east"

    @pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.INVALID_ARGUMENT])
    async def test_any_status_after_the_first_event_is_a_broken_stream(self, code: StatusCode) -> None:
        async def stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
            yield chunk("one").SerializeToString()
            await context.abort(code, "no")

        async with scripted(stream=stream) as upstream:
            reply = await upstream.send(request(stream=True, body=STREAM))
            assert await reply.read(now_s() + 1)
            for _ in range(2):
                with pytest.raises(UpstreamTruncated):
                    await reply.read(now_s() + 1)
            await reply.aclose()

    async def test_a_method_that_is_not_there_is_no_fault_of_the_callers(self) -> None:
        async with scripted() as upstream:
            reply = await upstream.send(request(body=CHAT))
        assert reply.status == 501


class TestErrorsOfTheContract:
    @pytest.mark.parametrize(("status", "stands_for"), [(422, 422), (0, 500), (200, 500), (7000, 500), (302, 302)])
    async def test_the_first_message_gives_a_stream_its_status(self, status: int, stands_for: int) -> None:
        error = Error(status=status, message="why", code="some_code", param="messages")
        async with scripted(always(ChatResponse(error=error)), events(ChatStreamResponse(error=error))) as upstream:
            plain = await upstream.send(request(body=CHAT))
            stream = await upstream.send(request(stream=True, body=STREAM))
            bodies = {await reply.read_all(LIMIT_BYTES) for reply in (plain, stream)}
        assert plain.status == stream.status == stands_for
        (body,) = bodies
        assert (b"some_code" in body) is (stands_for >= 400)

    @pytest.mark.parametrize(("status", "kind"), [(400, UpstreamRejected), (503, UpstreamUnavailable)])
    async def test_a_later_one_is_an_error_event(self, status: int, kind: type[UpstreamError]) -> None:
        error = ChatStreamResponse(error=Error(status=status, message="why"))
        async with scripted(stream=events(chunk("one"), error)) as upstream:
            _, event, end = await streamed(upstream)
        assert end == DONE
        with pytest.raises(kind):
            StreamJudge("east", choices=1, keep_usage=True).admit(event)


class TestMessages:
    async def test_usage_told_beside_a_body_is_written_into_it(self) -> None:
        usage = Usage(prompt_tokens=3, completion_tokens=4)
        as_json = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        plain = always(ChatResponse(body=b'{"choices":[],"usage":null}', usage=usage))
        async with scripted(plain, events(chunk("one"), ChatStreamResponse(usage=usage))) as upstream:
            answer = msgspec.json.decode(await ask(upstream, body=CHAT))
            _, last, _ = await streamed(upstream)
        assert answer == {"choices": [], "usage": as_json}
        assert msgspec.json.decode(last)["usage"] == as_json

    async def test_usage_that_a_body_tells_itself_stands(self) -> None:
        told = chunk("one", usage={"prompt_tokens": 1})
        told.usage.CopyFrom(Usage(prompt_tokens=9))
        async with scripted(stream=events(told)) as upstream:
            event, _ = await streamed(upstream)
        assert event == told.body

    async def test_a_chunk_of_several_lines_is_one_event(self) -> None:
        async with scripted(stream=events(ChatStreamResponse(body=b'{\r\n "a":\n "b\\n"}\n'))) as upstream:
            event, _ = await streamed(upstream)
        assert event == b'{"a":"b\\n"}'

    @pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\xff", ChatResponse(body=b"{\n", usage=Usage())])
    async def test_what_is_not_a_message_is_refused_and_the_next_answer_is_not(self, garbage: Any) -> None:
        answers = iter([garbage, ChatResponse(body=b"{}")])

        async def chat(message: bytes, context: Any) -> bytes:
            answer: ChatResponse | bytes = next(answers)
            return answer if isinstance(answer, bytes) else answer.SerializeToString()

        async with scripted(chat, events(garbage)) as upstream:
            with pytest.raises(UpstreamInvalidResponse):
                await ask(upstream, body=CHAT)
            with pytest.raises(UpstreamInvalidResponse):
                await upstream.send(request(stream=True, body=STREAM))
            assert await ask(upstream, body=CHAT) == b"{}"

    async def test_garbage_inside_a_stream_ends_it(self) -> None:
        async with scripted(stream=events(chunk("one"), b"\xff\xff\xff", chunk("two"))) as upstream:
            reply = await upstream.send(request(stream=True, body=STREAM))
            assert await reply.read(now_s() + 1)
            for _ in range(2):
                with pytest.raises(UpstreamInvalidResponse):
                    await reply.read(now_s() + 1)
            await reply.aclose()

    async def test_a_stream_without_a_message_has_no_body(self) -> None:
        async with scripted(stream=events()) as upstream:
            assert await streamed(upstream) == []

    async def test_an_answer_over_the_limit_is_refused_and_the_channel_survives(self) -> None:
        large = b'"' + b"x" * LIMIT_BYTES + b'"'
        answers = iter([large, b"{}"])

        async def chat(message: bytes, context: Any) -> bytes:
            return ChatResponse(body=next(answers)).SerializeToString()

        async with scripted(chat, events(chunk("one"), ChatStreamResponse(body=large))) as upstream:
            with pytest.raises(UpstreamInvalidResponse):
                await ask(upstream, body=CHAT)
            reply = await upstream.send(request(stream=True, body=STREAM))
            assert await reply.read(now_s() + 1)
            with pytest.raises(UpstreamInvalidResponse):
                await reply.read(now_s() + 1)
            await reply.aclose()
            assert await ask(upstream, body=CHAT) == b"{}"

    async def test_a_request_over_the_workers_limit_is_the_callers(self) -> None:
        async with scripted(always(ChatResponse(body=b"{}")), request_limit_bytes=1000) as upstream:
            reply = await upstream.send(request(body=b'"' + b"x" * 2000 + b'"'))
            assert reply.status == 413
            assert await ask(upstream, body=CHAT) == b"{}"

    async def test_a_reader_that_stops_stops_the_worker(self) -> None:
        produced, too_many = 0, asyncio.Event()

        async def stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
            nonlocal produced
            while True:
                produced += 1
                if produced > 1000:
                    too_many.set()
                yield chunk("x" * 50_000).SerializeToString()

        async with scripted(stream=stream) as upstream:
            reply = await upstream.send(request(stream=True, body=STREAM))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(too_many.wait(), 0.3)
            await reply.aclose()


class TestConnecting:
    async def test_nobody_there_is_known_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with alone(port) as upstream:
            began_s = now_s()
            for _ in range(2):
                with pytest.raises(UpstreamConnectError):
                    await ask(upstream, body=CHAT, within_s=5.0)
            assert now_s() - began_s < 1.0

    async def test_a_name_that_does_not_resolve(self) -> None:
        async with alone(50051, host="no-such-host.invalid") as upstream:
            with pytest.raises(UpstreamDnsError):
                await ask(upstream, body=CHAT, within_s=5.0)

    async def test_whoever_accepts_and_never_answers_is_late(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with alone(listener.getsockname()[1]) as upstream:
                with pytest.raises(UpstreamTimeout):
                    await ask(upstream, body=CHAT, within_s=0.1)

    async def test_a_worker_that_comes_back_is_found_again(self) -> None:
        async with grpc_worker() as first:
            port = first.port
            async with adapter(port) as upstream:
                assert await ask(upstream, body=CHAT)
        async with adapter(port) as upstream:
            with pytest.raises(UpstreamConnectError):
                await ask(upstream, body=CHAT)
            async with grpc_worker(port=port), asyncio.timeout(10):
                while not await _answers(upstream):  # each of them waits for the network
                    pass

    async def test_over_tls_by_its_own_authority_alone(self, tmp_path: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
        for name, ca in (("ours", authority), ("other", stranger)):
            ca.cert_pem.write_to_path(str(tmp_path / name))
        async with grpc_worker(credentials=grpc.ssl_server_credentials([pair])) as worker:
            async with adapter(worker.port, kind="grpcs", ca_file=str(tmp_path / "ours")) as upstream:
                assert await ask(upstream, body=CHAT)
            for wrong in (str(tmp_path / "other"), None):
                async with adapter(worker.port, kind="grpcs", ca_file=wrong) as upstream:
                    with pytest.raises(UpstreamConnectError):
                        await ask(upstream, body=CHAT)

    async def test_a_worker_that_asks_who_it_talks_to_is_shown_the_certificate(self, tmp_path: Path) -> None:
        authority, team = trustme.CA(), trustme.CA()
        ca_file, both, key, chain = (str(tmp_path / name) for name in ("ca", "both", "key", "chain"))
        authority.cert_pem.write_to_path(ca_file)
        own = team.issue_cert("gateway.internal")
        own.private_key_and_cert_chain_pem.write_to_path(both)
        own.private_key_pem.write_to_path(key)
        own.cert_chain_pems[0].write_to_path(chain)
        issued = authority.issue_cert("127.0.0.1")
        pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
        asking = grpc.ssl_server_credentials([pair], team.cert_pem.bytes(), require_client_auth=True)
        async with grpc_worker(credentials=asking) as worker:
            for cert_file, key_file in ((both, None), (chain, key)):
                shown: dict[str, Any] = {"cert_file": cert_file, "key_file": key_file}
                async with adapter(worker.port, kind="grpcs", ca_file=ca_file, **shown) as upstream:
                    assert await ask(upstream, body=CHAT)
            async with adapter(worker.port, kind="grpcs", ca_file=ca_file) as upstream:
                with pytest.raises(UpstreamConnectError):
                    await ask(upstream, body=CHAT)

    def test_nobody_is_pinged_more_often_than_servers_take(self) -> None:
        """They cut the connection otherwise, minutes into a silence that no test waits for."""
        default_of_servers_ms = 300_000  # GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, and Go's MinTime
        assert default_of_servers_ms < KEEPALIVE_MS


class TestHealth:
    @pytest.mark.parametrize("name", ["NOT_SERVING", "UNKNOWN"])
    async def test_well_as_long_as_it_says_so(self, name: str) -> None:
        async with grpc_worker() as worker, adapter(worker.port) as upstream:
            await upstream.check(now_s() + 1)
            await worker.health.set("", HealthCheckResponse.ServingStatus.Value(name))
            with pytest.raises(UpstreamUnavailable):
                await upstream.check(now_s() + 1)

    async def test_whoever_has_no_such_service_is_not_judged(self) -> None:
        async with scripted(always(ChatResponse(body=b"{}"))) as upstream:
            await upstream.check(now_s() + 1)

    async def test_silence_is_no_health(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with alone(listener.getsockname()[1]) as upstream:
                with pytest.raises(UpstreamTimeout):
                    await upstream.check(now_s() + 0.1)
        with pytest.raises(UpstreamError):
            await upstream.check(now_s() + 0.1)


async def test_a_call_that_nobody_awaits_any_more_ends_at_the_worker() -> None:
    async with grpc_worker(MockSpec(delay_s=10)) as worker, adapter(worker.port) as upstream:
        with pytest.raises(UpstreamTimeout):
            await ask(upstream, body=CHAT, within_s=0.1)
        await worker.model.reach(0)


def test_a_gateway_without_such_an_upstream_does_not_load_the_library() -> None:
    code = (
        "import sys; from nexus_gateway.app import create_app; create_app({});"
        "sys.exit(any(name in sys.modules for name in ('grpc', 'google.protobuf')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


async def _answers(upstream: GrpcUpstream) -> bool:
    try:
        return bool(await ask(upstream, body=CHAT))
    except UpstreamConnectError:
        return False
