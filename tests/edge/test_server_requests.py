"""HTTP/1.1 as it is spoken by good clients, and what happens to everything else."""

import asyncio
import contextlib
from itertools import pairwise
from typing import Any

import pytest

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.core.errors import ModelNotFound
from nexus_gateway.edge.framing import MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES, MAX_UNFRAMED_BYTES
from nexus_gateway.edge.protocol import ANSWERED, MAX_AHEAD_BYTES, MAX_DISCARDED_BYTES
from tests.support.http_client import Caller
from tests.support.serving import serving
from tests.support.small_app import Call, SmallApp, echo, hang, hang_unread, refuse_unread
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PATIENT = Timeouts(drain_s=0.2)


def post(body: bytes, *fields: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    head = [b"POST %b HTTP/1.1" % path, b"host: gateway", b"content-length: %d" % len(body), *fields]
    return b"\r\n".join([*head, b"", body])


def get(*fields: bytes, path: bytes = b"/some%20where") -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % path, b"host: gateway", *fields, b"", b""])


# ---- good clients


async def test_one_request_follows_the_other_on_one_connection() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        for body in (b'"a"', b'"b"', b'"' + b"c" * 300_000 + b'"'):
            await caller.send(post(body))
            assert (await caller.receive()).body == body
            await caller.send(get())
            assert (await caller.receive()).json()["path"] == "/some where"
        assert len(served.server.server_state.connections) == 1


@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["byte by byte", "in bits", "in one piece"])
async def test_requests_sent_ahead_are_answered_one_by_one_in_order(size: int) -> None:
    running = 0

    async def alone(call: Call) -> None:
        nonlocal running
        running += 1
        assert running == 1
        body = await call.wire.read_body(1 << 20)
        await asyncio.sleep(0)
        running -= 1
        await call.answer(200, body)

    bodies = [b'"%d"' % number for number in range(40)]
    sent = b"".join(post(body) + get() for body in bodies)
    async with serving(SmallApp(alone), PATIENT) as served, Caller(served.port) as caller:
        for start, end in pairwise([*range(0, len(sent), size), len(sent)]):
            await caller.send(sent[start:end])
        for body in bodies:
            assert (await caller.receive()).body == body
            assert (await caller.receive()).json()["method"] == "GET"


async def test_a_head_that_comes_in_two_parts_around_an_answer_is_whole() -> None:
    sent = post(b"1") + get()
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        for cut in range(len(post(b"1")), len(sent)):
            await caller.send(sent[:cut])
            assert (await caller.receive()).body == b"1"
            await caller.send(sent[cut:])
            assert (await caller.receive()).json()["path"] == "/some where"


async def test_what_is_sent_far_ahead_waits_with_its_sender() -> None:
    app = SmallApp()
    sent = post(b"1") + get(b"x-filler: " + b"f" * 1000) * (MAX_AHEAD_BYTES // 300)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(sent)
        assert (await caller.receive()).body == b"1"
        for _ in range(MAX_AHEAD_BYTES // 300):
            assert (await caller.receive()).status == 200


async def test_nobody_can_send_ahead_without_end() -> None:
    app = SmallApp(hang)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"1"))
        await app.begun.get()
        connection: Any = next(iter(served.server.server_state.connections))
        sending = asyncio.create_task(caller.send(get(b"x-filler: " + b"f" * 1000) * 10_000))
        await until(lambda: connection.flow.read_paused)
        assert not connection.pipeline
        sending.cancel()


async def test_an_idle_connection_holds_nothing_of_its_requests() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        for request in (post(b"1"), get()):
            await caller.send(request)
            await caller.receive()
            connection: Any = next(iter(served.server.server_state.connections))
            assert (connection.cycle, connection.headers) == (ANSWERED, [])


async def test_a_body_in_chunks_arrives_whole() -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked \r\n\r\n"
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(head + b'3;quality="low"\r\n"ab\r\n2\r\nc"\r\n0\r\nchecksum: none\r\n\r\n' + get())
        assert (await caller.receive()).body == b'"abc"'
        assert (await caller.receive()).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_an_old_client_gets_its_answer_up_to_the_end_of_the_connection(stream: bool) -> None:
    async def in_pieces(call: Call) -> None:
        await call.wire.start(200, [])
        await call.wire.write(b"one ")
        await call.wire.finish(b"two")

    app = SmallApp(in_pieces if stream else echo)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(b"POST /v1/completions HTTP/1.0\r\ncontent-length: 7\r\n\r\none two")
        head, body = (await caller.read_to_end()).split(b"\r\n\r\n", 1)
        assert body == b"one two"
        assert head.count(b"connection: close") == 1
        assert b"transfer-encoding" not in head


