"""The production server in the test's own loop, on a port of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.edge.server import GatewayServer


class QuietServer(GatewayServer):
    """Leaves the test runner's signals alone and says when it listens."""

    def __init__(self, app: Any, timeouts: Timeouts) -> None:
        super().__init__(app, host="127.0.0.1", port=0, timeouts=timeouts, log_config=None)
        self.listening = asyncio.Event()

    def capture_signals(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Served:
    server: QuietServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(app: Any, timeouts: Timeouts | None = None) -> AsyncIterator[Served]:
    """Serves `app` until the block ends, then shuts down as in production."""
    server = QuietServer(app, timeouts or Timeouts(drain_s=1.0))
    running = asyncio.create_task(server.serve())
    ready = asyncio.create_task(server.listening.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if running.done():
            await running  # tells why it did not start
        yield Served(server, server.port)
    finally:
        ready.cancel()
        server.should_exit = True
        await running
