"""One HTTP/1.1 connection to an upstream, and the answer it brings.

For:      one request at a time, in as few steps per request and per chunk as asyncio allows (docs/adr/0001).
Touches:  one transport and at most one timer.

A connection is either idle in its home or bound to exactly one `HttpReply`. Everything that an answer brings is put on
that reply, and the two are parted before the connection goes home. So nobody reads another's answer, however late the
reader is scheduled, and whoever gives up late cuts nothing that is no longer theirs.
"""

import asyncio
import select
import socket
from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Final, Protocol, cast

from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamInvalidResponse,
    UpstreamTimeout,
    UpstreamTruncated,
)
from nexus_gateway.core.outbox import Outbox, Outgoing

from .http1_parser import UNLIMITED, AnswerParser

HIGH_WATER_BYTES: Final = 64 << 10  # of a stream, not taken yet; what one read of the loop brings comes on top
LINGER_S: Final = 1.0  # for the end of a body whose `[DONE]` was seen and which nobody waits for any more
LINGER_BYTES: Final = 4 << 10
PROBE_AFTER_S: Final = 30  # of silence, while a model thinks: NATs and load balancers forget who says nothing for 60 s
CLOCK_SLACK_S: Final = 0.001  # the loop's timers go by whole milliseconds; none may end a wait before its time

_KEEP_IDLE: Final = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"  # as macOS calls it
_TERMINATORS: Final = (b"data: [DONE]", b"data:[DONE]")
_TAIL_BYTES: Final = 32  # holds a terminator and the line ends after it


class StaleConnection(Exception):  # no error: a fresh connection settles it
    """The upstream closed a kept connection just when it was used again, and had not begun to answer."""


class Home(Protocol):
    """What a connection knows of its pool."""

    @property
    def name(self) -> str:
        """The upstream's."""
        ...

    @property
    def requests(self) -> Outbox:
        """Where requests wait for the end of the turn."""
        ...

    @property
    def answers(self) -> Outbox:
        """Where what those write who are told of an answer waits for it."""
        ...

    def welcome(self, connection: "Connection") -> None:
        """It is free for the next request."""
        ...

    def forget(self, connection: "Connection") -> None:
        """It is closed. May be told more than once."""
        ...


