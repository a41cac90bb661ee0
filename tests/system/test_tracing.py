"""What a receiver of OTLP gets of the requests to a whole gateway, and what it never gets."""

import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nexus_gateway.config.runtime import MockSpec
from nexus_gateway.core.tracing import Place, place_of
from nexus_gateway.observe import span_names
from nexus_gateway.observe.span_export import FLUSH_S
from nexus_gateway.upstreams.http import HttpUpstream
from tests.support.gateway import KEY, gateway
from tests.support.grpc_worker import grpc_worker
from tests.support.http_client import Caller, chat
from tests.support.openai_server import openai_server
from tests.support.otlp import CLIENT, ERROR, SERVER, TRACED, UNSET, otlp_receiver
from tests.support.otlp import Received as Span
from tests.support.raw_server import STREAM_HEAD, Peer, RawServer, answering, chunk, plain

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MOCK = "m=mock://local"
PARENT = Place(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
TRACEPARENT = PARENT.header()[1].decode()
EVENT = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'


def body_for(model: str, *, stream: bool = False, content: str = "hello") -> bytes:
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": content}]}).encode()


def place(span: Span) -> tuple[str, str]:
    return span.trace, span.id


def told(headers: Mapping[str, str]) -> tuple[str, str, int]:
    """Trace and span that an upstream was told, and whether they are sampled."""
    found = place_of(headers["traceparent"].encode())
    assert found is not None
    return f"{found.trace_id:032x}", f"{found.span_id:016x}", found.flags & 1


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_request_is_a_server_span_and_its_attempt_a_client_span_below_it() -> None:
    async with otlp_receiver() as receiver, openai_server() as upstream:
        target = f"m=http://127.0.0.1:{upstream.port}?model=real"
        async with gateway(TRACED, target, environ=receiver.environ) as running:
            answer = await chat(running.port)
            record = running.records.last
        server, (client,) = receiver.server, receiver.clients
    assert (server.name, server.kind, server.parent, server.status) == ("POST /v1/chat/completions", SERVER, "", UNSET)
    usage = answer.json()["usage"]
    first_s = server.attributes["nexus.time_to_first_byte"]
    assert 0 < first_s <= (server.ended_ns - server.began_ns) / 1e9
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": False,
        "nexus.request_id": answer.headers["x-request-id"],
        "nexus.key_id": record.key_id,
        "nexus.route": "m",
        "nexus.upstream": "m",
        "nexus.attempts": 1,
        "nexus.time_to_first_byte": first_s,
        "nexus.input_tokens": usage["prompt_tokens"],
        "nexus.output_tokens": usage["completion_tokens"],
        "nexus.tokens_estimated": False,
    }
    assert (client.name, client.kind, client.trace) == ("chat real", CLIENT, server.trace)
    assert (client.parent, client.status) == (server.id, UNSET)
    assert client.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "real",
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "nexus.upstream": "m",
        "nexus.attempt": 1,
    }
    assert server.began_ns <= client.began_ns <= client.ended_ns <= server.ended_ns
    assert told(upstream.seen[0].headers) == (client.trace, client.id, 1)
    assert receiver.paths == ["/v1/traces"]


async def test_the_spans_of_a_stream_last_as_long_as_the_stream() -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(EVENT))
        await more.wait()
        last = EVENT.replace(b"null", b'"stop"') + b"data: [DONE]\n\n"
        await peer.send(chunk(last) + b"0\r\n\r\n")

    async with otlp_receiver() as receiver, RawServer(script) as upstream:
        target = f"m=http://127.0.0.1:{upstream.port}"
        async with gateway(TRACED, target, environ=receiver.environ) as running, Caller(running.port) as caller:
            began_s = time.monotonic()
            await caller.ask(stream=True)
            await caller.read_until(b"hi")
            until_first_s = time.monotonic() - began_s
            await asyncio.to_thread(time.sleep, 0.05)  # more than twice what finished spans wait for
            assert not receiver.bodies
            more.set()
            await caller.read_until(b"[DONE]")
            await running.idle()
        server, (client,) = receiver.server, receiver.clients
    assert (client.ended_ns - client.began_ns) / 1e9 >= 0.05
    assert 0 < client.attributes["gen_ai.response.time_to_first_chunk"] <= until_first_s
    assert client.attributes["gen_ai.request.stream"] is True
    assert (server.attributes["nexus.events"], server.attributes["gen_ai.request.stream"]) == (2, True)
    assert server.attributes["nexus.tokens_estimated"] is True
    assert "gen_ai.usage.output_tokens" not in client.attributes, "nobody counted them"


