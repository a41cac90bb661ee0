"""The production server in the test's own loop, on a port of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.edge.listener import bind
from nexus_gateway.edge.server import GatewayServer


class QuietServer(GatewayServer):
    """Leaves the test runner's signals alone and says when it listens."""

    def __init__(self, app: Any, timeouts: Timeouts, ops_listen: tuple[str, int] | None) -> None:
        self.listening = asyncio.Event()
        ops_sockets = [] if ops_listen is None else bind(*ops_listen)
        super().__init__(app, bind("127.0.0.1", 0), timeouts, self.listening.set, ops_sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @property
    def port(self) -> int:
        return self.listeners[0].port

    @property
    def ops_port(self) -> int:
        return self.ops_listeners[0].port


@dataclass(frozen=True, slots=True)
class Served:
    server: QuietServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    app: Any, timeouts: Timeouts | None = None, ops_listen: tuple[str, int] | None = None
) -> AsyncIterator[Served]:
    """Serves `app` until the block ends, then shuts down as in production."""
    server = QuietServer(app, timeouts or Timeouts(drain_s=1.0), ops_listen)
    running = asyncio.create_task(server.serve())
    ready = asyncio.create_task(server.listening.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if running.done():
            await running  # tells why it did not start
        yield Served(server, server.port)
    finally:
        ready.cancel()
        if not server.should_exit:
            server.stop()
        await running