async def test_the_answer_to_head_has_no_body() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(get(path=b"/a").replace(b"GET", b"HEAD") + get(path=b"/b"))
        assert b"content-length: " in await caller.read_until(b"\r\n\r\n")
        assert (await caller.receive()).json()["path"] == "/b"


async def test_who_waits_for_a_sign_before_the_body_gets_one() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b'"x"', b"expect: 100-continue")[:-3])
        assert await caller.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await caller.send(b'"x"')
        assert (await caller.receive()).body == b'"x"'


async def test_who_is_refused_before_the_body_gets_no_sign() -> None:
    async with serving(SmallApp(refuse_unread), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b'"x"', b"expect: 100-continue")[:-3])
        assert (await caller.receive()).status == 413


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "in one piece"])
async def test_an_offer_to_speak_something_else_is_passed_over(protocol: bytes, size: int) -> None:
    offer = [b"connection: Upgrade, HTTP2-Settings", b"upgrade: " + protocol, b"http2-settings: AAMAAABk"]
    sent = post(b'"a"', *offer) + get(*offer) + post(b'"b"')
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        for start in range(0, len(sent), size):
            await caller.send(sent[start : start + size])
        assert (await caller.receive()).body == b'"a"'
        assert (await caller.receive()).json()["method"] == "GET"
        assert (await caller.receive()).body == b'"b"'


async def test_a_query_does_not_change_the_way() -> None:
    app = SmallApp()
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b'"x"', path=b"/v1/chat/completions?api-version=1"))
        assert (await caller.receive()).body == b'"x"'
        assert not app.usual


async def test_what_follows_the_last_request_of_a_connection_is_not_served() -> None:
    app = SmallApp()
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b'"x"', b"connection: close") + get())
        assert (await caller.receive()).headers["connection"] == "close"
        assert await caller.read_to_end() == b""
        assert not app.usual


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/elsewhere"])
async def test_white_space_around_a_value_is_no_part_of_it(path: bytes) -> None:
    app = SmallApp()
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"1", b"x-note:\t a \t note \t ", b"x-nothing: \t ", path=path))
        assert (await caller.receive()).status == 200
        seen = dict(app.begun.get_nowait().headers if not app.usual else app.usual[0]["headers"])
        assert (seen[b"x-note"], seen[b"x-nothing"]) == (b"a \t note", b"")


@pytest.mark.parametrize("pieces", [[], [b""], [b"one", b"", b"two"], [b"", b"one", b"two", b""]])
@pytest.mark.parametrize("last", [b"", b"three"])
async def test_an_empty_piece_does_not_end_a_stream(pieces: list[bytes], last: bytes) -> None:
    async def in_pieces(call: Call) -> None:
        await call.wire.start(200, [])
        for piece in pieces:
            await call.wire.write(piece)
        await call.wire.finish(last)

    async with serving(SmallApp(in_pieces), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"1") + get())
        assert (await caller.receive()).body == b"".join(pieces) + last
        assert (await caller.receive()).json()["method"] == "GET"


# ---- a body that nobody wants


@pytest.mark.parametrize("way", ["direct", "usual"])
async def test_an_early_answer_reaches_who_still_sends(way: str) -> None:
    path = b"/v1/chat/completions" if way == "direct" else b"/elsewhere"
    app = SmallApp(refuse_unread)
    app.usual_reads_body = False
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"x" * (8 << 20), b"connection: close", path=path))
        answer = await caller.receive()
        assert answer.headers["connection"] == "close"
        assert await caller.read_to_end() == b"", "and no reset"


@pytest.mark.parametrize("way", ["direct", "usual"])
async def test_after_an_early_answer_the_connection_is_good_for_another_request(way: str) -> None:
    path = b"/v1/chat/completions" if way == "direct" else b"/elsewhere"
    app = SmallApp(refuse_unread)
    app.usual_reads_body = False
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"x" * (8 << 20), path=path) + get(path=b"/next"))
        await caller.receive()
        assert (await caller.receive()).json()["path"] == "/next"