async def test_every_attempt_is_a_sibling_with_what_became_of_it() -> None:
    async with otlp_receiver() as receiver, openai_server(MockSpec(status=500)) as broken:
        upstreams = f"m=http://127.0.0.1:{broken.port};dead=http://127.0.0.1:9;mock=mock://local"
        settings = {**TRACED, "FALLBACKS": "m=dead,mock"}
        async with gateway(settings, upstreams, environ=receiver.environ) as running:
            assert (await chat(running.port)).status == 200
            record = running.records.last
        server, clients = receiver.server, receiver.clients
    assert [client.attributes["nexus.upstream"] for client in clients] == [each.upstream for each in record.attempts]
    assert [client.attributes["nexus.attempt"] for client in clients] == list(range(1, len(clients) + 1))
    assert {(client.parent, client.trace) for client in clients} == {(server.id, server.trace)}
    assert [client.attributes.get("error.type", "ok") for client in clients] == [
        each.outcome for each in record.attempts
    ]
    assert {(client.attributes["nexus.upstream"], client.status) for client in clients} == {
        ("m", ERROR), ("dead", ERROR), ("mock", UNSET),
    }  # fmt: skip
    assert [client.id for client in clients if client.attributes["nexus.upstream"] == "m"] == [
        told(seen.headers)[1] for seen in broken.seen
    ]
    assert (server.status, server.attributes["nexus.upstream"]) == (UNSET, "mock")
    assert [client for client in clients if "gen_ai.usage.output_tokens" in client.attributes] == clients[-1:]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_who_leaves_is_told_from_who_fails(stream: bool) -> None:
    async with (
        otlp_receiver() as receiver,
        openai_server(MockSpec(chunk_delay_s=60, delay_s=0 if stream else 60)) as up,
    ):
        target = f"m=http://127.0.0.1:{up.port}"
        async with gateway(TRACED, target, environ=receiver.environ) as running, Caller(running.port) as caller:
            await caller.ask(stream=stream)
            await up.model.reach(1)
            if stream:
                await caller.read_until(b"data: ")
            caller.leave()
            await running.idle()
        server, (client,) = receiver.server, receiver.clients
    assert (server.attributes["error.type"], server.status) == ("client_gone", UNSET)
    assert server.attributes["http.response.status_code"] == (200 if stream else 499)
    assert (client.attributes["error.type"], client.status) == ("cancelled", UNSET)
    assert ("http.response.status_code" in client.attributes) == stream


async def test_a_stream_that_breaks_has_failed_whatever_its_status_said() -> None:
    async with otlp_receiver() as receiver, openai_server(MockSpec(fail_after=2)) as up:
        async with gateway(TRACED, f"m=http://127.0.0.1:{up.port}", environ=receiver.environ) as running:
            assert (await chat(running.port, stream=True)).status == 200
        server, (client,) = receiver.server, receiver.clients
    assert (server.status, client.status) == (ERROR, ERROR)
    assert server.attributes["http.response.status_code"] == client.attributes["http.response.status_code"] == 200
    assert (server.attributes["error.type"], client.attributes["error.type"]) == ("upstream_truncated", "truncated")


@pytest.mark.parametrize(
    ("came", "told_status", "outcome", "failed"),
    [(401, 502, "auth_error", ERROR), (500, 502, "unavailable", ERROR), (400, 400, "rejected", UNSET)],
)
async def test_a_failure_is_one_of_both_spans_and_a_mistake_of_neither(
    came: int, told_status: int, outcome: str, failed: int
) -> None:
    async with otlp_receiver() as receiver, openai_server(MockSpec(status=came)) as up:
        async with gateway(TRACED, f"m=http://127.0.0.1:{up.port}", environ=receiver.environ) as running:
            assert (await chat(running.port)).status == told_status
            record = running.records.last
        server, clients = receiver.server, receiver.clients
    assert {span.status for span in (server, *clients)} == {failed}
    assert server.attributes["http.response.status_code"] == told_status
    assert server.attributes["error.type"] == record.error_code
    for client in clients:
        assert (client.attributes["http.response.status_code"], client.attributes["error.type"]) == (came, outcome)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [({"x-api-key": "wrong"}, 401, "invalid_api_key"), ({"content-type": "text/plain"}, 415, "unsupported_media_type")],
)
async def test_a_refusal_is_a_span_without_attempts(headers: Mapping[str, str], status: int, code: str) -> None:
    async with otlp_receiver() as receiver:
        async with gateway(TRACED, MOCK, environ=receiver.environ) as running:
            assert (await chat(running.port, headers=headers)).status == status
        (server,) = receiver.spans
    assert (server.attributes["http.response.status_code"], server.attributes["error.type"]) == (status, code)
    assert server.status == UNSET, "a caller's mistake is no failure of the server"


