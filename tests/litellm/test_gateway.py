"""A provider behind a whole gateway: callers, limits, masking, breakers and metrics meet what they meet elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import openai
import pytest

from nexus_gateway.config.runtime import MockSpec
from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import Caller, chat
from tests.support.openai_server import OpenAIServer, openai_server

pytestmark = pytest.mark.anyio

CHAT = msgspec.json.encode({"model": "gpt", "messages": [{"role": "user", "content": "hello"}]})
STREAM = msgspec.json.encode({"model": "gpt", "stream": True, "messages": [{"role": "user", "content": "hello"}]})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-from-the-usual-variable")


def target(server: OpenAIServer, options: str = "") -> str:
    """With the provider's key where it usually is."""
    return f"gpt=litellm://openai/m?api_base=http://127.0.0.1:{server.port}/v1{options}"


@asynccontextmanager
async def client(running: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as sdk:
        yield sdk


async def test_a_client_gets_what_it_asks_for() -> None:
    async with openai_server() as server, gateway(upstreams=target(server)) as running, client(running) as sdk:
        answer = await sdk.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hello"}])
        stream = await sdk.chat.completions.create(
            model="gpt",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [part async for part in stream]
        text = await sdk.completions.create(model="gpt", prompt="hello")
        vectors = await sdk.embeddings.create(model="gpt", input=["hello"])
        await running.idle()
        seen = [request.headers["authorization"] for request in server.seen]
    said = "".join(part.choices[0].delta.content or "" for part in chunks if part.choices)
    assert said == answer.choices[0].message.content
    assert chunks[-1].usage == answer.usage
    assert text.choices[0].text
    assert len(vectors.data[0].embedding) == 64
    assert set(seen) == {"Bearer key-from-the-usual-variable"}
    plain, streamed, *_ = running.records.finished_records
    assert plain.usage is not None
    assert plain.usage == streamed.usage
    assert {record.upstream for record in running.records.finished_records} == {"gpt"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (MockSpec(status=429), 429, "rate_limit_exceeded"),
        (MockSpec(status=401), 502, "upstream_auth_error"),
        (MockSpec(status=404), 502, "upstream_model_not_found"),
        (MockSpec(status=500), 502, "upstream_error"),
        (MockSpec(delay_s=10), 504, "upstream_timeout"),
    ],
)
async def test_faults_are_those_of_any_upstream(behaviour: MockSpec, status: int, code: str, stream: bool) -> None:
    asked = STREAM if stream else CHAT
    async with openai_server(behaviour) as server:
        upstreams = target(server, "&timeout_seconds=0.5" if behaviour.delay_s else "")
        async with gateway(upstreams=upstreams) as running:
            answer = await chat(running.port, body=asked)
            await server.model.reach(0)
            await running.idle()
        assert (answer.status, running.records.last.error_code) == (status, code)
        async with gateway({"FALLBACKS": "gpt=mock"}, upstreams=f"{upstreams};mock=mock://local") as running:
            answer = await chat(running.port, body=asked)
        assert (answer.status, answer.headers["x-nexus-upstream"]) == (200, "mock")


async def test_it_stands_in_for_others() -> None:
    async with openai_server(MockSpec(status=503)) as broken, openai_server() as server:
        upstreams = f"llama=http://127.0.0.1:{broken.port};{target(server)}"
        async with gateway({"FALLBACKS": "llama=gpt"}, upstreams=upstreams) as running:
            answer = await chat(running.port, body=CHAT.replace(b'"gpt"', b'"llama"'))
        assert (answer.status, answer.headers["x-nexus-upstream"]) == (200, "gpt")
        assert msgspec.json.decode(server.seen[0].body)["model"] == "m"


async def test_without_a_model_of_its_own_it_passes_on_the_callers() -> None:
    async with openai_server() as server:
        settings = {"DEFAULT_UPSTREAM": "any"}
        upstreams = f"any=litellm://?api_base=http://127.0.0.1:{server.port}/v1;mock=mock://local"
        async with gateway(settings, upstreams=upstreams) as running:
            for model, status in ((b"openai/own", 200), (b"nobody-knows-this", 404)):
                answer = await chat(running.port, body=CHAT.replace(b'"gpt"', b'"%b"' % model))
                assert answer.status == status
        (seen,) = server.seen
    assert msgspec.json.decode(seen.body)["model"] == "own"


async def test_it_is_left_alone_when_it_keeps_failing() -> None:
    async with openai_server(MockSpec(status=500)) as server:
        async with gateway({"CIRCUIT_BREAKER_MAX_FAILURES": "3"}, upstreams=target(server)) as running:
            answers = [await chat(running.port, body=CHAT) for _ in range(6)]
        asked = len(server.seen)
    assert answers[-1].status == 503
    assert answers[-1].json()["error"]["code"] == "circuit_open"
    assert asked < 6


@pytest.mark.parametrize("members", [{"messages": [5]}, {"messages": [{"role": "user", "content": 7}]}])
async def test_callers_cannot_have_it_left_alone(members: dict[str, object]) -> None:
    """A request that the library stumbles over is the caller's fault."""
    asked = msgspec.json.encode({"model": "claude", **members})
    upstreams = "claude=litellm://anthropic/claude-sonnet-4-5?mock_response=hi"
    async with gateway({"CIRCUIT_BREAKER_MAX_FAILURES": "1"}, upstreams=upstreams) as running:
        for _ in range(3):
            answer = await chat(running.port, body=asked)
            assert answer.status in (200, 400)
        answer = await chat(running.port, body=CHAT.replace(b'"gpt"', b'"claude"'))
    assert answer.status == 200


async def test_a_stream_that_breaks_ends_with_an_error_event() -> None:
    async with openai_server(MockSpec(fail_after=2)) as server, gateway(upstreams=target(server)) as running:
        answer = await chat(running.port, body=STREAM)
    assert answer.status == 200
    assert "error" in answer.events()[-1]
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("behaviour", [MockSpec(delay_s=10), MockSpec(chunk_delay_s=10)])
async def test_a_caller_who_leaves_is_noticed_by_the_provider(behaviour: MockSpec) -> None:
    async with (
        openai_server(behaviour) as server,
        gateway(upstreams=target(server)) as running,
        Caller(running.port) as caller,
    ):
        await caller.ask(body=STREAM)
        await server.model.reach(1)
        caller.leave()
        await server.model.reach(0)


async def test_identifiers_are_hidden_from_it_and_restored() -> None:
    text = b"write to kim@example.com"
    settings = {"PII_MASKING_ENABLED": "on", "PII_HASH_SALT": "a salt of some length"}
    async with openai_server() as server, gateway(settings, upstreams=target(server)) as running:
        for asked in (CHAT, STREAM):
            answer = await chat(running.port, body=asked.replace(b"hello", text))
            said = answer.events() if asked is STREAM else [answer.json()]
            words = [choice.get("delta", choice.get("message")) for part in said for choice in part["choices"]]
            assert "kim@example.com" in "".join(word.get("content") or "" for word in words)
        assert not any(b"kim@example.com" in request.body for request in server.seen)


async def test_it_is_counted_like_the_others() -> None:
    async with openai_server() as server, gateway(upstreams=target(server)) as running:
        await chat(running.port, body=CHAT)
        await running.idle()
        async with httpx.AsyncClient() as sdk:
            told = (await sdk.get(f"{running.url}/metrics")).text
    lines = [line for line in told.splitlines() if 'upstream="gpt"' in line]
    assert any(line.startswith("nexus_upstream_attempts_total") and line.endswith(" 1.0") for line in lines), lines


async def test_the_seeds_own_lines() -> None:
    """`gpt-4o-mini=litellm://gpt-4o-mini`, and a fallback to it; here nobody is asked for real."""
    upstreams = "llama=http://127.0.0.1:9;gpt-4o-mini=litellm://gpt-4o-mini?mock_response=Hello"
    async with gateway({"FALLBACKS": "llama=gpt-4o-mini"}, upstreams=upstreams) as running:
        for asked in (CHAT, STREAM):
            for model in (b"llama", b"gpt-4o-mini"):
                answer = await chat(running.port, body=asked.replace(b'"gpt"', b'"%b"' % model))
                assert (answer.status, answer.headers["x-nexus-upstream"]) == (200, "gpt-4o-mini")
                assert b"Hel" in answer.body  # a stream says it in two pieces
