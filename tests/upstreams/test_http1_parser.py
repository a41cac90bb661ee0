"""The strict reading of answers: no way of cutting one changes it, nothing ambiguous passes, nothing grows for ever."""

from collections.abc import Iterable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.upstreams.http1_parser import (
    MAX_HEAD_BYTES,
    MAX_HEAD_FIELDS,
    MAX_INFORMATIONAL,
    UNLIMITED,
    AnswerParser,
)
from tests.support.raw_server import LAST_CHUNK, chunk, plain

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"transfer-encoding: chunked\r\n\r\n"
HELLO: Final = chunk(b"hello")

VALID: Final = {  # wire bytes: status, body, whether the connection can be used again
    plain(b"hello"): (200, b"hello", True),
    plain(b"", status=500): (500, b"", True),
    plain(b"hello", b"connection: close"): (200, b"hello", False),
    plain(b"hello", b"content-encoding: identity"): (200, b"hello", True),
    OK + b"Content-Length:  5 \r\nCONTENT-TYPE: x\r\n\r\nhello": (200, b"hello", True),
    b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello": (200, b"hello", True),
    b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello": (200, b"hello", False),
    b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello": (200, b"hello", True),
    b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n" + HELLO + LAST_CHUNK: (
        200,
        b"hello",
        False,
    ),
    CHUNKED + chunk(b"he") + chunk(b"llo") + LAST_CHUNK: (200, b"hello", True),
    CHUNKED + b"5;name=value\r\nhello\r\n0;last\r\ncontent-type: in/trailer\r\n\r\n": (200, b"hello", True),
    OK + b"Transfer-Encoding: Chunked \r\n\r\n" + HELLO + LAST_CHUNK: (200, b"hello", True),
    b"HTTP/1.1 204 No Content\r\n\r\n": (204, b"", True),
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n": (304, b"", True),
    b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n": (302, b"", True),
    b"HTTP/1.1 100 Continue\r\n\r\n" + plain(b"hello"): (200, b"hello", True),
    b"HTTP/1.1 103 Early Hints\r\ncontent-type: x\r\ntransfer-encoding: chunked\r\n\r\n" * MAX_INFORMATIONAL
    + plain(b"hello"): (200, b"hello", True),
    OK + b"\r\nhello": (200, b"hello", False),
    b"HTTP/1.0 200 OK\r\n\r\nhello": (200, b"hello", False),
}

INVALID: Final = {
    "two lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "the same length twice": OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"content-length: 5, 5\r\n\r\nhello",
    "a signed length": OK + b"content-length: +5\r\n\r\nhello",
    "no digits in the length": OK + b"content-length: \r\n\r\nhello",
    "a length over 64 bits": OK + b"content-length: 99999999999999999999999\r\n\r\n",
    "length and chunked": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + HELLO + LAST_CHUNK,
    "chunked and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n" + HELLO + LAST_CHUNK,
    "chunked twice": OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n" + HELLO + LAST_CHUNK,
    "a coding before chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n" + HELLO + LAST_CHUNK,
    "a coding after chunked": OK + b"transfer-encoding: chunked, gzip\r\n\r\n" + HELLO + LAST_CHUNK,
    "an unknown coding": OK + b"transfer-encoding: xchunked\r\n\r\n" + HELLO + LAST_CHUNK,
    "a chunk size that is no number": CHUNKED + b"zz\r\nhello\r\n",
    "a chunk size with a prefix": CHUNKED + b"0x5\r\nhello\r\n",
    "a chunk size with a sign": CHUNKED + b"-5\r\nhello\r\n",
    "a chunk size with a space": CHUNKED + b"5 \r\nhello\r\n",
    "no chunk size": CHUNKED + b"\r\nhello\r\n",
    "a chunk size over 64 bits": CHUNKED + b"f" * 17 + b"\r\nhello",
    "a chunk longer than it says": CHUNKED + b"4\r\nhello\r\n",
    "a chunk shorter than it says": CHUNKED + b"6\r\nhello\r\n0\r\n\r\n",
    "bare LF after the chunk size": CHUNKED + b"5\nhello\r\n",
    "bare LF after the chunk": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "bare LF after the status": b"HTTP/1.1 200 OK\ncontent-length: 5\r\n\r\nhello",
    "bare LF after a field": OK + b"content-length: 5\nx: y\r\n\r\nhello",
    "bare LF after the head": OK + b"content-length: 5\r\n\nhello",
    "bare CR": OK + b"x: y\rcontent-length: 5\r\n\r\nhello",
    "a folded field": OK + b"x: y\r\n z\r\ncontent-length: 5\r\n\r\nhello",
    "a space before the colon": OK + b"content-length : 5\r\n\r\nhello",
    "a line that is no field": OK + b"content-length\r\n\r\nhello",
    "NUL in a field": OK + b"x: a\0b\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "another protocol": b"RTSP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTML": b"<html><body>hello</body></html>",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "an empty line first": b"\r\n" + plain(b"hello"),
    "a status below 100": b"HTTP/1.1 042 OK\r\ncontent-length: 5\r\n\r\nhello",
    "a status above 599": b"HTTP/1.1 999 OK\r\ncontent-length: 5\r\n\r\nhello",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 5\r\n\r\nhello",
    "gzip": plain(b"hello", b"content-encoding: gzip"),
    "identity, then brotli": plain(b"hello", b"content-encoding: identity", b"content-encoding: br"),
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "a bare 101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "too many interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_INFORMATIONAL + 1),
    "too many fields": OK + b"x: y\r\n" * (MAX_HEAD_FIELDS + 1) + b"\r\n",
    "too many trailers": CHUNKED + b"0\r\n" + b"x: y\r\n" * (MAX_HEAD_FIELDS + 1),
}