async def test_the_callers_trace_goes_on_to_upstreams_of_every_kind() -> None:
    sent = {"traceparent": TRACEPARENT, "tracestate": "vendor=opaque"}
    async with otlp_receiver() as receiver, openai_server() as over_http, grpc_worker() as over_grpc:
        upstreams = f"http=http://127.0.0.1:{over_http.port};grpc=grpc://127.0.0.1:{over_grpc.port}"
        async with gateway(TRACED, upstreams, environ=receiver.environ) as running:
            for model in ("http", "grpc"):
                for stream in (False, True):
                    assert (await chat(running.port, body=body_for(model, stream=stream), headers=sent)).status == 200
        spans, clients = receiver.spans, receiver.clients
    assert {span.trace for span in spans} == {f"{PARENT.trace_id:032x}"}
    assert {span.parent for span in spans if span.kind == SERVER} == {f"{PARENT.span_id:016x}"}
    heard = [dict(seen.headers) for seen in over_http.seen]
    heard += [{str(name): value for name, value in called.metadata} for called in over_grpc.called]
    assert [told(each) for each in heard] == [(*place(client), 1) for client in clients]
    assert {each["tracestate"] for each in heard} == {"vendor=opaque"}


@pytest.mark.parametrize("sent", [TRACEPARENT + "0", "nonsense", "00-" + "0" * 32 + TRACEPARENT[35:]])
async def test_a_trace_that_cannot_be_believed_is_not_gone_on_with(sent: str) -> None:
    headers = {"traceparent": sent, "tracestate": "vendor=opaque"}
    async with otlp_receiver() as receiver, openai_server() as up:
        async with gateway(TRACED, f"m=http://127.0.0.1:{up.port}", environ=receiver.environ) as running:
            assert (await chat(running.port, headers=headers)).status == 200
        server, (client,) = receiver.server, receiver.clients
    assert server.parent == ""
    assert told(up.seen[0].headers) == (*place(client), 1)
    assert "tracestate" not in up.seen[0].headers


@pytest.mark.parametrize(
    ("flag", "sampler", "sampled"),
    [
        ("00", {}, False),
        ("01", {}, True),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, False),
        ("01", {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, True),
        ("01", {"OTEL_TRACES_SAMPLER": "always_off"}, False),
        ("00", {"OTEL_TRACES_SAMPLER": "always_on"}, True),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, False),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}, True),
    ],
)
async def test_what_is_not_sampled_is_told_on_but_not_recorded(
    flag: str | None, sampler: Mapping[str, str], sampled: bool
) -> None:
    headers = {} if flag is None else {"traceparent": TRACEPARENT[:-2] + flag}
    async with otlp_receiver() as receiver, openai_server() as up:
        environ = {**receiver.environ, **sampler}
        async with gateway(TRACED, f"m=http://127.0.0.1:{up.port}", environ=environ) as running:
            for stream in (False, True):
                assert (await chat(running.port, stream=stream, headers=headers)).status == 200
        assert len(receiver.spans) == (4 if sampled else 0)
    for seen in up.seen:
        trace, _, told_sampled = told(seen.headers)
        assert told_sampled == sampled
        assert flag is None or trace == f"{PARENT.trace_id:032x}"


async def test_a_mirrored_attempt_is_a_span_of_the_same_trace() -> None:
    async with otlp_receiver() as receiver, openai_server() as candidate, openai_server(MockSpec(status=500)) as broken:
        for target, failed in ((candidate, None), (broken, "500")):
            receiver.bodies.clear()
            settings = {**TRACED, "SHADOW_ENABLED": "true", "SHADOW_TARGET": "new", "SHADOW_PERCENT": "100"}
            upstreams = f"m=mock://local;new=http://127.0.0.1:{target.port}"
            async with gateway(settings, upstreams, environ=receiver.environ) as running:
                await chat(running.port)
                await target.model.reach(0)
                while len(receiver.spans) < 3:
                    receiver.arrived.clear()
                    await receiver.arrived.wait()
            server = receiver.server
            first, mirrored = receiver.clients
            assert {first.parent, mirrored.parent} == {server.id}
            assert ("nexus.shadow" in first.attributes, mirrored.attributes["nexus.shadow"]) == (False, True)
            assert mirrored.attributes.get("error.type") == failed
            assert server.attributes["nexus.attempts"] == 1
            assert told(target.seen[-1].headers)[:2] == place(mirrored)


