"""uvicorn's server with a clean end: not ready at once, nothing new after a while, everything begun is finished.

For:      `nexus-gateway serve` and tests that want the production server in their own loop.
Touches:  signals, the listening socket, every client connection.

| phase of a shutdown | new connections | requests | answers |
|---|---|---|---|
| drain delay | accepted | served | `connection: close` |
| drain | refused | those under way go on | `connection: close` |
| drain limit | refused | cancelled: 503, or an error event in a stream | |

A second signal ends it at once. The process's exit status is 0 unless it came to that.
"""

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from nexus_gateway.config.runtime import Timeouts

from .asgi import DataPlane
from .protocol import GatewayProtocol

SWEEP_S: Final = 0.25  # how often connections are looked at; sooner where a deadline is short
LAST_WORDS_S: Final = 1.0  # for error events after the drain limit
POLL_S: Final = 0.02


class GatewayServer(uvicorn.Server):
    """Holds what its connections share: the deadlines, and whether it is going away."""

    def __init__(
        self, app: Any, *, host: str, port: int, timeouts: Timeouts, log_config: dict[str, Any] | None
    ) -> None:
        self.timeouts = timeouts
        self.draining = False
        self._app = app
        self._sweeper: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=functools.partial(GatewayProtocol, self),  # type: ignore[arg-type]  # makes a protocol, as a class would
                ws="none",
                loop="uvloop",
                lifespan="on",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                log_config=log_config,
            )
        )

    @property
    def data_plane(self) -> DataPlane | None:
        return getattr(self._app, "data_plane", None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep(), name="sweeper")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.draining = True
        await self._wait(self.timeouts.drain_delay_s, lambda: False)
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        await self._wait(self.timeouts.drain_s, self._is_idle)
        if not self._is_idle():
            for task in self.server_state.tasks:
                task.cancel("drain limit")
            await self._wait(LAST_WORDS_S, self._is_idle)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, does not end the process by the signal that it was asked to stop with."""
        previous = {sig: signal.signal(sig, self.handle_exit) for sig in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)

    def _is_idle(self) -> bool:
        """Whether nobody is being served. Connections that wait for a request are told to go."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        return not (self.server_state.connections or self.server_state.tasks)

    async def _wait(self, seconds: float, is_over: Any) -> None:
        deadline_s = asyncio.get_running_loop().time() + seconds
        while not (self.force_exit or is_over()):
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            await asyncio.sleep(min(POLL_S, left_s))

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        every_s = min(SWEEP_S, self.timeouts.head_s / 4, self.timeouts.body_s / 4)
        while True:
            await asyncio.sleep(every_s)
            now_s = loop.time()
            for connection in list(self.server_state.connections):
                connection.sweep(now_s)  # type: ignore[union-attr]  # all of them are GatewayProtocol
