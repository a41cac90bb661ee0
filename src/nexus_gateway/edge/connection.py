"""A client's connection, apart from what is said on it: who leaves, and who does not take the answer.

For:      our protocol.
Touches:  the transport, and the task that answers.

A request for inference whose caller has left has its task cancelled, so that the exchange needs no watcher.
"""

import asyncio
import socket
import struct
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.core.outbox import Outbox, Outgoing

from .asgi import DataPlane
from .direct import DirectWire
from .usual import AsgiAnswer, Outlet

WRITE_BUFFER_BYTES: Final = 64 << 10  # per connection, before the application has to wait for the caller
NO_LINGER: Final = struct.pack("ii", 1, 0)

Cycle = AsgiAnswer | DirectWire


class Serving(Protocol):
    """What a connection knows of its server. `data_plane` is None while the application is not open, and always on the
    port for operators."""

    @property
    def timeouts(self) -> Timeouts: ...

    @property
    def draining(self) -> bool: ...

    @property
    def for_operators(self) -> bool: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def data_plane(self) -> DataPlane | None: ...


class Connection(HttpToolsProtocol):
    """Knows the request that is being answered; which requests there are is its subclass's business."""

    cycle: Cycle  # type: ignore[assignment]  # of the request read last; `_running` may still be an earlier one

    def __init__(self, serving: Serving, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._serving = serving
        self._running: Cycle | None = None
        self._task: asyncio.Task[None] | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        super().connection_made(cast(asyncio.Transport, Outgoing(transport, self._serving.outbox)))
        self._outlet = Outlet(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_write_timer()
        self._abandon()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """A client that half-closes counts as gone: before the first byte of an answer the two look alike."""
        cast(Outgoing, self.transport).release()  # what was written before; the loop closes its transport behind us
        self._abandon()

    def _abandon(self) -> None:
        """Nobody waits for the answers any more: the running one ends, those queued behind it do not begin."""
        running, self._running = self._running, None
        self.pipeline.clear()
        if running is None:
            return
        running.disconnected = True
        running.message_event.set()
        if isinstance(running, DirectWire) and self._task is not None:
            running.gone = True
            self._task.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _watch_writing(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._serving.timeouts.write_s, self._judge_reader)

    def _judge_reader(self) -> None:
        """A caller who took a buffer's worth of a long answer is slow; one who took less holds it up."""
        if self._unsent_bytes - self.transport.get_write_buffer_size() >= WRITE_BUFFER_BYTES:
            self._watch_writing()
        else:
            self._cut()

    def _cut(self) -> None:
        """Close by a reset: to an old client any other end is that of the answer."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