async def test_nothing_that_is_a_secret_or_a_text_of_somebody_is_exported() -> None:
    broken = plain(b'{"error":{"message":"canary-error canary-key-in-error"}}', b"x-canary: canary-head", status=500)
    async with otlp_receiver() as receiver, openai_server() as up, RawServer(answering(broken)) as failing:
        upstreams = f"m=http://127.0.0.1:{up.port}?forward_headers=x-tenant&api_key_env=THEIRS;bad=http://127.0.0.1:{failing.port}"
        settings = {**TRACED, "FALLBACKS": "bad=m", "PII_MASKING_ENABLED": "true", "AUDIT_BODIES": "masked"}
        environ = {
            **receiver.environ, "THEIRS": "canary-upstream-key",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20canary-otlp",
        }  # fmt: skip
        async with gateway(settings, upstreams, environ=environ) as running:
            headers = {
                "x-tenant": "canary-tenant", "authorization": f"Bearer {KEY}", "user-agent": "canary-agent",
                "cookie": "canary-cookie", "baggage": "canary=baggage", "tracestate": "canary=state",
                "traceparent": TRACEPARENT,
            }  # fmt: skip
            for model in ("m", "bad"):
                for stream in (False, True):
                    body = body_for(model, stream=stream, content="canary-prompt 900101-1234568 canary@example.com")
                    answer = await chat(running.port, body=body, headers=headers)
                    assert stream or b"canary-prompt" in answer.body, "the mock says it again"
            await chat(running.port, headers={"x-api-key": "canary-wrong-key"})
            await chat(running.port, body=b'{"model": "m", "messages": "canary-malformed"')
        assert len(receiver.spans) == 12
        for body in receiver.bodies:
            for secret in (b"canary", KEY.encode(), b"900101", b"example.com"):
                assert secret not in body
        assert {head["authorization"] for head in receiver.heads} == {"Bearer canary-otlp"}


