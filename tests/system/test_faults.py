"""What an upstream or a client may do wrong, and what the other side of the gateway sees of it.

Questions hold identifiers (`tests.support.canaries`), which no upstream, log, audit or metric may get to see.
"""

import asyncio
import json
from typing import Any

import pytest

from tests.support.canaries import Caller, RawServer, chat, gateway
from tests.support.gateway import KEY
from tests.support.http_client import CHAT
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, Script, answering, chunk, plain

pytestmark = pytest.mark.anyio

FAST = {
    "REQUEST_TIMEOUT_SECONDS": "0.2",
    "CONNECT_TIMEOUT_SECONDS": "0.2",
    "STREAM_IDLE_TIMEOUT_SECONDS": "0.2",
    "WRITE_TIMEOUT_SECONDS": "0.3",
}
OK_ANSWER = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":2}}'
)


def event(finish: str | None = None, content: str = "hi", **more: Any) -> bytes:
    choices = [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]
    return b"data: %b\n\n" % json.dumps({"id": "x", "choices": choices, **more}).encode()


DONE = b"data: [DONE]\n\n"
NOTHING_TO_HIDE = json.dumps({**CHAT, "stream": True}).encode()


def once(*pieces: bytes, reset: bool = False, hang: bool = False) -> Script:
    """Reads a request, sends the pieces, then closes, resets, or stays."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        for piece in pieces:
            await peer.send(piece)
        if reset:
            peer.reset()
        elif hang:
            await peer.closed.wait()

    return script


def html(status: int = 200) -> bytes:
    body = b"<html>secret</html>"
    return b"HTTP/1.1 %d X\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


BEFORE_THE_FIRST_BYTE = {
    "never answers": (once(hang=True), 504, "upstream_timeout"),
    "head trickles": (once(b"HTTP/1.1 200 OK\r\ncontent-", hang=True), 504, "upstream_timeout"),
    "reset before the head": (once(reset=True), 502, "upstream_connect_error"),
    "closed inside the head": (once(b"HTTP/1.1 200 O"), 502, None),
    "cut inside the body": (once(plain(OK_ANSWER)[:-9]), 502, None),
    "reset inside the body": (once(plain(OK_ANSWER)[:-9], reset=True), 502, None),
    "not json": (answering(plain(b"{nope")), 502, "upstream_invalid_response"),
    "html": (answering(html()), 502, "upstream_invalid_response"),
    "html 500": (answering(html(500)), 502, "upstream_error"),
    "408": (answering(plain(b"{}", status=408)), 502, "upstream_error"),
    "redirect": (answering(plain(b"{}", b"location: /x", status=302)), 502, "upstream_invalid_response"),
    "401": (answering(plain(b'{"error":{"message":"key sk-123"}}', status=401)), 502, "upstream_auth_error"),
    "two lengths": (answering(plain(OK_ANSWER, b"content-length: 3")), 502, "upstream_invalid_response"),
    "gzip": (answering(plain(b"\x1f\x8b", b"content-encoding: gzip")), 502, "upstream_invalid_response"),
    "429": (answering(plain(b"{}", b"retry-after: 7", status=429)), 429, "rate_limit_exceeded"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_BYTE)
async def test_before_the_first_byte_a_fault_is_a_real_status(fault: str, stream: bool) -> None:
    script, status, code = BEFORE_THE_FIRST_BYTE[fault]
    async with RawServer(script) as upstream, gateway(FAST, f"m=http://127.0.0.1:{upstream.port}") as running:
        answer = await chat(running.port, stream=stream)
        assert answer.status == status
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert code in (None, error["code"])
        assert "secret" not in answer.body.decode()
        assert "sk-123" not in answer.body.decode()
        assert running.records.last.error_code == error["code"]
        if status == 429:
            assert answer.headers["retry-after"] == "7"
        else:
            assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("host", "code"), [("127.0.0.1:9", "upstream_connect_error"), ("no-such-host.invalid", "upstream_dns_error")]
)
async def test_an_upstream_that_cannot_be_reached_is_told_and_holds_nobody_up(host: str, code: str) -> None:
    async with gateway(FAST, f"m=http://{host};good=mock://local") as running:
        asking = [asyncio.create_task(chat(running.port)) for _ in range(5)]
        while not all(task.done() for task in asking):
            assert (await chat(running.port, body=json.dumps({**CHAT, "model": "good"}).encode())).status == 200
        answers = [(task.result().status, task.result().json()["error"]["code"]) for task in asking]
        assert set(answers) <= {(502, code), (503, "circuit_open")}
        assert (502, code) in answers


async def test_no_chain_of_attempts_goes_past_the_deadline() -> None:
    settings = {**FAST, "DEADLINE_SECONDS": "0.3", "FALLBACKS": "m=b,c,d"}
    async with RawServer(once(hang=True)) as silent:
        names = ";".join(f"{name}=http://127.0.0.1:{silent.port}" for name in "mbcd")
        async with gateway(settings, names) as running:
            began_s = asyncio.get_running_loop().time()
            answer = await chat(running.port)
            assert 0.3 <= asyncio.get_running_loop().time() - began_s < 0.3 + 0.5
            assert (answer.status, answer.json()["error"]["code"]) == (504, "upstream_timeout")
            assert "left of GATEWAY_DEADLINE_SECONDS" in answer.json()["error"]["message"]
            assert [attempt.upstream for attempt in running.records.last.attempts] == ["m", "b"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_case_of_a_media_type_means_nothing(stream: bool) -> None:
    whole = plain(OK_ANSWER).replace(b"application/json", b"Application/JSON")
    events = STREAM_HEAD.replace(b"text/event-stream", b"Text/Event-Stream") + chunk(event("stop") + DONE) + LAST_CHUNK
    async with (
        RawServer(answering(events if stream else whole)) as upstream,
        gateway(FAST, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        answer = await chat(running.port, stream=stream)
        assert answer.status == 200
        assert answer.body.endswith(DONE) is stream


STREAM_FAULTS = {
    "ends at once": ([], 502),
    "only comments": ([b": hello\n\n"], 502),
    "error event first": ([b'data: {"error":{"message":"no","code":500}}\n\n'], 502),
    "the caller's error first": ([b'data: {"error":{"message":"too long","code":400}}\n\n'], 400),
    "bad json first": ([b"data: {nope\n\n"], 502),
    "[DONE] first": ([DONE], 502),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_a_stream_without_a_first_event_is_a_real_status(fault: str) -> None:
    pieces, status = STREAM_FAULTS[fault]
    script = once(STREAM_HEAD, *map(chunk, pieces), LAST_CHUNK)
    async with RawServer(script) as upstream, gateway(FAST, f"m=http://127.0.0.1:{upstream.port}") as running:
        answer = await chat(running.port, stream=True)
        assert answer.status == status
        if status == 400:
            assert answer.json()["error"]["message"] == "too long"


AFTER_THE_FIRST_BYTE = {
    "reset": once(STREAM_HEAD, chunk(event()), reset=True),
    "clean end without finish_reason": once(STREAM_HEAD, chunk(event()), LAST_CHUNK),
    "[DONE] without finish_reason": once(STREAM_HEAD, chunk(event() + DONE), LAST_CHUNK),
    "cut chunk": once(STREAM_HEAD, chunk(event()), b"50\r\ndata: {"),
    "bad json event": once(STREAM_HEAD, chunk(event() + b"data: {nope\n\n"), hang=True),
    "error event": once(STREAM_HEAD, chunk(event() + b'data: {"error":"boom"}\n\n'), hang=True),
    "silence": once(STREAM_HEAD, chunk(event()), hang=True),
    "half an event, then silence": once(STREAM_HEAD, chunk(event() + b'data: {"id'), hang=True),
}


@pytest.mark.parametrize("fault", AFTER_THE_FIRST_BYTE)
async def test_after_the_first_byte_a_fault_is_the_last_event_and_no_done(fault: str) -> None:
    script = AFTER_THE_FIRST_BYTE[fault]
    async with RawServer(script) as upstream, gateway(FAST, f"m=http://127.0.0.1:{upstream.port}") as running:
        answer = await chat(running.port, stream=True)
        assert answer.status == 200
        first, last = answer.events()
        assert first == json.loads(event()[6:])
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert b"[DONE]" not in answer.body
        assert running.records.last.attempts[0].outcome in ("truncated", "timeout", "invalid_response", "unavailable")
        await upstream.all_closed()


async def test_streams_that_break_open_the_breaker() -> None:
    settings = {**FAST, "CIRCUIT_BREAKER_MAX_FAILURES": "2"}
    script = AFTER_THE_FIRST_BYTE["clean end without finish_reason"]
    async with RawServer(script) as upstream, gateway(settings, f"m=http://127.0.0.1:{upstream.port}") as running:
        statuses = [(await chat(running.port, stream=True)).status for _ in range(3)]
        assert statuses == [200, 200, 503]


WHOLE_STREAMS = {
    "as it should be": [event(), event("stop"), DONE],
    "in one piece": [event() + event("stop") + DONE],
    "without [DONE]": [event(), event("stop")],
    "crlf and comments": [b": hi\r\n\r\n", event().replace(b"\n", b"\r\n"), event("stop").replace(b"\n", b"\r\n")],
    "a byte at a time": [bytes([byte]) for byte in event() + event("stop") + DONE],
}


@pytest.mark.parametrize("kind", WHOLE_STREAMS)
async def test_a_whole_stream_ends_with_done_whatever_its_dialect(kind: str) -> None:
    script = once(STREAM_HEAD, *map(chunk, WHOLE_STREAMS[kind]), LAST_CHUNK)
    async with RawServer(script) as upstream, gateway(FAST, f"m=http://127.0.0.1:{upstream.port}") as running:
        answer = await chat(running.port, body=NOTHING_TO_HIDE)
        assert answer.body == event() + event("stop") + DONE
        answer = await chat(running.port, stream=True)
        assert answer.events() == [json.loads(event()[6:]), json.loads(event("stop")[6:])]
        assert answer.body.endswith(DONE)


async def test_usage_and_done_are_waited_for_at_most_a_moment() -> None:
    script = once(STREAM_HEAD, chunk(event() + event("stop")), hang=True)
    settings = {**FAST, "STREAM_IDLE_TIMEOUT_SECONDS": "20"}
    async with RawServer(script) as upstream, gateway(settings, f"m=http://127.0.0.1:{upstream.port}") as running:
        async with asyncio.timeout(3):
            answer = await chat(running.port, body=NOTHING_TO_HIDE)
        assert answer.body == event() + event("stop") + DONE
        assert [attempt.outcome for attempt in running.records.last.attempts] == ["ok"]


@pytest.mark.parametrize("when", ["waiting for a plain answer", "before the first event", "in the middle of a stream"])
async def test_a_caller_who_leaves_is_noticed_upstream_at_once(when: str) -> None:
    pieces = [STREAM_HEAD, chunk(event())] if when == "in the middle of a stream" else []
    settings = {**FAST, "REQUEST_TIMEOUT_SECONDS": "20", "STREAM_IDLE_TIMEOUT_SECONDS": "20"}
    async with (
        RawServer(once(*pieces, hang=True)) as upstream,
        gateway(settings, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        async with Caller(running.port) as caller:
            await caller.ask(stream=when != "waiting for a plain answer")
            peer = await upstream.peer(0)
            await peer.received.wait()
            if pieces:
                await caller.read_until(b"data: ")
        async with asyncio.timeout(0.25):
            await peer.closed.wait()
        await running.idle()
        record = running.records.last
        assert record.client_gone
        assert record.status == (200 if pieces else 499)
        assert [attempt.outcome for attempt in record.attempts] == ["cancelled"]


async def test_a_slow_reader_pauses_the_upstream_and_is_cut_in_the_end() -> None:
    big = chunk(event(content="x" * 60_000))

    async def flood(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD)
        while True:
            await peer.send(big)

    async with RawServer(flood) as upstream, gateway(FAST, f"m=http://127.0.0.1:{upstream.port}") as running:
        async with Caller(running.port, receive_buffer=4096) as caller:
            await caller.ask(stream=True)
            peer = await upstream.peer(0)
            async with asyncio.timeout(5):
                await peer.closed.wait()
        assert peer.accepted_bytes < 32 << 20
        await running.idle()
        assert running.records.last.client_gone


@pytest.mark.parametrize(
    ("body", "content_type", "status", "param"),
    [
        (b"", "application/json", 400, None),
        (b"{", "application/json", 400, None),
        (b"5", "application/json", 400, None),
        (b'{"model":"m","messages":["\xff"]}', "application/json", 400, None),
        (b'{"model":"m","messages":[],"temperature":NaN}', "application/json", 400, None),
        (b'{"model":"m","messages":[]}', "text/plain", 415, None),
        (b'{"model":"m","messages":[]}', "application/jsonlines", 415, None),
        (b'{"model":"m","messages":[],"stream":"yes"}', "application/json", 400, "stream"),
        (b'{"model":"m","messages":[],"n":-1}', "application/json; charset=utf-8", 400, "n"),
        (b'{"model":5,"messages":[]}', "application/json", 400, "model"),
        (b'{"model":"m","messages":{}}', "application/json", 400, "messages"),
        (b'{"model":"m","messages":[],"max_tokens":"5"}', "application/json", 400, "max_tokens"),
        (b'{"model":"m","messages":[],"user":5}', "application/json", 400, "user"),
        (b'{"model":"m","messages":[' + b"[" * 100_000, "application/json", 400, None),
        (b'{"model":"m","messages":[], "model":"other"}', "application/json", 400, "model"),
        (b'{"model":"m","messages":["' + b"x" * 3000 + b'"]}', "application/json", 413, None),
    ],
)
async def test_bad_input_is_told_and_reaches_no_upstream(
    body: bytes, content_type: str, status: int, param: str | None
) -> None:
    limit = {"MAX_BODY_BYTES": "2000000"} if len(body) > 10_000 else {"MAX_BODY_BYTES": "3000"}
    async with (
        RawServer(answering(plain(OK_ANSWER))) as upstream,
        gateway({**limit, "RATE_LIMIT_PER_MINUTE": "1"}, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        answer = await chat(running.port, body=body, headers={"content-type": content_type})
        assert (answer.status, answer.json()["error"]["param"]) == (status, param)
        assert not upstream.peers
        assert (await chat(running.port)).status == 200, "nothing was consumed"


@pytest.mark.parametrize(
    ("framing", "sent", "status"),
    [
        ("content-length: 1073741824", b"{", 413),  # from its head alone
        ("transfer-encoding: chunked", chunk(b"x" * 2000) * 3, 413),  # it does not end
        ("content-length: 9", b'{"model":"m","messages":[]}', 400),  # it lied: the rest is no request
    ],
)
async def test_a_body_over_the_limit_is_refused_however_it_is_framed(framing: str, sent: bytes, status: int) -> None:
    async with gateway({"MAX_BODY_BYTES": "3000"}, "m=mock://local") as running, Caller(running.port) as caller:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nx-api-key: {KEY}\r\n"
        await caller.send(f"{head}content-type: application/json\r\n{framing}\r\n\r\n".encode() + sent)
        assert (await caller.receive()).status == status
        await running.idle()
        assert running.records.last.request_bytes <= 3000


async def test_what_travels_upstream_is_listed_and_nothing_else() -> None:
    async with (
        RawServer(answering(plain(OK_ANSWER, b"set-cookie: a=b", b"x-request-id: up-1", b"server: x"))) as upstream,
        gateway({}, f"m=http://127.0.0.1:{upstream.port}?model=real%2Fname&forward_headers=x-tenant") as running,
    ):
        sent = {"cookie": "a=b", "traceparent": "00-1", "x-tenant": "t", "x-other": "o", "x-request-id": "mine"}
        answer = await chat(running.port, headers=sent, body=json.dumps(CHAT).encode())
        (request,) = upstream.peers[0].requests
        always = {"host", "content-type", "accept-encoding", "content-length", "x-request-id", "user-agent"}
        assert set(request.headers) == {*always, "traceparent", "x-tenant"}
        assert request.headers["x-request-id"] == "mine"
        assert KEY not in str(request)
        assert json.loads(request.body) == {"model": "real/name", "messages": [{"role": "user", "content": "hi"}]}
        assert answer.body == OK_ANSWER
        assert answer.headers["x-upstream-request-id"] == "up-1"
        assert not {"set-cookie", "server"} & set(answer.headers)


async def test_an_upstreams_own_concurrency_is_never_exceeded() -> None:
    upstreams = "m=mock://local?delay_ms=150&max_concurrency=2"
    async with gateway({}, upstreams) as running:
        answers = await asyncio.gather(*(chat(running.port) for _ in range(6)))
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200, 200, 503, 503, 503, 503]
        assert (await chat(running.port)).status == 200
        refused = next(answer for answer in answers if answer.status == 503)
        assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("overloaded", "1")
