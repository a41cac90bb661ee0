"""uvicorn's server with a clean end: not ready at once, nothing new after a while, everything begun is finished.

For:      `nexus-gateway serve` and tests that want the production server in their own loop.
Touches:  signals, the listening sockets, every client connection.

| phase of a shutdown | new connections | requests | answers |
|---|---|---|---|
| drain delay | accepted | served | `connection: close` |
| drain | those in the queue are accepted, then refused | those under way go on | `connection: close` |
| drain limit | refused | cancelled: 503, or an error event in a stream | |

A second signal ends it at once.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.core.outbox import Outbox

from .asgi import DataPlane
from .connection import Serving
from .listener import Listener
from .protocol import GatewayProtocol

SWEEP_S: Final = 1.0  # how often connections are looked at; sooner where a deadline is short
LAST_WORDS_S: Final = 1.0  # for error events after the drain limit
POLL_S: Final = 0.02  # while shutting down
DATE_S: Final = 1.0  # how old the date header may be


class GatewayServer(uvicorn.Server):
    """Holds what its connections share: the deadlines, and whether it is going away.

    `sockets` are listened on once the application is open, `ops_sockets` for operators; `when_ready` is called when
    they are.
    """

    for_operators = False

    def __init__(
        self,
        app: Any,
        sockets: list[socket.socket],
        timeouts: Timeouts,
        when_ready: Callable[[], None] = lambda: None,
        ops_sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.timeouts = timeouts
        self.draining = False
        self.listeners: list[Listener] = []
        self.outbox: Outbox
        self.ops_listeners: list[Listener] = []
        self._app = app
        self._sockets = sockets
        self._ops_sockets = ops_sockets
        self._when_ready = when_ready
        self._connections: set[GatewayProtocol]
        self._sweeper: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                loop="uvloop",
                lifespan="on",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                log_config=None,
            )
        )
        self._connections = self.server_state.connections  # type: ignore[assignment]  # `_make_protocol` fills it

    @property
    def data_plane(self) -> DataPlane | None:
        return getattr(self._app, "data_plane", None)

    def stop(self) -> None:
        """Begin to shut down; the second call ends it now."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._stopping.set()

    # ---- what uvicorn's server calls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await self._unless_forced(self.lifespan.startup())
        self.outbox = getattr(self._app, "outbox", None) or Outbox(self._loop.call_soon)
        if self.force_exit or self.lifespan.should_exit:
            self.should_exit = True
            for opened in (*self._sockets, *self._ops_sockets):
                opened.close()
            return
        self.listeners = [Listener(opened, lambda: self._make_protocol(self)) for opened in self._sockets]
        apart = ForOperators(self)
        self.ops_listeners = [Listener(opened, lambda: self._make_protocol(apart)) for opened in self._ops_sockets]
        self._sweep()
        self.started = True
        self._when_ready()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # which renews the date
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_S):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.draining = True
        for connection in self._connections:
            connection.retire()
        await self._wait(self.timeouts.drain_delay_s)
        for listener in self.listeners:
            await listener.aclose()
        await self._wait(self.timeouts.drain_s, self._is_idle)
        if not self._is_idle():
            for task in list(self.server_state.tasks):
                task.cancel("drain limit")
            await self._wait(LAST_WORDS_S, self._is_idle)
        for listener in self.ops_listeners:  # only now: how the end goes is worth a look
            await listener.aclose()
        for connection in list(self._connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._unless_forced(self.lifespan.shutdown())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self.stop)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, does not end the process by the signal that it was asked to stop with."""
        self._loop = asyncio.get_running_loop()
        previous = {sig: signal.signal(sig, self.handle_exit) for sig in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)

    # ---- connections

    def _make_protocol(self, serving: Serving) -> GatewayProtocol:
        return GatewayProtocol(serving, self.config, self.server_state, self.lifespan.state, self._loop)

    def _sweep(self) -> None:
        every_s = min(SWEEP_S, self.timeouts.head_s / 4, self.timeouts.body_s / 4, self.timeouts.write_s / 4)
        self._sweeper = self._loop.call_later(every_s, self._sweep)
        now_s = self._loop.time()
        for connection in list(self._connections):
            connection.sweep(now_s)

    # ---- shutting down

    def _is_idle(self) -> bool:
        """Whether nobody is being served. Connections that wait for a request are told to go."""
        for connection in list(self._connections):
            connection.shutdown()
        return not (self._connections or self.server_state.tasks)

    async def _wait(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        deadline_s = self._loop.time() + seconds
        while not (self.force_exit or is_over()):
            left_s = deadline_s - self._loop.time()
            if left_s <= 0:
                return
            await asyncio.sleep(min(POLL_S, left_s))

    async def _unless_forced(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name="lifespan")
        while not (self.force_exit or task.done()):
            await asyncio.wait({task}, timeout=POLL_S)
        task.cancel()


class ForOperators:
    """The same server to connections on the operators' port: there is no data plane behind it."""

    for_operators = True
    data_plane = None

    def __init__(self, server: GatewayServer) -> None:
        self._server = server

    @property
    def timeouts(self) -> Timeouts:
        return self._server.timeouts

    @property
    def draining(self) -> bool:
        return self._server.draining

    @property
    def outbox(self) -> Outbox:
        return self._server.outbox
