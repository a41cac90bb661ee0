"""uvicorn's HTTP protocol with what a server on the open network needs besides: deadlines, limits, and a caller who
leaves is noticed.

For:      `nexus-gateway serve`. Under bare uvicorn none of this holds.
Touches:  its connection. Timers are not set per request: a sweeper looks at every connection a few times a second.

A request for inference whose caller has left has its task cancelled, so that the exchange needs no watcher.

| a connection | is shown by | ends when |
|---|---|---|
| waits for a request, or has part of a head | nothing below | idle too long; head too slow: 408 |
| reads a body | `_is_reading_body` | body too slow: 408 |
| answers | `_running` | the client leaves, or takes too little of the answer |
| has answered for the last time, and reads on | `_is_lingering` | the client has read it and closes, or too long |
"""

import asyncio
import logging
import os
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application

from nexus_gateway.core.errors import GatewayError, InternalError, RequestTooSlow

from .asgi import OPERATIONS as ROUTES
from .asgi import DataPlane
from .connection import Connection, Cycle, Serving
from .direct import STATUS_LINES, DirectWire, Line
from .errors import code_of, render
from .framing import (
    MAX_HEAD_BYTES,
    MAX_UNFRAMED_BYTES,
    Refused,
    check_fields,
    check_size,
    check_target,
    head_too_large,
    not_http,
    unframed_too_large,
    without_upgrade,
)
from .request_id import HEADER, request_id_of
from .usual import AsgiAnswer, target_of

MAX_AHEAD_BYTES: Final = 64 << 10  # of requests sent before the present one is answered
MAX_DISCARDED_BYTES: Final = 16 << 20  # of a body nobody wants, so that who sent a little too much reads our answer
KEEP_ALIVE_S: Final = 75.0  # longer than the usual client's own idle time, so that the client closes first
LINGER_S: Final = 1.0  # for a client to read that it was too slow; one that is refused gets the time of a body
LAST_CALL_S: Final = 0.25  # while draining: for a request that is on its way already

SERVING: Final = "nexus.serving"  # the ASGI extension that shows our server to the application
OPERATIONS: Final = {path.encode("ascii"): operation for path, operation in ROUTES.items()}

log = logging.getLogger(__name__)


class Answered:
    """In place of a request that is done with: an idle connection holds nothing of it, which halves what it costs."""

    response_complete = True

    @property
    def message_event(self) -> "Answered":
        return self

    def set(self) -> None:
        """Nobody waits."""


ANSWERED: Final = Answered()


