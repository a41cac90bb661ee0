"""Tokens and concurrency through a whole gateway: reserved before, settled after, on every way out."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.gateway import Running, gateway
from tests.support.http_client import Caller, Received, chat
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, Script, answering, chunk, plain
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

FAST = {
    "REQUEST_TIMEOUT_SECONDS": "0.2",
    "STREAM_IDLE_TIMEOUT_SECONDS": "0.2",
    "DEADLINE_SECONDS": "0.2",
    "CIRCUIT_BREAKER_MAX_FAILURES": "1000",
}
LIMIT = 100_000
"""Of tokens per minute."""

MESSAGES = [{"role": "user", "content": "x" * 298}]
RESERVED_OUTPUT = 500


def policy(**fields: Any) -> dict[str, str]:
    from tests.support.gateway import KEY

    return {"API_KEY_POLICIES": json.dumps({KEY: fields})}


def body(stream: bool = False, **fields: Any) -> bytes:
    asked = {"model": "m", "messages": MESSAGES, "max_tokens": RESERVED_OUTPUT, "stream": stream, **fields}
    return json.dumps(asked, separators=(",", ":")).encode()


async def left(running: Running) -> int:
    """Tokens that are left of the limit, seen by a request that is refused for want of them and so consumes nothing."""
    probe = await chat(running.port, body=body(max_tokens=10 * LIMIT))
    assert probe.status == 429
    assert probe.headers["x-should-retry"] == "false"
    return int(probe.headers["x-ratelimit-remaining-tokens"])


def event(finish: str | None = None, **more: Any) -> bytes:
    document = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": finish}], **more}
    return chunk(b"data: %b\n\n" % json.dumps(document).encode())


USAGE = {"prompt_tokens": 70, "completion_tokens": 30}
ANSWER = plain(json.dumps({"choices": [{"index": 0, "finish_reason": "stop"}], "usage": USAGE}).encode())
WITHOUT_USAGE = plain(b'{"choices":[{"index":0,"finish_reason":"stop"}]}')


def then(*pieces: bytes, hang: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.receive()
        for piece in pieces:
            await peer.send(piece)
        if hang:
            await peer.closed.wait()

    return script


EXACTLY = 100
PROMPT = range(90, 140)  # as it is estimated: what stands around the text counts too
DONE = chunk(b"data: [DONE]\n\n") + LAST_CHUNK
ENDINGS: dict[str, tuple[Script, Callable[[int], bool]]] = {
    "answered": (answering(ANSWER), lambda used: used == EXACTLY),
    "refused by the upstream": (answering(plain(b"{}", status=400)), lambda used: used == 0),
    "failed": (answering(plain(b"{}", status=500)), lambda used: used == 0),
    "rate limited": (answering(plain(b"{}", status=429)), lambda used: used == 0),
    "timed out": (then(hang=True), lambda used: used == 0),
    "cut": (then(b"HTTP/1.1 200 OK\r\n"), lambda used: used == 0),
    "not json": (answering(plain(b"<html>")), lambda used: used == 0),
    "without usage": (answering(WITHOUT_USAGE), lambda used: used - 17 in PROMPT),  # 50 bytes were sent
    "another key wanted": (answering(plain(b"{}", status=401)), lambda used: used == 0),
    "redirected": (answering(plain(b"{}", status=302)), lambda used: used == 0),
    "compressed": (answering(plain(b"\x1f\x8b", b"content-encoding: gzip")), lambda used: used == 0),
    "an error in a 200": (answering(plain(b'{"error":{"message":"x","code":500}}')), lambda used: used == 0),
    "two lengths": (answering(plain(b"{}", b"content-length: 3")), lambda used: used == 0),
}
STREAM_ENDINGS: dict[str, tuple[Script, Callable[[int], bool]]] = {
    "whole, with usage": (
        then(STREAM_HEAD, event(), event("stop", usage=USAGE), DONE),
        lambda used: used == EXACTLY,
    ),
    "whole, without usage": (then(STREAM_HEAD, event(), event("stop"), DONE), lambda used: used - 2 in PROMPT),
    "cut after two events": (then(STREAM_HEAD, event(), event()), lambda used: used - 2 in PROMPT),
    "stalled after an event": (then(STREAM_HEAD, event(), hang=True), lambda used: used - 1 in PROMPT),
    "error event": (
        then(STREAM_HEAD, event(), chunk(b'data: {"error":{"message":"x"}}\n\n'), hang=True),
        lambda used: used - 1 in PROMPT,
    ),
    "cut before the first event": (then(STREAM_HEAD), lambda used: used == 0),
    "failed": (answering(plain(b"{}", status=500)), lambda used: used == 0),
    "refused by the upstream": (answering(plain(b"{}", status=400)), lambda used: used == 0),
    "rate limited": (answering(plain(b"{}", status=429)), lambda used: used == 0),
    "nothing in time": (then(STREAM_HEAD, hang=True), lambda used: used == 0),
    "no event stream": (answering(plain(b"{}")), lambda used: used == 0),
    "a broken event": (
        then(STREAM_HEAD, event(), chunk(b"data: {nope\n\n"), hang=True),
        lambda used: used - 1 in PROMPT,
    ),
    "an error event first": (
        then(STREAM_HEAD, chunk(b'data: {"error":{"message":"x","code":500}}\n\n')),
        lambda used: used == 0,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_plain_request_costs_what_it_used(ending: str) -> None:
    script, costs = ENDINGS[ending]
    async with (
        RawServer(script) as upstream,
        gateway({**FAST, **policy(tokens_per_minute=LIMIT)}, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        await chat(running.port, body=body())
        assert costs(LIMIT - await left(running)), LIMIT - await left(running)


@pytest.mark.parametrize("ending", STREAM_ENDINGS)
async def test_a_stream_costs_what_it_used(ending: str) -> None:
    script, costs = STREAM_ENDINGS[ending]
    async with (
        RawServer(script) as upstream,
        gateway({**FAST, **policy(tokens_per_minute=LIMIT)}, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        await chat(running.port, body=body(stream=True))
        assert costs(LIMIT - await left(running)), LIMIT - await left(running)
        told = "with usage" in ending or not running.records.finished_records[0].events
        assert running.records.finished_records[0].is_usage_estimated is not told


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("events", [0, 2])
async def test_dropping_the_line_makes_nothing_free(stream: bool, events: int) -> None:
    pieces = [STREAM_HEAD, *[event()] * events] if events and stream else []
    settings = {**policy(tokens_per_minute=LIMIT), "REQUEST_TIMEOUT_SECONDS": "20"}
    async with (
        RawServer(then(*pieces, hang=True)) as upstream,
        gateway(settings, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        async with Caller(running.port) as caller:
            await caller.ask(body=body(stream))
            peer = await upstream.peer(0)
            await peer.received.wait()
            if pieces:
                for _ in range(events):
                    await caller.read_until(b"data: ")
            else:
                assert LIMIT - await left(running) >= RESERVED_OUTPUT, "reserved while it is under way"
        await running.idle()
        assert LIMIT - await left(running) - (events if pieces else 0) in PROMPT
        (gone,) = [record for record in running.records.finished_records if record.client_gone]
        assert gone.is_usage_estimated


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_shutdown_settles_what_it_cuts_before_the_process_is_gone(stream: bool) -> None:
    """As another process sees it, long before any lease ends."""
    settings = {**policy(tokens_per_minute=LIMIT, max_concurrency=2), "REQUEST_TIMEOUT_SECONDS": "20"}
    pieces = [STREAM_HEAD, event(), event()] if stream else []
    with ValkeyServer() as server:
        settings["REDIS_URL"] = server.url
        async with RawServer(then(*pieces, hang=True)) as upstream:
            m = f"m=http://127.0.0.1:{upstream.port}"
            async with gateway(settings, m) as other:
                async with (
                    gateway({**settings, "DRAIN_SECONDS": "0.05"}, m) as running,
                    Caller(running.port) as caller,
                ):
                    await caller.ask(body=body(stream))
                    await (await upstream.peer(0)).received.wait()
                    for _ in pieces[1:]:
                        await caller.read_until(b"data: ")
                    assert LIMIT - await left(other) >= RESERVED_OUTPUT, "reserved while it is under way"
                    holds = f"nexus:{{{other.records.last.key_id}}}:holds"
                    assert server.call("ZCARD", holds) == 1
                    running.server.stop()
                    assert b"shutting_down" in await caller.read_to_end()
                assert LIMIT - await left(other) - len(pieces[1:]) in PROMPT
                assert running.records.last.is_usage_estimated
                assert server.call("ZCARD", holds) == 0


async def test_tokens_that_are_not_there_are_refused_with_the_true_wait_and_nothing_is_consumed() -> None:
    settings = policy(tokens_per_minute=1000)
    async with gateway(settings, "m=mock://local?tokens=400") as running:
        assert (await chat(running.port, body=body())).status == 200
        refused = await chat(running.port, body=body(max_tokens=800))
        error = refused.json()["error"]
        assert (refused.status, error["type"], error["code"]) == (429, "tokens", "rate_limit_exceeded")
        assert 55 <= int(refused.headers["retry-after"]) <= 61
        assert (await chat(running.port, body=body(max_tokens=300))).status == 200


async def test_what_can_never_fit_says_so_with_both_numbers() -> None:
    async with gateway(policy(tokens_per_minute=1000), "m=mock://local") as running:
        refused = await chat(running.port, body=body(max_tokens=5000))
        assert refused.status == 429
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert all(number in refused.json()["error"]["message"] for number in ("1000", "5000"))


async def test_concurrency_is_bounded_and_given_back() -> None:
    async with gateway(policy(max_concurrency=2), "m=mock://local?delay_ms=100") as running:
        answers = await asyncio.gather(*(chat(running.port) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429]
        assert (await chat(running.port)).status == 200


async def test_no_race_lets_anybody_have_more() -> None:
    """Fifty at once ask for more than there is, and nothing is settled before all are decided: as many are admitted as
    there is room for, neither one more nor one less."""
    limit, callers = 5000, 50
    decided = asyncio.Semaphore(0)
    everybody = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        decided.release()
        await everybody.wait()
        await peer.send(ANSWER)

    async def ask(port: int) -> Received:
        answer = await chat(port, body=body())
        if answer.status == 429:
            decided.release()
        return answer

    async with (
        RawServer(script) as upstream,
        gateway(policy(tokens_per_minute=limit), f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        asking = [asyncio.create_task(ask(running.port)) for _ in range(callers)]
        for _ in range(callers):
            await decided.acquire()
        everybody.set()
        answers = await asyncio.gather(*asking)
        left_then = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
        cost = limit - max(left_then)
        room = limit // cost
        assert cost - RESERVED_OUTPUT in PROMPT
        assert Counter([answer.status for answer in answers]) == {200: room, 429: callers - room}
        assert min(left_then) == limit - room * cost, "nobody was refused who had room"
        assert limit - await left(running) == room * EXACTLY


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_after_a_fallback_only_what_the_stand_in_used_is_charged(stream: bool) -> None:
    answers = then(STREAM_HEAD, event(), event("stop", usage=USAGE), DONE) if stream else answering(ANSWER)
    async with (
        RawServer(answering(plain(b"{}", status=500))) as bad,
        RawServer(answers) as good,
        gateway(
            {**FAST, **policy(tokens_per_minute=LIMIT), "FALLBACKS": "m=good"},
            f"m=http://127.0.0.1:{bad.port};good=http://127.0.0.1:{good.port}",
        ) as running,
    ):
        assert (await chat(running.port, body=body(stream))).status == 200
        assert LIMIT - await left(running) == EXACTLY


async def test_a_clamped_caller_gets_what_is_left_instead_of_a_refusal() -> None:
    settings = policy(tokens_per_minute=1000, clamp=True)
    async with (
        RawServer(answering(ANSWER)) as upstream,
        gateway(settings, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        assert (await chat(running.port, body=body(max_tokens=5000))).status == 200
        asked = json.loads(upstream.peers[0].requests[0].body)["max_tokens"]
        assert 1000 - max(PROMPT) <= asked <= 1000 - min(PROMPT)
