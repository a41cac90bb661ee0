"""uvicorn's HTTP protocol with what a server on the open network needs besides: deadlines, limits, and a caller who
leaves is noticed.

For:      `nexus-gateway serve`. Under bare uvicorn none of this holds.
Touches:  its connection. Timers are not set per request: a sweeper looks at every connection a few times a second.

A request whose caller has left has its task cancelled, so that the application needs no watcher. `gone` tells it why.
"""

import asyncio
from typing import Any, Final, Protocol

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.core.errors import GatewayError, HeadTooLarge, MalformedRequest, RequestTooSlow, TargetTooLong

from .errors import render
from .exchange import PRESENCE

MAX_TARGET_BYTES: Final = 8 << 10
MAX_HEAD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 128
MAX_TRAILER_BYTES: Final = 8 << 10
MAX_DISCARDED_BYTES: Final = 64 << 20  # of a body nobody wants, read so that its sender gets to read our answer
WRITE_BUFFER_BYTES: Final = 64 << 10  # per connection, before the application has to wait for the caller
KEEP_ALIVE_S: Final = 75.0  # longer than the usual client's own idle time, so that the client closes first

REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
}


class Serving(Protocol):
    """What a connection knows of its server."""

    timeouts: Timeouts
    draining: bool


class Refused(Exception):
    """Raised inside a parser callback to stop the parser; `error` is what the client is told."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. Also the `Presence` of whatever request it carries."""

    def __init__(self, serving: Serving, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gone = False
        self._serving = serving
        self._extensions = {PRESENCE: self}
        self._task: asyncio.Task[None] | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._is_reading_head = True
        self._is_reading_body = False
        self._since_s = self.loop.time()  # when the present wait of the connection began
        self._head_bytes = 0
        self._trailer_bytes = 0
        self._discarded_bytes = 0

    @property
    def draining(self) -> bool:
        return self._serving.draining

    # ---- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_write_timer()
        for cycle, _ in self.pipeline:  # queued behind the present one: they must not start
            cycle.disconnected = True
        self.pipeline.clear()
        is_unanswered = self.cycle is not None and not self.cycle.response_complete
        super().connection_lost(exc)
        if is_unanswered and self._task is not None:
            self.gone = True
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_reading_head:
            if self._head_bytes == 0:
                self._since_s = self.loop.time()
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            self._refuse(exc.__context__)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # answered as HTTP/1.1; what follows on this connection would not be
        except httptools.HttpParserError:
            self._refuse(Refused(MalformedRequest("The request is not valid HTTP/1.1.")))
        else:
            if self._is_reading_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(Refused(HeadTooLarge(f"The request head is over {MAX_HEAD_BYTES} bytes.")))

    def eof_received(self) -> None:
        """A client that half-closes counts as gone: before the first byte of an answer the two look alike."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._serving.timeouts.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # ---- the parser's callbacks

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            raise Refused(TargetTooLong(f"The request target is over {MAX_TARGET_BYTES} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_reading_head:  # a trailer: read past, within bounds
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise Refused(HeadTooLarge(f"The trailers are over {MAX_TRAILER_BYTES} bytes."))
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_FIELDS:
            raise Refused(HeadTooLarge(f"The request has more than {MAX_FIELDS} header fields."))

    def on_headers_complete(self) -> None:
        self._check_framing()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]  # an object, not a dictionary
        self._is_reading_head = False
        self._is_reading_body = True
        self._discarded_bytes = self._trailer_bytes = 0
        super().on_headers_complete()
        if self._serving.draining:
            self.cycle.keep_alive = False

    def _check_framing(self) -> None:
        """What two readers of one head could understand differently (RFC 9112, sections 3.2 and 6.1)."""
        hosts = lengths = encodings = 0
        for name, _ in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                lengths += 1
            elif name == b"transfer-encoding":
                encodings += 1
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            raise Refused(MalformedRequest("The request must have exactly one Host header."))
        if lengths + encodings > 1:
            raise Refused(MalformedRequest("The request states its body's length more than once."))

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_reading_body = False
        self._is_reading_head = True
        self._head_bytes = 0
        self._since_s = self.loop.time()
        super().on_message_complete()

    # ---- the application's task

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = self._task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since_s = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    # ---- called by the sweeper

    def sweep(self, now_s: float) -> None:
        """Close what has waited too long: for a head, for a body, or for nothing at all."""
        waited_s, timeouts = now_s - self._since_s, self._serving.timeouts
        if self._is_reading_body:
            if waited_s > timeouts.body_s:
                self._time_out(f"The request body did not arrive within {timeouts.body_s:g} s.")
        elif self.cycle is not None and not self.cycle.response_complete:
            return
        elif self._head_bytes:
            if waited_s > timeouts.head_s:
                self._time_out(f"The request head did not arrive within {timeouts.head_s:g} s.")
        elif waited_s > (timeouts.head_s if self.cycle is None else KEEP_ALIVE_S):
            self.transport.close()

    def _time_out(self, message: str) -> None:
        if self._is_reading_body and self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(Refused(RequestTooSlow(message)))

    def _refuse(self, cause: BaseException | None) -> None:
        """Answer in the API's shape and close. Whatever was under way on this connection is over."""
        error = cause.error if isinstance(cause, Refused) else MalformedRequest("The request is not valid HTTP/1.1.")
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            status, headers, body = render(error)
            lines = [b"HTTP/1.1 %d %b\r\nconnection: close\r\n" % (status, REASONS[status])]
            lines += [b"%b: %b\r\n" % header for header in headers]
            self.transport.write(b"%b\r\n%b" % (b"".join(lines), body))
        self.transport.close()