def read(segments: Iterable[bytes], limit_bytes: int = UNLIMITED) -> AnswerParser:
    """Feed as a connection does: no further once the answer is complete or refused; the end comes after the last."""
    parser = AnswerParser()
    parser.start(limit_bytes)
    for segment in segments:
        parser.feed(segment)
        if parser.complete or parser.fault is not None:
            return parser
    parser.end()
    return parser


@st.composite
def cut(draw: st.DrawFn, wire: bytes) -> list[bytes]:
    """`wire` in segments, none empty."""
    at = sorted(draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    return [wire[begin:end] for begin, end in zip([0, *at], [*at, len(wire)], strict=True)]


@given(st.data())
def test_an_answer_is_the_same_however_it_is_cut(data: st.DataObject) -> None:
    wire = data.draw(st.sampled_from(sorted(VALID)))
    parser = read(data.draw(cut(wire)))
    assert parser.fault is None
    assert parser.complete
    assert (parser.status, b"".join(parser.chunks), parser.reusable) == VALID[wire]


@given(st.binary(max_size=300), st.lists(st.integers(1, 40)), st.data())
def test_any_body_survives_any_chunks_and_any_cuts(body: bytes, sizes: list[int], data: st.DataObject) -> None:
    wire, rest = CHUNKED, body
    for size in sizes:
        wire += chunk(rest[:size]) if rest[:size] else b""
        rest = rest[size:]
    wire += (chunk(rest) if rest else b"") + LAST_CHUNK
    parser = read(data.draw(cut(wire)))
    assert (parser.complete, parser.reusable, b"".join(parser.chunks)) == (True, True, body)


@given(st.data())
def test_a_part_of_an_answer_is_never_complete(data: st.DataObject) -> None:
    framed = sorted(wire for wire in VALID if b"content-length" in wire.lower() or b"chunked" in wire.lower())
    wire = data.draw(st.sampled_from(framed))
    parser = read(data.draw(cut(wire[: data.draw(st.integers(2, len(wire) - 1))])))
    assert not parser.complete


@pytest.mark.parametrize("wire", INVALID.values(), ids=INVALID.keys())
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_what_could_be_read_in_two_ways_is_refused(wire: bytes, step: int) -> None:
    parser = read(wire[begin : begin + step] for begin in range(0, len(wire), step))
    assert parser.fault is not None
    assert not parser.complete
    assert not parser.reusable


@given(st.binary(min_size=1, max_size=400), st.data())
def test_junk_is_survived(junk: bytes, data: st.DataObject) -> None:
    prefix = data.draw(st.sampled_from([b"", OK, CHUNKED, b"HTTP/1.1 ", CHUNKED + HELLO]))
    parser = read(data.draw(cut(prefix + junk + b".")))
    assert parser.complete is False or parser.fault is None


@pytest.mark.parametrize("surplus", [b"x", b"HTT", plain(b"another"), b"\0", b"0\r\n\r\n"])
@pytest.mark.parametrize(
    "answer", [plain(b"hello"), CHUNKED + HELLO + LAST_CHUNK, plain(b"hello", b"connection: close")]
)
def test_bytes_after_an_answer_spoil_the_connection_and_not_the_answer(answer: bytes, surplus: bytes) -> None:
    parser = read([answer + surplus])
    assert (parser.complete, parser.fault, parser.reusable) == (True, None, False)
    assert (parser.status, b"".join(parser.chunks)) == (200, b"hello")


def test_a_body_where_none_may_be_spoils_the_connection() -> None:
    parser = read([b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello"])
    assert (parser.complete, parser.reusable, parser.chunks) == (True, False, [])


def test_only_the_fields_we_pass_on_are_kept() -> None:
    parser = read([plain(b"", b"X-Request-Id: one", b"X-Request-Id: two", b"set-cookie: no", b"RETRY-AFTER: 7")])
    assert parser.headers == {"content-type": "application/json", "x-request-id": "one", "retry-after": "7"}


def test_fields_of_an_interim_answer_and_of_trailers_are_not_the_answers() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\ncontent-type: interim\r\nretry-after: 1\r\n\r\n"
    trailers = b"0\r\ncontent-type: trailer\r\nx-request-id: trailer\r\n\r\n"
    parser = read([interim + OK + b"content-type: real\r\ntransfer-encoding: chunked\r\n\r\n" + HELLO + trailers])
    assert parser.complete
    assert parser.headers == {"content-type": "real"}


def test_one_parser_reads_many_answers() -> None:
    parser = AnswerParser()
    for number in range(3):
        parser.start(UNLIMITED)
        parser.feed(plain(b"%d" % number))
        assert (parser.complete, parser.reusable, parser.chunks) == (True, True, [b"%d" % number])


@pytest.mark.parametrize("step", [1000, 50_000, 1 << 20])
def test_a_head_ends_within_its_limit(step: int) -> None:
    def head(size: int) -> bytes:
        rest = size - len(OK) - len(b"x: \r\ncontent-length: 0\r\n\r\n")
        return OK + b"x: " + b"y" * rest + b"\r\ncontent-length: 0\r\n\r\n"

    def segments(wire: bytes) -> list[bytes]:
        return [wire[begin : begin + step] for begin in range(0, len(wire), step)]

    assert read(segments(head(MAX_HEAD_BYTES))).complete
    assert read(segments(head(MAX_HEAD_BYTES + 1))).fault == "a head that is too large"


@pytest.mark.parametrize(
    ("begin", "endless"),
    [
        (b"", OK + b"x: "),
        (OK, b"x"),
        (CHUNKED, b"5;" + b"x"),
        (CHUNKED + HELLO + b"0\r\n", b"x: "),
        (b"", b"HTTP/1.1 100 " + b"x"),
    ],
    ids=["a field", "a name", "a chunk extension", "a trailer", "a reason"],
)
def test_nothing_grows_for_ever(begin: bytes, endless: bytes) -> None:
    def flood() -> Iterable[bytes]:
        yield begin + endless
        for _ in range(MAX_HEAD_BYTES // 1000 + 2):
            yield b"y" * 1000

    assert read(flood()).fault is not None


def test_a_body_is_refused_at_its_limit() -> None:
    assert read([plain(b"x" * 10)], limit_bytes=10).complete
    assert read([plain(b"x" * 11)[:-11]], limit_bytes=10).fault == "an answer that is too large"  # before any of it
    assert read([CHUNKED, chunk(b"x" * 10), LAST_CHUNK], limit_bytes=10).complete
    assert (
        read([CHUNKED, chunk(b"x" * 10), chunk(b"x"), LAST_CHUNK], limit_bytes=10).fault
        == "an answer that is too large"
    )
    assert read([OK + b"\r\n", b"x" * 10], limit_bytes=10).complete
    assert read([OK + b"\r\n", b"x" * 11], limit_bytes=10).fault == "an answer that is too large"


def test_chunks_that_come_together_are_one() -> None:
    parser = AnswerParser()
    parser.start(UNLIMITED)
    parser.feed(CHUNKED + HELLO * 1000)
    parser.feed(HELLO * 3)
    assert parser.chunks == [b"hello" * 1000, b"hello" * 3]