async def test_every_span_says_whose_it_is() -> None:
    named = {"OTEL_SERVICE_NAME": "edge", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment=blue%2C1"}
    async with otlp_receiver() as receiver:
        for more, expected in (({}, "nexus-gateway"), (named, "edge")):
            environ = {**receiver.environ, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", **more}
            async with gateway(TRACED, MOCK, environ=environ) as running:
                await chat(running.port)
            assert {span.resource["service.name"] for span in receiver.spans[-2:]} == {expected}
        assert receiver.spans[-1].resource["deployment"] == "blue,1"


async def test_only_inference_is_traced() -> None:
    async with otlp_receiver() as receiver:
        async with gateway(TRACED, MOCK, environ=receiver.environ) as running, Caller(running.port) as caller:
            for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/models"):
                await caller.send(f"GET {path} HTTP/1.1\r\nhost: g\r\nx-api-key: {KEY}\r\n\r\n".encode())
                assert (await caller.receive()).status == 200
        assert not receiver.spans


@pytest.mark.parametrize("audited", ["true", "false"])
async def test_the_line_of_a_request_names_its_trace(audited: str, tmp_path: Path) -> None:
    log, settings = tmp_path / "log", {"AUDIT_LOGGING_ENABLED": audited}
    async with otlp_receiver() as receiver:
        for more in (TRACED, {}):
            with log.open("ab") as file:
                async with gateway(
                    {**settings, **more}, MOCK, environ=receiver.environ, log_fd=file.fileno()
                ) as running:
                    await chat(running.port)
        traced, untraced = lines_of(log)
        assert traced["trace_id"] == receiver.server.trace
        assert "trace_id" not in untraced


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [("away", 200, "ConnectionError"), ("refusing", 401, "HTTP 401"), ("elsewhere", 302, "HTTP 302")],
)
async def test_a_receiver_that_takes_nothing_is_one_line_and_delays_nobody(
    fault: str, status: int, reason: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with otlp_receiver() as receiver:
        receiver.status = status
        environ = receiver.environ
        if fault == "away":
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        with log.open("wb") as file:
            settings = {**TRACED, "LOG_LEVEL": "info"}
            async with gateway(settings, MOCK, environ=environ, log_fd=file.fileno()) as running:
                for _ in range(5):
                    assert (await chat(running.port)).status == 200
                    await asyncio.to_thread(time.sleep, 0.05)
                began_s = time.monotonic()
            assert time.monotonic() - began_s < FLUSH_S + 2
    lost = [line for line in lines_of(log) if line["event"] not in ("request_finished", "audit")]
    assert [(line["event"], line["level"]) for line in lost] == [("spans_lost", "warning")]
    assert reason in lost[0]["reason"]


async def test_a_receiver_that_says_nothing_delays_neither_answers_nor_the_end() -> None:
    async with otlp_receiver() as receiver:
        receiver.may_answer.clear()
        environ = {**receiver.environ, "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
        async with gateway(TRACED, MOCK, environ=environ) as running:
            await chat(running.port)
            await receiver.arrived.wait()
            for _ in range(20):
                assert (await chat(running.port)).status == 200
            began_s = time.monotonic()
        assert time.monotonic() - began_s < FLUSH_S + 2
        receiver.may_answer.set()


async def test_off_costs_not_even_an_import() -> None:
    """FastAPI itself imports the API of OpenTelemetry, without a library behind it."""
    ask = "import sys, app.main; print(*(name for name in sys.modules if 'opentelemetry' in name or 'nexus' in name))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ask, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    modules = (await process.communicate())[0].decode().split()
    assert "nexus_gateway.app" in modules
    foreign = (
        "opentelemetry.sdk",
        "opentelemetry.exporter",
        "opentelemetry.proto",
        "nexus_gateway.observe.span_export",
    )
    assert not [name for name in modules if name.startswith(foreign)]


async def test_off_hands_the_callers_trace_on_as_it_came() -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=opaque"}
    async with openai_server() as up, gateway(upstreams=f"m=http://127.0.0.1:{up.port}") as running:
        assert (await chat(running.port, headers=headers)).status == 200
        assert running.app.data_plane is not None
        assert isinstance(running.app.data_plane.endpoints["m"].upstream, HttpUpstream), "nothing stands before it"
    assert {name: up.seen[0].headers[name] for name in headers} == headers


async def test_without_the_extra_it_does_not_start_and_says_how_to_get_it(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in {Path(path) for path in sys.path if path.endswith("site-packages")}:
        for entry in folder.iterdir():
            if not entry.name.startswith(("opentelemetry_sdk", "opentelemetry_exporter")):
                (packages / entry.name).symlink_to(entry)
    source = ROOT / "src"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", "from nexus_gateway.cli import main; main(['serve'])",
        env={**os.environ, "PYTHONPATH": f"{source}:{packages}", "GATEWAY_OTEL_ENABLED": "true"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said = (await process.communicate())[1].decode()
    assert process.returncode == 2
    assert "GATEWAY_OTEL_ENABLED: OpenTelemetry's SDK is not installed. Run: pip install 'nexus-gateway[otel]'" in said


async def test_the_command_of_the_page_traces_and_sends_the_last_spans_when_it_is_told_to_stop() -> None:
    page = (ROOT / "docs/tracing.md").read_text()
    command = shlex.split(page.partition("GATEWAY_OTEL_ENABLED=")[2].partition("\n")[0])
    async with otlp_receiver() as receiver:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "OTEL_"))}
        environ |= {"GATEWAY_OTEL_ENABLED": command[0], "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        name, _, value = command[1].partition("=")
        environ[name] = value.replace("4318", str(receiver.port))
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / command[2]), *command[3:], "--port", "0",
            env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        port = int((await process.stderr.readuntil(b"/v1\n")).rpartition(b":")[2].removesuffix(b"/v1\n"))
        assert (await chat(port, body=body_for("mock"), headers={"x-api-key": "dev-key"})).status == 200
        process.terminate()
        await process.stderr.read()
        assert await process.wait() == 0
        assert [span.kind for span in receiver.spans] == [SERVER, CLIENT]


def test_the_page_explains_every_name() -> None:
    page = (ROOT / "docs/tracing.md").read_text()
    told = {value for name, value in vars(span_names).items() if name.isupper() and isinstance(value, str)}
    assert len(told) > 20
    assert not {name for name in told if f"`{name}`" not in page}
