"""One gateway in front of each kind of upstream: to callers, operators and accounts they are all alike."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from nexus_gateway.config.runtime import MockSpec
from tests.support.gateway import Running, gateway
from tests.support.grpc_worker import grpc_worker
from tests.support.http_client import Caller, Received, chat
from tests.support.metrics import scrape
from tests.support.openai_server import openai_server
from tests.upstreams.kinds import Model, Unwatched, authority

pytestmark = pytest.mark.anyio

KINDS: Final = ("mock", "http", "https", "grpc")
MAIL: Final = "kim.chulsoo@example.co.kr"
STALLING: Final = MockSpec(chunk_delay_s=10.0)


@dataclass(frozen=True, slots=True)
class Far:
    """What is configured as `m`. `bodies`: as they came there; None for what is in the gateway itself."""

    url: str
    model: Model
    bodies: Callable[[], Sequence[bytes]] | None


@asynccontextmanager
async def far(kind: str, behaviour: MockSpec) -> AsyncIterator[Far]:
    if kind == "mock":
        options = f"status={behaviour.status}&chunk_delay_ms={behaviour.chunk_delay_s * 1000}"
        broken = "" if behaviour.fail_after is None else f"&fail_after={behaviour.fail_after}"
        yield Far(f"mock://local?{options}{broken}", Unwatched(), None)
    elif kind == "grpc":
        async with grpc_worker(behaviour) as worker:
            yield Far(f"grpc://127.0.0.1:{worker.port}", worker.model, lambda: [c.message.body for c in worker.called])
    else:
        known, tls = authority()
        with known.cert_pem.tempfile() as ca_file:
            async with openai_server(behaviour, tls=tls if kind == "https" else None) as server:
                trust = f"?ca_file={ca_file}" if kind == "https" else ""
                url = f"{kind}://127.0.0.1:{server.port}{trust}"
                yield Far(url, server.model, lambda: [seen.body for seen in server.seen])


@asynccontextmanager
async def in_front_of(
    kind: str, behaviour: MockSpec | None = None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Running, Far]]:
    async with (
        far(kind, behaviour or MockSpec()) as there,
        gateway(settings, f"m={there.url};spare=mock://local") as running,
    ):
        yield running, there


async def ask(running: Running, *, stream: bool = False, content: str = "hi", **members: Any) -> Received:
    messages = [{"role": "user", "content": content}]
    body = {"model": "m", "stream": stream, "messages": messages, **members}
    return await chat(running.port, body=json.dumps(body).encode())


def said(answer: Received) -> str:
    if answer.headers["content-type"] == "application/json":
        return str(answer.json()["choices"][0]["message"]["content"])
    choices = [choice for event in answer.events() for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_answers_streams_and_their_accounts_are_the_same() -> None:
    """Word for word: the model behind all of them is the same."""
    told = []
    for kind in KINDS:
        async with in_front_of(kind) as (running, _):
            plain = await ask(running, seed=7)
            stream = await ask(running, stream=True, stream_options={"include_usage": True})
            await running.idle()
            counted = [(record.usage, record.status, record.error_code) for record in running.records.finished_records]
            told.append((plain.body, stream.body, counted))
    assert all(each == told[0] for each in told)


@pytest.mark.parametrize("kind", KINDS)
async def test_failures_open_its_breaker_and_somebody_stands_in(kind: str) -> None:
    failing = MockSpec(status=500)
    async with in_front_of(kind, failing, {"CIRCUIT_BREAKER_MAX_FAILURES": "3"}) as (running, _):
        answers = [await ask(running) for _ in range(2)]  # the first of them was tried three times
        assert [answer.status for answer in answers] == [502, 503]
        assert answers[-1].json()["error"]["code"] == "circuit_open"
        metrics = await scrape(running.port)
        assert metrics.total("nexus_upstream_attempts_total", upstream="m", outcome="unavailable") == 3
        assert metrics.total("nexus_breaker_state", upstream="m", state="open") == 1
    async with in_front_of(kind, failing, {"FALLBACKS": "m=spare"}) as (running, _):
        for stream in (False, True):
            answer = await ask(running, stream=stream)
            assert (answer.status, answer.headers["x-nexus-upstream"]) == (200, "spare")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_breaks_is_told_and_counted(kind: str) -> None:
    async with in_front_of(kind, MockSpec(fail_after=2), {"FALLBACKS": "m=spare"}) as (running, _):
        answer = await ask(running, stream=True)
        assert answer.status == 200
        assert answer.events()[-1]["error"]["code"] == "upstream_truncated"
        assert b"[DONE]" not in answer.body
        metrics = await scrape(running.port)
        assert metrics.total("nexus_upstream_attempts_total", upstream="m", outcome="truncated") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_identifiers_are_hidden_from_it_and_restored_for_the_caller(kind: str) -> None:
    on = {"PII_MASKING_ENABLED": "on", "PII_HASH_SALT": "a-salt-of-some-length-for-tests"}
    async with in_front_of(kind, settings=on) as (running, there):
        for stream in (False, True):
            assert MAIL in said(await ask(running, stream=stream, content=f"Write to {MAIL} today."))
        if there.bodies is not None:
            assert len(there.bodies()) == 2
            assert not any(MAIL.encode() in body for body in there.bodies())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_who_leaves_ends_it_and_gives_its_place_back(kind: str) -> None:
    async with in_front_of(kind, STALLING) as (running, there):
        async with Caller(running.port) as caller:
            await caller.ask(stream=True)
            await caller.read_until(b"data: ")
            assert (await scrape(running.port)).total("nexus_upstream_in_flight", upstream="m") == 1
        await there.model.reach(0)
        await running.idle()
        assert running.records.last.client_gone
        metrics = await scrape(running.port)
        assert metrics.total("nexus_upstream_in_flight", upstream="m") == 0
        assert metrics.total("nexus_upstream_attempts_total", upstream="m", outcome="cancelled") == 1
