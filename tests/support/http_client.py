"""A client that speaks just enough HTTP/1.1 and can behave badly: leave early, read slowly, send garbage."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from .gateway import KEY

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True, slots=True)
class Received:
    """A whole answer, chunks joined; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of each event but `[DONE]`."""
        lines = [line[6:] for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


class Caller:
    """One connection to a gateway on this machine. `usual` is what it asks when it is not told what."""

    usual: ClassVar[Mapping[str, Any]] = CHAT

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self._raw: socket.socket
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        raw = socket.socket()
        if self._receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        raw.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        except OSError:
            raw.close()
            raise
        limit = self._receive_buffer or 1 << 20
        self._raw = raw
        self._reader, self._writer = await asyncio.open_connection(sock=raw, limit=limit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def half_close(self, *, at_once: bool = False) -> None:
        """Send nothing more, but read on. `at_once`: not in the loop's next turn."""
        if at_once:
            self._raw.shutdown(socket.SHUT_WR)
        else:
            self._writer.write_eof()

    def leave(self, *, reset: bool = False) -> None:
        if reset:
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def ask(
        self, *, stream: bool = False, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        path: str = "/v1/chat/completions",
    ) -> None:  # fmt: skip
        if body is None:
            body = json.dumps({**self.usual, "stream": True} if stream else self.usual).encode()
        fields = {"host": "gateway", "content-type": "application/json", "x-api-key": KEY, **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.send(f"POST {path} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def read_until(self, mark: bytes) -> bytes:
        return await self._reader.readuntil(mark)

    async def receive(self) -> Received:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([piece async for piece in self._chunks()])
        else:
            body = await self._reader.readexactly(int(headers["content-length"]))
        return Received(int(start.split(" ")[1]), headers, body)

    async def read(self, most: int) -> bytes:
        return await self._reader.read(most)

    async def read_to_end(self) -> bytes:
        """All bytes until the gateway closes."""
        return await self._reader.read(-1)

    async def _chunks(self) -> Any:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)


async def chat(
    port: int, *, stream: bool = False, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Received:
    """One chat request on a connection of its own."""
    async with Caller(port) as caller:
        await caller.ask(stream=stream, body=body, headers=headers)
        return await caller.receive()
