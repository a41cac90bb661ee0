"""The shortest way between a connection of ours and an exchange: no ASGI messages, one write per answer.

For:      the hot routes under `nexus-gateway serve`. Everything else goes the usual way through the application.
Touches:  the connection's transport.
"""

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from nexus_gateway.core.errors import GatewayError

from .wire import Headers, TooMuch

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode("ascii")) for status in HTTPStatus
}

Start = Callable[["DirectWire"], Coroutine[Any, Any, None]]


class DirectWire:
    """Implements `Wire`, and what uvicorn's protocol asks of the cycle that answers a request.

    The protocol feeds `body` and `more_body` and calls `set` when something has changed.
    """

    __slots__ = (
        "_chunked",
        "_default_headers",
        "_expects_continue",
        "_failure",
        "_flow",
        "_head",
        "_is_read",
        "_on_response",
        "_pieces",
        "_size",
        "_start",
        "_transport",
        "_waiter",
        "client",
        "disconnected",
        "gone",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        flow: FlowControl,
        start: Start,
        default_headers: Headers,
        on_response: Callable[[], None],
        *,
        client: str | None,
        keep_alive: bool,
        chunked: bool,
        expects_continue: bool,
    ) -> None:
        self.gone = False
        self.client = client
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.more_body = True
        self.keep_alive = keep_alive
        self._transport = transport
        self._flow = flow
        self._start = start
        self._default_headers = default_headers
        self._on_response = on_response
        self._chunked = chunked  # else the end of the connection is the end of the answer: HTTP/1.0
        self._expects_continue = expects_continue
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_read = False
        self._failure: GatewayError | None = None
        self._head = b""
        self._waiter: asyncio.Future[None] | None = None

    # ---- for the protocol

    @property
    def message_event(self) -> "DirectWire":
        return self

    def set(self) -> None:
        """The body has grown or ended, or the connection is lost."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._is_read:
            self.set()
        elif self._size > HIGH_WATER_LIMIT:  # the exchange still waits for something else, or for its turn
            self._flow.pause_reading()

    def fail(self, error: GatewayError) -> None:
        """The body will not be whole: whoever reads it is told why."""
        self._failure = error
        self.set()

    async def run_asgi(self, _app: object) -> None:
        try:
            await self._start(self)
        finally:
            if not (self.response_complete or self.disconnected):
                self._transport.abort()

    # ---- for the exchange

    async def read_body(self, limit_bytes: int) -> bytes:
        if self._expects_continue:
            self._transport.write(CONTINUE)
        self._is_read = True
        self._flow.resume_reading()
        while self.more_body and self._size <= limit_bytes and self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._size > limit_bytes:
            raise TooMuch
        if self._failure is not None:
            raise self._failure
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if not self.disconnected:
            self._transport.write(self._render(status, headers) + body)
            self._complete()

    async def start(self, status: int, headers: Headers) -> None:
        framing = (b"transfer-encoding", b"chunked") if self._chunked else (b"connection", b"close")
        self._head = self._render(status, (*headers, framing))

    async def write(self, piece: bytes) -> None:
        if self.disconnected or not piece:  # an empty chunk is the end
            return
        head, self._head = self._head, b""
        self._transport.write(b"%b%x\r\n%b\r\n" % (head, len(piece), piece) if self._chunked else head + piece)
        if self._flow.write_paused:
            await self._flow.drain()

    async def finish(self, piece: bytes) -> None:
        if self.disconnected or self.response_complete:
            return
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            self._transport.write(b"%b%b0\r\n\r\n" % (self._head, chunk))
        else:
            self.keep_alive = False
            self._transport.write(self._head + piece)
        self._complete()

    def _render(self, status: int, headers: Headers) -> bytes:
        self.response_started = True
        lines = [STATUS_LINES[status]]
        lines += [b"%b: %b\r\n" % header for header in self._default_headers]
        lines += [b"%b: %b\r\n" % header for header in headers]
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        return b"".join(lines)

    def _complete(self) -> None:
        self.response_complete = True
        self._pieces.clear()
        self._on_response()