async def test_no_more_than_a_bounded_part_of_an_unwanted_body_is_read() -> None:
    piece = b"x" * (1 << 20)
    async with serving(SmallApp(refuse_unread), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 9999999999\r\n\r\n")
        sent_bytes = 0
        with contextlib.suppress(ConnectionError):
            while sent_bytes < 4 * MAX_DISCARDED_BYTES:
                await caller.send(piece)
                sent_bytes += len(piece)
        assert MAX_DISCARDED_BYTES - len(piece) <= sent_bytes <= MAX_DISCARDED_BYTES + (32 << 20)


async def test_a_body_that_is_not_read_yet_stays_with_its_sender() -> None:
    async with serving(SmallApp(hang_unread), PATIENT) as served, Caller(served.port) as caller:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await caller.send(post(b"x" * (64 << 20)))


# ---- everything else

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"

NOT_UNDERSTOOD = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "two equal hosts": b"GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
    "length and chunks": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
    "two equal lengths": HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"content-length: 3, 3\r\n\r\nabc",
    "signed length": HEAD + b"content-length: +3\r\n\r\nabc",
    "negative length": HEAD + b"content-length: -3\r\n\r\n",
    "hexadecimal length": HEAD + b"content-length: 0x3\r\n\r\nabc",
    "absurd length": HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
    "chunked twice": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "compressed chunks": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, but not last": HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "almost chunked": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "tab behind chunked": HEAD + b"transfer-encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "vertical tab before chunked": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks from an old client": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded field": HEAD + b"x: y\r\n transfer-encoding: chunked\r\n\r\n",
    "bare line feed": HEAD + b"x: y\ntransfer-encoding: chunked\r\n\r\n",
    "bare carriage return": HEAD + b"x: y\rtransfer-encoding: chunked\r\n\r\n",
    "NUL in a value": HEAD + b"x: a\x00b\r\n\r\n",
    "NUL in the target": b"GET /a\x00b HTTP/1.1\r\nhost: h\r\n\r\n",
    "target beyond ASCII": "GET /é HTTP/1.1\r\nhost: h\r\n\r\n".encode(),
    "target without a path": b"GET ? HTTP/1.1\r\nhost: h\r\n\r\n",
    "nameless field": HEAD + b": x\r\n\r\n",
    "unknown method": b"FETCH / HTTP/1.1\r\nhost: h\r\n\r\n",
    "a proxy's method": b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n",
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 in the letters of HTTP/1": b"GET / HTTP/2.0\r\nhost: h\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "chunk size that is none": CHUNKED + b"xyz\r\n",
    "chunk ended by a line feed": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "absurd chunk": CHUNKED + b"fffffffffffffffff\r\n",
}


@pytest.mark.parametrize("case", NOT_UNDERSTOOD)
async def test_what_is_not_plainly_http_is_refused_in_the_apis_shape(case: str) -> None:
    app = SmallApp()
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(NOT_UNDERSTOOD[case])
        answer = await caller.receive()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.json()["error"]["code"] == "invalid_request"
        assert await caller.read_to_end() == b""
        assert not app.usual
        while not app.begun.empty():
            assert app.begun.get_nowait().ending == "refused", "its body was never whole"


async def test_requests_before_one_that_is_refused_are_answered() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b'"a"') + post(b'"b"') + NOT_UNDERSTOOD["chunk size that is none"] + post(b'"c"'))
        assert (await caller.receive()).body == b'"a"'
        assert (await caller.receive()).body == b'"b"'
        assert (await caller.receive()).status == 400
        assert await caller.read_to_end() == b""


@pytest.mark.parametrize("between", [b"", get(path=b"/between")], ids=["at once", "behind another"])
@pytest.mark.parametrize("case", ["no host", "TLS", "target without a path", "two lengths"])
async def test_what_is_sent_ahead_of_a_refusal_is_refused_for_its_own_fault(case: str, between: bytes) -> None:
    may_answer = asyncio.Event()

    async def refuse(call: Call) -> None:
        await may_answer.wait()
        raise ModelNotFound("No.")  # the answer is written while this is being handled

    app = SmallApp(refuse)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"1"))
        await app.begun.get()
        connection: Any = next(iter(served.server.server_state.connections))
        await caller.send(between + NOT_UNDERSTOOD[case])
        await until(lambda: connection._ahead)
        may_answer.set()
        assert (await caller.receive()).status == 404
        if between:
            assert (await caller.receive()).json()["path"] == "/between"
        refusal = await caller.receive()
        assert (refusal.status, refusal.json()["error"]["code"]) == (400, "invalid_request")
        assert await caller.read_to_end() == b""


async def test_an_answer_that_has_begun_is_cut_when_its_request_turns_out_bad() -> None:
    async def too_early(call: Call) -> None:
        await call.wire.start(200, [])
        await call.wire.write(b"first")
        await asyncio.Event().wait()

    app = SmallApp(too_early)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(CHUNKED)
        await caller.read_until(b"first\r\n")
        await caller.send(b"xyz\r\n")
        with pytest.raises(ConnectionError):
            await caller.read_to_end()
        assert app.begun.get_nowait().ending == "gone"


FILLER = b"f" * 1000