class HttpReply:
    """An answer: all there, or coming in. Implements `base.Reply`."""

    status = 0  # until the head is known
    headers: Mapping[str, str] = MappingProxyType({})  # likewise
    connection: "Connection | None"  # None when it will bring no more
    failure: Exception | None = None  # raised when the chunks are used up
    waiter: "asyncio.Future[None] | None" = None
    _tail = b""

    def __init__(self, upstream: str, connection: "Connection", chunks: list[bytes], deadline_s: float) -> None:
        self.chunks = chunks
        self.connection = connection
        self._upstream = upstream
        self._deadline_s = deadline_s

    async def read_all(self, limit_bytes: int) -> bytes:
        chunks, size = self.chunks, 0
        if self.connection is not None or self.failure is not None:
            chunks = []
            while size <= limit_bytes and (piece := await self.read(self._deadline_s)):
                chunks.append(piece)
                size += len(piece)
        body = b"".join(chunks)
        chunks.clear()
        if len(body) > limit_bytes:
            self.cut()
            what = f"Upstream '{self._upstream}' sent an answer that is too large."
            raise UpstreamInvalidResponse(what, upstream=self._upstream, status=self.status)
        return body

    async def read(self, deadline_s: float) -> bytes:
        chunks = self.chunks
        while not chunks:
            if self.failure is not None:
                raise self.failure
            if self.connection is None:
                return b""
            waiter = self.waiter = self.connection.expect(deadline_s)
            try:
                await waiter
            except asyncio.CancelledError:
                self.cut()
                raise
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        if self.connection is not None:
            self.connection.drained()
            self._tail = data if len(data) >= _TAIL_BYTES else (self._tail + data)[-_TAIL_BYTES:]
        return data

    async def aclose(self) -> None:
        if self.connection is None:
            return
        if self._tail.rstrip(b"\r\n").endswith(_TERMINATORS):
            self.connection.linger()
        else:
            self.connection.close()

    def cut(self) -> None:
        """Close the connection at once, unless the answer is all there."""
        if self.connection is not None:
            self.connection.close()

    def wake(self) -> None:
        """Something came."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():  # else it was cancelled, and its task cuts us when it runs
                waiter.set_result(None)


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 to one upstream. Made by its home, which hears when it is free and when it is gone."""

    __slots__ = (
        "_armed_at_s",
        "_deadline_s",
        "_home",
        "_is_paused",
        "_is_used",
        "_is_whole",
        "_loop",
        "_parser",
        "_reply",
        "_timer",
        "_transport",
        "is_closed",
    )

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._loop = loop
        self._transport: Outgoing
        self._parser: AnswerParser
        self._reply: HttpReply | None = None
        self._is_whole = False  # the reply is woken once, when everything is there
        self._is_used = False  # it has brought an answer before
        self._is_paused = False
        self._deadline_s = inf  # of whoever waits; re-arming the timer is left to the timer where it can be
        self._armed_at_s = inf
        self._timer: asyncio.TimerHandle | None = None
        self.is_closed = False

    async def exchange(self, request: Sequence[bytes], deadline_s: float, *, limit_bytes: int | None) -> HttpReply:
        """Send a request in one write. Returns when the answer is complete if `limit_bytes` is given, else at its head.

        Raises UpstreamError kinds, and StaleConnection. A failure after the head is raised where the body is read.
        """
        parser = self._parser
        self._is_whole = limit_bytes is not None
        parser.start(UNLIMITED if limit_bytes is None else limit_bytes)
        reply = self._reply = HttpReply(self._home.name, self, parser.chunks, deadline_s)
        if len(request) > 1 and self._is_used and self._has_unread():  # it would leave at once: see `data_received`
            self._fail(reply, StaleConnection())
            raise StaleConnection
        self._transport.writelines(request)
        waiter = reply.waiter = self.expect(deadline_s)
        try:
            await waiter
        except asyncio.CancelledError:
            reply.cut()
            raise
        if reply.failure is not None and not reply.status:
            raise reply.failure
        return reply

    def _has_unread(self) -> bool:
        """Whether something has come that the loop did not tell us of yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # ---- called by the reply

    def expect(self, deadline_s: float) -> "asyncio.Future[None]":
        """What the reader waits on. If nothing comes by `deadline_s`, the answer fails and the connection is closed.

        Reading goes on from here, and not when the last piece was taken: that one may still wait for a slow caller.
        """
        if self._is_paused:
            self._resume()
        self._deadline_s = deadline_s
        if deadline_s < self._armed_at_s:
            self._arm(deadline_s)
        return self._loop.create_future()

    def drained(self) -> None:
        """All chunks were taken."""
        self._parser.size = 0

    def linger(self) -> None:
        """Nobody reads on, but the end is due: wait a moment for it in our own time, to keep the connection."""
        if self._reply is not None:
            self._reply.connection = None
            self._is_whole = True
            self._parser.bound(LINGER_BYTES)
            self.drained()
            if self._is_paused:
                self._resume()
            self._deadline_s = self._loop.time() + LINGER_S
            self._arm(self._deadline_s)

    def close(self) -> None:
        """Close at once. An answer that was coming in fails."""
        if self._reply is None:
            self._abort()
        else:
            what = f"The gateway closed its connection to upstream '{self._home.name}'."
            self._fail(self._reply, UpstreamTruncated(what, upstream=self._home.name))

    # ---- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = Outgoing(cast(asyncio.Transport, transport), self._home.requests)
        self._parser = AnswerParser()
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, _KEEP_IDLE), PROBE_AFTER_S)

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:
            self._abort()  # bytes that answer no request
            return
        parser = self._parser
        if self._is_used and not parser.has_started and self._transport.is_holding:
            self._fail(reply, StaleConnection())  # nor do these: the request has not left
            return
        parser.feed(data)
        if parser.complete:
            self._finish(reply)
        elif parser.fault is not None:
            what = f"Upstream '{self._home.name}' sent {parser.fault}."
            self._fail(reply, UpstreamInvalidResponse(what, upstream=self._home.name, status=parser.status or None))
        elif parser.has_head and not self._is_whole:
            if parser.size > HIGH_WATER_BYTES and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
            if parser.chunks or not reply.status:
                reply.status, reply.headers = parser.status, parser.headers
                self._deadline_s = inf
                reply.wake()
                self._home.answers.expect()

    def eof_received(self) -> None:
        self._parser.end()
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._end()
        self._parser.close()
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        reply, parser, name = self._reply, self._parser, self._home.name
        if reply is None:
            self._abort()
        elif parser.complete:
            self._finish(reply)
        elif parser.has_started:
            what = f"Upstream '{name}' cut its answer."
            self._fail(reply, UpstreamTruncated(what, upstream=name, status=parser.status or None))
        elif self._is_used:
            self._fail(reply, StaleConnection())
        else:
            what = f"Upstream '{name}' closed the connection without an answer."
            self._fail(reply, UpstreamConnectError(what, upstream=name))

    def _resume(self) -> None:
        self._is_paused = False
        self._transport.resume_reading()

    # ---- how an answer ends

    def _finish(self, reply: HttpReply) -> None:
        parser = self._parser
        reply.status, reply.headers = parser.status, parser.headers
        self._part()
        reply.wake()
        self._home.answers.expect()
        # An answer that came before its request was all sent leaves the connection in the middle of that request.
        if parser.reusable and not self._transport.get_write_buffer_size():
            self._is_used = True
            if self._is_paused:
                self._resume()
            self._home.welcome(self)
        else:
            self._abort()

    def _fail(self, reply: HttpReply, failure: Exception) -> None:
        if self._parser.has_head:
            reply.status, reply.headers = self._parser.status, self._parser.headers
        if self._is_whole:
            reply.chunks.clear()  # half an answer is of no use, and may be large
        reply.failure = failure
        self._abort()
        reply.wake()

    def _abort(self) -> None:
        self._part()
        self._home.forget(self)
        self._transport.abort()

    def _part(self) -> None:
        reply, self._reply = self._reply, None
        self._deadline_s = inf
        if reply is not None:
            reply.connection = None
            self._parser.chunks = []  # the old ones are the reply's alone

    # ---- the timer

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at_s = at_s
        self._timer = self._loop.call_at(at_s + CLOCK_SLACK_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._armed_at_s = inf
        reply = self._reply
        if reply is None or self._deadline_s == inf:
            return
        if self._loop.time() < self._deadline_s:
            self._arm(self._deadline_s)
            return
        name = self._home.name
        what = f"Upstream '{name}' did not answer in time."
        self._fail(reply, UpstreamTimeout(what, upstream=name, status=self._parser.status or None))
