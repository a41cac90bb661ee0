"""uvicorn's HTTP protocol with what a server on the open network needs besides: deadlines, limits, and a caller who
leaves is noticed.

For:      `nexus-gateway serve`. Under bare uvicorn none of this holds.
Touches:  its connection. Timers are not set per request: a sweeper looks at every connection a few times a second.

A request for inference whose caller has left has its task cancelled, so that the exchange needs no watcher.
"""

import asyncio
from typing import Any, Final, Protocol

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.core.errors import GatewayError, HeadTooLarge, MalformedRequest, RequestTooSlow, TargetTooLong
from nexus_gateway.core.model import Operation

from .asgi import OPERATIONS as ROUTES
from .asgi import DataPlane
from .direct import STATUS_LINES, DirectWire
from .errors import render

MAX_TARGET_BYTES: Final = 8 << 10
MAX_HEAD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 128
MAX_TRAILER_BYTES: Final = 8 << 10
MAX_DISCARDED_BYTES: Final = 64 << 20  # of a body nobody wants, read so that its sender gets to read our answer
WRITE_BUFFER_BYTES: Final = 64 << 10  # per connection, before the application has to wait for the caller
KEEP_ALIVE_S: Final = 75.0  # longer than the usual client's own idle time, so that the client closes first

SERVING: Final = "nexus.serving"  # the ASGI extension that shows our server to the application
OPERATIONS: Final = {path.encode("ascii"): operation for path, operation in ROUTES.items()}


class Serving(Protocol):
    """What a connection knows of its server. `data_plane` is None while the application is not open."""

    timeouts: Timeouts
    draining: bool

    @property
    def data_plane(self) -> DataPlane | None: ...


class Refused(Exception):
    """Raised inside a parser callback to stop the parser; `error` is what the client is told."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


class GatewayProtocol(HttpToolsProtocol):
    """One client connection. Requests for inference take the direct way, all others that of the application."""

    def __init__(self, serving: Serving, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._serving = serving
        self._extensions = {SERVING: serving}
        self._task: asyncio.Task[None] | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._is_reading_head = True
        self._is_reading_body = False
        self._since_s = self.loop.time()  # when the present wait of the connection began
        self._head_bytes = 0
        self._trailer_bytes = 0
        self._discarded_bytes = 0

    # ---- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_write_timer()
        for cycle, _ in self.pipeline:  # queued behind the present one: they must not start
            cycle.disconnected = True
        self.pipeline.clear()
        cycle = self.cycle
        super().connection_lost(exc)
        if isinstance(cycle, DirectWire) and not cycle.response_complete and self._task is not None:
            cycle.gone = True
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

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise Refused(TargetTooLong(f"The request target is over {MAX_TARGET_BYTES} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_reading_head:
            self.headers.append((name.lower(), value))
            return
        self._trailer_bytes += len(name) + len(value)  # read past, within bounds
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise Refused(HeadTooLarge(f"The trailers are over {MAX_TRAILER_BYTES} bytes."))

    def on_headers_complete(self) -> None:
        self._check_framing()
        self._is_reading_head = False
        self._is_reading_body = True
        self._discarded_bytes = self._trailer_bytes = 0
        operation = OPERATIONS.get(self.url)
        data_plane = self._serving.data_plane
        if operation is None or data_plane is None or self.parser.get_method() != b"POST":
            self._begin_usual()
        else:
            self._begin_direct(data_plane, operation)
        if self._serving.draining:
            self.cycle.keep_alive = False

    def _begin_usual(self) -> None:
        headers, url, expects = self.headers, self.url, self.expect_100_continue
        super().on_message_begin()
        self.headers += headers
        self.url, self.expect_100_continue = url, expects
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]  # an object, not a dictionary
        super().on_headers_complete()

    def _begin_direct(self, data_plane: DataPlane, operation: Operation) -> None:
        is_1_0 = self.parser.get_http_version() == "1.0"
        headers, previous = self.headers, self.cycle
        wire = DirectWire(
            self.transport,
            self.flow,
            lambda wire: data_plane.exchange(operation, headers, wire),
            self.server_state.default_headers,
            self.on_response_complete,
            keep_alive=not is_1_0 and self.parser.should_keep_alive(),
            chunked=not is_1_0,
            expects_continue=self.expect_100_continue,
        )
        self.cycle = wire  # type: ignore[assignment]  # all that uvicorn's protocol asks of one
        if previous is None or previous.response_complete:
            self._start_asgi_task(wire, None)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((wire, None))  # type: ignore[arg-type]

    def _check_framing(self) -> None:
        """What two readers of one head could understand differently (RFC 9112, sections 3.2 and 6.1)."""
        names = [name for name, _ in self.headers]
        if len(names) > MAX_FIELDS:
            raise Refused(HeadTooLarge(f"The request has more than {MAX_FIELDS} header fields."))
        hosts = names.count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            raise Refused(MalformedRequest("The request must have exactly one Host header."))
        if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
            raise Refused(MalformedRequest("The request states its body's length more than once."))
        self.expect_100_continue = b"expect" in names and (b"expect", b"100-continue") in [
            (name, value.lower()) for name, value in self.headers
        ]

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()
            return
        if isinstance(self.cycle, DirectWire):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_reading_body = False
        self._is_reading_head = True
        self._head_bytes = 0
        self._since_s = self.loop.time()
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # ---- the application's task

    def _start_asgi_task(self, cycle: RequestResponseCycle | DirectWire, app: ASGI3Application | None) -> None:
        task = self._task = self.loop.create_task(cycle.run_asgi(app))  # type: ignore[arg-type]
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
            headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            lines = [STATUS_LINES[status], *(b"%b: %b\r\n" % header for header in headers)]
            self.transport.write(b"%b\r\n%b" % (b"".join(lines), body))
        self.transport.close()
