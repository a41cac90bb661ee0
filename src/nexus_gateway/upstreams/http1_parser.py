"""Reads answers off an HTTP/1.1 connection, strictly: what two readers could understand differently is refused.

For:      turning segments, however they are cut, into a status, the few headers we pass on, and body bytes.
Touches:  nothing. httptools (llhttp) does the grammar, strict as it comes; what it still lets pass is judged here.
"""

import sys
from typing import Any, Final

import httptools

MAX_HEAD_BYTES: Final = 64 << 10  # far above any real head; bounds what a hostile one makes us hold
MAX_HEAD_FIELDS: Final = 256
MAX_INFORMATIONAL: Final = 16  # 1xx answers ahead of the real one
UNLIMITED: Final = sys.maxsize

_KEPT: Final = {name.encode(): name for name in ("content-type", "retry-after", "x-request-id", "openai-processing-ms")}
_READ: Final = frozenset((b"content-length", b"transfer-encoding", b"content-encoding", *_KEPT))
_BODILESS: Final = (204, 304)  # RFC 9112, 6.3: whatever their headers say
_FIRST_BYTE: Final = ord("H")  # llhttp reads RTSP and ICE as well, and skips empty lines


class _RefusedError(Exception):
    """Raised in a callback to stop llhttp; it never leaves this file."""


class AnswerParser:
    """One answer after another: `start` before each, then `feed`, and a look at the attributes after every segment.

    `fault` is what the upstream sent instead of an answer, and the end of this parser. Body bytes gather in `chunks`,
    for the caller to take away; `size` counts them until the caller resets it. A `complete` answer is good whatever
    came after it, only `reusable` is false then.
    """

    __slots__ = (
        "_barren_bytes",
        "_chunked",
        "_fields",
        "_informational",
        "_limit_bytes",
        "_parser",
        "_until_close",
        "_version",
        "chunks",
        "complete",
        "fault",
        "has_head",
        "has_started",
        "headers",
        "reusable",
        "size",
        "status",
    )

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self.start(0)

    def start(self, limit_bytes: int) -> None:
        """Expect an answer whose body has no more than `limit_bytes` between two resets of `size`."""
        self._limit_bytes = limit_bytes
        self._fields = self._informational = 0
        self._barren_bytes = 0  # since the last byte of a body: heads, trailers and chunk extensions
        self._chunked = False
        self._until_close = True
        self.status = self.size = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.has_started = self.has_head = self.complete = self.reusable = False
        self.fault: str | None = None

    def bound(self, limit_bytes: int) -> None:
        """Change the limit in the middle of an answer."""
        self._limit_bytes = limit_bytes
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Read one segment, which must not be empty."""
        if not self.has_started:
            self.has_started = True
            if data[0] != _FIRST_BYTE:
                self.fault = "something that is not HTTP"
                return
        if not self.has_head and len(data) + self._barren_bytes > MAX_HEAD_BYTES:
            room = MAX_HEAD_BYTES - self._barren_bytes
            self.feed(data[:room])
            if not self.has_head:
                self.fault = self.fault or "a head that is too large"
            if self.fault is not None:
                return
            data = data[room:]
            self._barren_bytes = 0
        size, pieces = self.size, len(self.chunks)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self.complete:
                self.reusable = False
            elif self.fault is None:
                self.fault = "broken HTTP"
        if self.complete or self.fault is not None:
            return
        if len(self.chunks) > pieces + 1:
            self.chunks[pieces:] = [b"".join(self.chunks[pieces:])]  # a flood of tiny chunks is a flood of objects
        if self.size == size:
            self._barren_bytes += len(data)
            if self._barren_bytes > MAX_HEAD_BYTES:
                self.fault = "endless framing without a body"
        else:
            self._barren_bytes = 0
            if self.size > self._limit_bytes:
                self.fault = "an answer that is too large"

    def end(self) -> None:
        """The upstream sends no more. An answer without a length is complete by that."""
        if self.has_head and self._until_close and self.fault is None:
            self.complete = True

    def close(self) -> None:
        """Nothing more is fed. llhttp refers to us: what is no circle goes at once, and waits for no collection."""
        self._parser = None

    def _refuse(self, fault: str) -> _RefusedError:
        self.fault = fault
        return _RefusedError()

    # ---- called by llhttp

    def on_message_begin(self) -> None:
        if self.complete:
            raise _RefusedError  # bytes after the answer belong to no request

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > MAX_HEAD_FIELDS:
            raise self._refuse("too many header fields")
        name = name.lower()
        if name not in _READ or self.has_head:
            return  # nothing to us, or a trailer
        if name in _KEPT:
            self.headers.setdefault(_KEPT[name], value.decode("latin-1"))
        elif name == b"content-length":
            self._until_close = False
            if int(value) > self._limit_bytes:
                raise self._refuse("an answer that is too large")
        elif name == b"transfer-encoding":
            # llhttp takes "gzip, chunked", a second field, and codings it does not know
            if self._chunked or value.strip().lower() != b"chunked":
                raise self._refuse("a transfer coding other than chunked")
            self._chunked = True
            self._until_close = False
        elif value.strip().lower() not in (b"identity", b""):
            raise self._refuse("a content encoding that was not asked for")

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        self._version = parser.get_http_version()
        if self._version not in ("1.1", "1.0"):
            raise self._refuse("an unknown version of HTTP")
        if status < 200:
            self._skip_informational(status)
            return
        if status > 599:
            raise self._refuse("an unknown status")
        if status in _BODILESS:
            self._until_close = False
        self.status = status
        self.has_head = True

    def _skip_informational(self, status: int) -> None:
        self._informational += 1
        if status < 100 or status == 101 or self._informational > MAX_INFORMATIONAL:
            raise self._refuse("an interim answer that was not asked for")
        self.headers.clear()
        self._chunked = False
        self._until_close = True

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)
        self.size += len(body)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.complete = True
            # RFC 9112, 6.1: chunked under HTTP/1.0 is faulty framing, good for this answer at most
            self.reusable = self._parser.should_keep_alive() and not (self._chunked and self._version == "1.0")
