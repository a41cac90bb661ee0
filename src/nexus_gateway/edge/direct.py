"""The shortest way between a connection of ours and an exchange: no ASGI messages, one write per answer.

For:      the hot routes under `nexus-gateway serve`. Everything else goes the usual way through the application.
Touches:  the connection's transport.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.server import ServerState

from nexus_gateway.core.errors import GatewayError
from nexus_gateway.core.model import Operation

from .wire import Headers, TooMuch, Wire

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINES: Final = {  # all there can be: an upstream's own status may be one that nobody has a phrase for
    status: f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n".encode("ascii") for status in range(200, 600)
}

_field_line = b": ".join  # of a name and its value


class Exchanges(Protocol):
    """Who answers: the data plane."""

    def exchange(
        self, operation: Operation, headers: Headers, fields: Mapping[bytes, bytes], wire: Wire
    ) -> Coroutine[Any, Any, None]: ...


@dataclass(slots=True)
class Line:
    """What all requests of a connection have in common."""

    transport: asyncio.Transport
    flow: FlowControl
    client: str | None
    server: ServerState
    on_response: Callable[[], None]


class DirectWire:
    """Implements `Wire`, and what uvicorn's protocol asks of the cycle that answers a request.

    The protocol feeds `body` and `more_body` and calls `set` when something has changed.
    """

    gone = False
    disconnected = False
    response_started = False
    response_complete = False
    more_body = True
    _size = 0
    _is_read = False
    _failure: GatewayError | None = None
    _head = b""
    _waiter: asyncio.Future[None] | None = None

    def __init__(
        self,
        line: Line,
        operation: Operation,
        headers: Headers,
        fields: Mapping[bytes, bytes],
        *,
        keep_alive: bool,
        chunked: bool,
        expects_continue: bool,
    ) -> None:
        self.client = line.client
        self.keep_alive = keep_alive
        self._line = line
        self._request = operation, headers, fields
        self._chunked = chunked  # else the end of the connection is the end of the answer: HTTP/1.0, never kept alive
        self._expects_continue = expects_continue
        self._pieces: list[bytes] = []

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
            self._line.flow.pause_reading()

    def fail(self, error: GatewayError) -> None:
        """The body will not be whole: whoever reads it is told why."""
        self._failure = error
        self.set()

    def run_asgi(self, exchanges: Exchanges) -> Coroutine[Any, Any, None]:
        operation, headers, fields = self._request
        return exchanges.exchange(operation, headers, fields, self)

    # ---- for the exchange

    async def read_body(self, limit_bytes: int) -> bytes:
        if self._expects_continue:
            self._line.transport.write(CONTINUE)
        self._is_read = True
        if self._line.flow.read_paused:
            self._line.flow.resume_reading()
        while self.more_body and self._failure is None and self._size <= limit_bytes:
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
            self._line.transport.write(self._render(status, headers) + body)
            self._complete()

    async def start(self, status: int, headers: Headers) -> None:
        framing = [(b"transfer-encoding", b"chunked")] if self._chunked else []
        self._head = self._render(status, [*headers, *framing])

    async def write(self, piece: bytes) -> None:
        if self.disconnected or not piece:  # an empty chunk is the end
            return
        head, self._head = self._head, b""
        self._line.transport.write(b"%b%x\r\n%b\r\n" % (head, len(piece), piece) if self._chunked else head + piece)
        if self._line.flow.write_paused:
            await self._line.flow.drain()

    async def finish(self, piece: bytes) -> None:
        if self.disconnected or self.response_complete:
            return
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            self._line.transport.write(b"%b%b0\r\n\r\n" % (self._head, chunk))
        else:
            self.keep_alive = False
            self._line.transport.write(self._head + piece)
        self._complete()

    def _render(self, status: int, headers: Headers) -> bytes:
        self.response_started = True
        fields = b"\r\n".join(map(_field_line, (*self._line.server.default_headers, *headers)))
        end = b"\r\n\r\n" if self.keep_alive else b"\r\nconnection: close\r\n\r\n"
        return b"".join((STATUS_LINES[status], fields, end))

    def _complete(self) -> None:
        self.response_complete = True
        self._pieces.clear()
        self._line.on_response()