class GatewayProtocol(Connection):
    """One client connection. Requests for inference take the direct way, all others that of the application."""

    def __init__(self, serving: Serving, *args: Any, **options: Any) -> None:
        super().__init__(serving, *args, **options)
        self._extensions = {SERVING: serving}
        self._refusal: GatewayError | None = None  # of a request behind the one that is being answered
        self._ahead = b""
        self._is_reading_body = False
        self._is_lingering = False
        self._linger_s: float | None = None  # None: as long as a body may take
        self._since_s = self.loop.time()  # when the present wait of the connection began
        self._head_bytes = 0
        self._is_head_counted = True  # all of the head that has come is in `_head_bytes`
        self._unframed_bytes = 0
        self._discarded_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        client = self.client[0] if self.client is not None else None
        self._line = Line(self.transport, self.flow, client, self.server_state, self.on_response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.cycle = ANSWERED  # type: ignore[assignment]
        del self._line  # which refers to us as well: what is no circle goes at once, and waits for no collection

    # ---- what arrives

    def data_received(self, data: bytes) -> None:
        if self._is_reading_body:
            self._unframed_bytes += len(data)
        elif self._running is not None or self._ahead:
            self._ahead += data  # not parsed before its turn, so that a client's leaving is still seen
            if len(self._ahead) > MAX_AHEAD_BYTES:
                self.flow.pause_reading()
            return
        elif self._is_lingering:
            self._discard(len(data))
            return
        else:
            if not self._head_bytes:
                self._since_s = self.loop.time()
            self._head_bytes += len(data)
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            self._refuse(_told(exc.__context__))
        except httptools.HttpParserUpgrade as exc:
            head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets its own
            self._parse(head + data[exc.args[0] :])
        except httptools.HttpParserError:
            self._refuse(not_http())
        else:
            if self._is_reading_body:
                if self._unframed_bytes > MAX_UNFRAMED_BYTES:
                    self._refuse(unframed_too_large())
            elif self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(head_too_large())

    # ---- the parser's callbacks

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        if not self._head_bytes:  # it stands behind other bytes
            self._head_bytes = 1
            self._is_head_counted = False

    def on_url(self, url: bytes) -> None:
        self.url += url
        check_target(self.url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_reading_body:  # else a trailer, which nobody asked for
            self.headers.append((name.lower(), value.rstrip(b" \t")))  # the parser leaves what stands behind a value

    def on_headers_complete(self) -> None:
        method = self.parser.get_method()
        if self.parser.should_upgrade():
            if method == b"CONNECT":
                raise Refused(not_http())
            return  # the parser stops behind this head, see HttpParserUpgrade above
        if self._head_bytes > MAX_HEAD_BYTES or not self._is_head_counted:
            self._is_head_counted = True
            check_size(self.url, self.headers)
        version = self.parser.get_http_version()
        fields = dict(self.headers)
        expects_continue = check_fields(version, self.headers, fields)
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        operation = OPERATIONS.get(self.url) or OPERATIONS.get(self.url.partition(b"?")[0])
        data_plane = self._serving.data_plane
        if operation is None or data_plane is None or method != b"POST":
            self._begin(self._usual(method.decode("ascii"), version, expects_continue, keep_alive), self.app)
        else:
            wire = DirectWire(
                self._line,
                operation,
                self.headers,
                fields,
                keep_alive=keep_alive,
                chunked=version == "1.1",
                expects_continue=expects_continue,
            )
            self._begin(wire, data_plane)

    def _usual(self, method: str, version: str, expects_continue: bool, keep_alive: bool) -> AsgiAnswer:
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": method,
            "headers": self.headers,
            "state": self.app_state.copy(),
            "extensions": self._extensions,
            **target_of(self.url),
        }
        return AsgiAnswer(
            scope,
            self._outlet,  # type: ignore[arg-type]  # as much of a transport as an answer needs
            self.flow,
            self.logger,
            self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def _begin(self, cycle: Cycle, app: ASGI3Application | DataPlane) -> None:
        self.cycle = cycle
        self._is_reading_body = True
        self._since_s = self.loop.time()
        self._unframed_bytes = self._discarded_bytes = 0
        if self._running is None:
            self._start_asgi_task(cycle, app)
        else:
            self.pipeline.appendleft((cycle, app))  # type: ignore[arg-type]  # which parse() had got hold of already

    def on_body(self, body: bytes) -> None:
        self._unframed_bytes = 0
        if self.cycle.response_complete:
            self._discard(len(body))
        elif isinstance(self.cycle, DirectWire):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_reading_body:
            return  # of a head that is read once more, without its offer to upgrade
        self._is_reading_body = False
        self._head_bytes = 0
        if self.cycle.response_complete:
            self._since_s = self.loop.time()
            self._forget()
        else:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _discard(self, size_bytes: int) -> None:
        self._discarded_bytes += size_bytes
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.abort()

    # ---- answers

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self._serving.draining:
            cycle.keep_alive = False
        self._running = cycle
        task = self._task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task is self._task and self._running is not None:  # it ended without an end of its answer
            self.transport.abort()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        answered, self._running = self._running, None
        if answered is None or self.transport.is_closing():
            return
        self._since_s = self.loop.time()
        if answered is self.cycle and not self._is_reading_body:
            self._forget()
        if not answered.keep_alive:
            self._leave()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._ahead:  # in a turn of its own: an exception that is handled here would stand in for the parser's
            self.loop.call_soon(self._take_ahead)
        else:
            self.flow.resume_reading()

    def _take_ahead(self) -> None:
        ahead, self._ahead = self._ahead, b""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(ahead)

    def _forget(self) -> None:
        self.cycle = ANSWERED  # type: ignore[assignment]  # all that is asked of one
        self._task = None
        if not self._head_bytes:  # else they are the next request's, whose head came with the end of this one's body
            self.headers = []

    def _leave(self) -> None:
        if self._is_reading_body or self.pipeline or self._ahead or self._refusal is not None:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Say that this was all, and read on: closing on a client that still sends takes our answer away from it."""
        self._is_lingering = True
        self._is_reading_body = False
        self._since_s = self.loop.time()
        self.pipeline.clear()
        self._ahead = b""
        self.flow.resume_reading()
        self.transport.write_eof()

    def _refuse(self, error: GatewayError, linger_s: float | None = None) -> None:
        """Answer in the API's shape and go. Earlier requests on this connection are answered first."""
        is_own = self._is_reading_body and not self.pipeline  # is the request in error the one that is running?
        if self._running is not None and not is_own:
            if self._is_reading_body:
                self.pipeline.popleft()
            self._refusal, self._is_reading_body = error, False
            return
        running, is_answered = self._running, self._running is None and self._is_reading_body
        self._linger_s = linger_s
        if isinstance(running, DirectWire) and not running.response_started:  # its exchange tells the client
            self._refusal, self._is_reading_body = error, False
            running.keep_alive = False
            running.fail(error)
            return
        self._abandon()
        if running is not None and running.response_started:
            self._cut()
            return
        if not is_answered:
            data_plane = self._serving.data_plane
            if running is None and data_plane is not None:
                data_plane.refused(code_of(error))
            self.transport.write(self._whole_answer(error))
        self._linger()

    def _whole_answer(self, error: GatewayError) -> bytes:
        status, headers, body = render(error)
        request_id = request_id_of(dict(self.headers or ()), lambda: f"req_{os.urandom(8).hex()}").encode("ascii")
        fields = [
            *self.server_state.default_headers,
            *headers,
            (b"content-length", b"%d" % len(body)),
            (HEADER, request_id),
            (b"connection", b"close"),
        ]
        return b"%b%b\r\n%b" % (STATUS_LINES[status], b"".join(b"%b: %b\r\n" % field for field in fields), body)

    # ---- called by the server

    def sweep(self, now_s: float) -> None:
        """Close what has waited too long: for a head, for a body, for the client to go, or for nothing at all."""
        waited_s, timeouts = now_s - self._since_s, self._serving.timeouts
        if self._write_timer is not None:
            self._since_s = now_s  # the client has an answer to take first, and its own time for that
        elif self.transport.is_closing():  # with the last bytes of an answer not taken yet
            if waited_s > timeouts.write_s:
                self.transport.abort()
        elif self._is_lingering:
            if waited_s > (timeouts.body_s if self._linger_s is None else self._linger_s):
                self.transport.abort()
        elif self._is_reading_body:
            if self.flow.read_paused:
                self._since_s = now_s  # the wait is ours
            elif waited_s > timeouts.body_s:
                self._time_out("body", timeouts.body_s)
        elif self._running is not None:
            return
        elif self._head_bytes:
            if waited_s > timeouts.head_s:
                self._time_out("head", timeouts.head_s)
        elif waited_s > (timeouts.head_s if self.cycle is None else KEEP_ALIVE_S):
            self._since_s = now_s
            self.transport.close()

    def _time_out(self, part: str, limit_s: float) -> None:
        self._refuse(RequestTooSlow(f"The request {part} did not arrive within {limit_s:g} s."), min(limit_s, LINGER_S))

    def retire(self) -> None:
        """The answer under way is the last one."""
        if self._running is not None:
            self._running.keep_alive = False

    def shutdown(self) -> None:
        """Close unless a request is being read or answered, or may be on its way."""
        self.retire()
        is_wanted = self._running is not None or self._is_reading_body or self._head_bytes
        if (self._is_lingering or not is_wanted) and self.loop.time() - self._since_s > LAST_CALL_S:
            self.transport.close()


def _told(cause: BaseException | None) -> GatewayError:
    """What the client is told of an exception in a callback of the parser."""
    if isinstance(cause, Refused):
        return cause.error
    if isinstance(cause, httptools.HttpParserInvalidURLError | UnicodeError):
        return not_http()
    log.error("request_head_crashed", exc_info=cause)
    return InternalError("The gateway failed.")