TOO_LARGE = {
    "target": (b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n", 414),
    "endless target": (b"GET /" + b"a" * (4 << 20), 414),
    "value": (HEAD + b"x: " + b"f" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
    "endless value": (HEAD + b"x: " + b"f" * (4 << 20), 431),
    "endless name": (HEAD + b"f" * (4 << 20), 431),
    "endless fields": (HEAD + b"x: %b\r\n" % FILLER * 4000, 431),
    "too many fields": (HEAD + b"x: y\r\n" * MAX_FIELDS + b"\r\n", 431),
    "a whole head with a body": (HEAD + b"x: %b\r\n" % FILLER * 80 + b"content-length: 3\r\n\r\nabc", 431),
    "endless empty lines": (b"\r\n" * (1 << 20), 431),
    "endless trailer": (CHUNKED + b"1\r\na\r\n0\r\nx: " + b"f" * (4 << 20), 431),
    "endless trailers": (CHUNKED + b"1\r\na\r\n0\r\n" + b"x: %b\r\n" % FILLER * 4000, 431),
    "endless chunk extension": (CHUNKED + b"1;" + b"f" * (4 << 20), 431),
}


@pytest.mark.parametrize("case", TOO_LARGE)
@pytest.mark.parametrize("size", [1400, 1 << 30], ids=["in packets", "at once"])
async def test_what_is_too_large_is_refused_and_the_refusal_can_be_read(case: str, size: int) -> None:
    sent, status = TOO_LARGE[case]
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        for start in range(0, len(sent), size):
            await caller.send(sent[start : start + size])
        answer = await caller.receive()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert await caller.read_to_end() == b""


@pytest.mark.parametrize("case", ["target", "value", "endless fields", "too many fields", "a whole head with a body"])
@pytest.mark.parametrize("before", [get(), post(b"1"), post(b"1" * 60_000)], ids=["usual", "direct", "a long body"])
async def test_what_is_too_large_is_refused_wherever_it_begins(case: str, before: bytes) -> None:
    sent, status = TOO_LARGE[case]
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(before + sent)
        assert (await caller.receive()).status == 200
        assert (await caller.receive()).status == status
        assert await caller.read_to_end() == b""


async def test_long_bodies_in_tiny_chunks_and_large_heads_within_the_limits_are_served() -> None:
    tiny = b"1;note=%b\r\nx\r\n" % FILLER * (MAX_UNFRAMED_BYTES // 200)
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(CHUNKED + tiny + b"0\r\n\r\n")
        assert len((await caller.receive()).body) == MAX_UNFRAMED_BYTES // 200
        await caller.send(post(b'"x"' * 100_000, *[b"x: " + FILLER] * 60))
        assert (await caller.receive()).body == b'"x"' * 100_000


async def test_a_failing_application_is_told_in_the_apis_shape(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SmallApp):
        async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
            if scope["type"] == "lifespan":
                await super().__call__(scope, receive, send)
            raise RuntimeError(scope["path"])

    async with serving(Failing(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(get())
        answer = await caller.receive()
        assert (answer.status, answer.json()["error"]["code"]) == (500, "internal_error")
        await caller.send(get())
        assert (await caller.receive()).status == 500
    assert [record.message for record in caplog.records if record.name.startswith("nexus")] == [
        "application_failed"
    ] * 2


async def test_the_date_is_told_and_the_server_is_not() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        for request, status in ((get(), 200), (post(b"1"), 200), (NOT_UNDERSTOOD["TLS"], 400)):
            await caller.send(request)
            answer = await caller.receive()
            assert answer.status == status
            assert answer.headers["date"].endswith("GMT")
            assert "server" not in answer.headers


@pytest.mark.parametrize(("given", "kept"), [(b"my.id-1", True), (b"a b", False), (b"i" * 129, False), (b"", False)])
async def test_a_refusal_bears_the_callers_name_for_the_request_if_it_is_fit(given: bytes, kept: bool) -> None:
    head = b"GET / HTTP/1.1\r\nx-request-id: " + given
    for fault in (b"\r\nhost: a\r\nhost: b\r\n\r\n", b"\r\nhost: a\r\nx: a\x00b\r\n\r\n"):
        async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
            await caller.send(get(b"x-request-id: earlier") + head + fault)
            assert (await caller.receive()).status == 200
            answer = await caller.receive()
            assert answer.status == 400
            name = answer.headers["x-request-id"]
            assert (name == given.decode()) is kept
            assert kept or name.startswith("req_")


async def test_a_refusal_of_what_has_no_name_yet_bears_a_new_one() -> None:
    async with serving(SmallApp(), PATIENT) as served, Caller(served.port) as caller:
        await caller.send(post(b"1", b"x-request-id: earlier"))
        assert (await caller.receive()).status == 200
        await caller.send(NOT_UNDERSTOOD["TLS"])
        assert (await caller.receive()).headers["x-request-id"].startswith("req_")
