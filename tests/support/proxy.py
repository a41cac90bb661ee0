"""An HTTP proxy on a free port of 127.0.0.1: carries CONNECT, passes on what names its server in full.

For:      adapters that are told to go through one. It keeps what it was asked, and reads nothing of what it carries.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from .raw_server import RawRequest


class Proxy:
    """`requests`: as they came, bodies left out. `wanted`: the credential without which the answer is 407.

    `says` stands in for the answer to CONNECT. Every name leads to 127.0.0.1, as no resolver is asked.
    """

    def __init__(self, wanted: str | None, says: bytes | None) -> None:
        self.port = 0
        self.requests: list[RawRequest] = []
        self._wanted = wanted
        self._says = says
        self._running: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self._running.discard(task)

    async def aclose(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = start.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.requests.append(RawRequest(method, target, headers, b""))
        if self._wanted is not None and headers.get("proxy-authorization") != self._wanted:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            await reader.read()
            return
        connecting = method == "CONNECT"
        if connecting and self._says is not None:
            writer.write(self._says)
            await reader.read()
            return
        port = int(target.rpartition(":")[2]) if connecting else urlsplit(target).port
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if connecting:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                there_writer.write(head)
            await self._carry((reader, there_writer), (there_reader, writer))
        finally:
            there_writer.transport.abort()

    async def _carry(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Both ways, until one of them ends."""
        tasks = [asyncio.ensure_future(_pour(*way)) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()


@asynccontextmanager
async def proxy(*, wanted: str | None = None, says: bytes | None = None) -> AsyncIterator[Proxy]:
    """Serves until the block ends; what it carries then is cut."""
    serving = Proxy(wanted, says)
    server = await asyncio.start_server(serving.accept, "127.0.0.1", 0)
    serving.port = server.sockets[0].getsockname()[1]
    try:
        yield serving
    finally:
        server.close()
        await serving.aclose()
        await server.wait_closed()
