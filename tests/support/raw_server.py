"""A TCP server that does exactly what a test's script says, well behaved or not.

A script is an async function of one accepted connection. When it returns, the connection is closed:

    async def cut_inside_the_head(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 200 O")

    async with RawServer(cut_inside_the_head) as server:
        ...  # speak to 127.0.0.1:server.port; server.peers[0].requests holds what came
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MANY: Final = 2048  # who wait to be accepted: a test with a thousand clients must not wait for their second try
LAST_CHUNK: Final = b"0\r\n\r\n"

Script = Callable[["Peer"], Awaitable[None]]


def plain(body: bytes = b'{"ok":true}', *fields: bytes, status: int = 200) -> bytes:
    """A well-formed answer with a length. `fields` are further header lines."""
    head = [b"HTTP/1.1 %d Whatever" % status, b"content-type: application/json", b"content-length: %d" % len(body)]
    return b"\r\n".join([*head, *fields, b"", body])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answering(*answers: bytes) -> Script:
    """Answers the requests of each connection one after the other, the last answer for all that follow."""

    async def script(peer: "Peer") -> None:
        for answer in answers:
            await peer.receive()
            await peer.send(answer)
        while True:
            await peer.receive()
            await peer.send(answers[-1])

    return script


@contextmanager
def deaf_port(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port where connecting neither succeeds nor fails: nobody accepts, and the queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request as it came, header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Gone(Exception):
    """The client closed the connection. Ends a script quietly."""


class Peer(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, server: "RawServer") -> None:
        self.requests: list[RawRequest] = []
        self.bytes_received = bytearray()  # all there ever were
        self.received = asyncio.Event()  # a whole request came
        self.closed = asyncio.Event()  # the client closed its side, or all of it
        self.written_bytes = 0
        self._server = server
        self._transport: asyncio.Transport
        self._buffer = b""
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def accepted_bytes(self) -> int:
        """How much of what was written has left for the client, or for buffers on the way."""
        return self.written_bytes - self._transport.get_write_buffer_size()

    @property
    def address(self) -> str:
        """Where the client connected to."""
        return cast(str, self._transport.get_extra_info("sockname")[0])

    async def receive(self) -> RawRequest:
        """The next request. Raises Gone."""
        while (request := self._parse()) is None:
            await self._more()
        self.requests.append(request)
        self.received.set()
        return request

    async def receive_head(self) -> None:
        """The next request's head, its body stays where it is. Raises Gone."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client takes nothing. Raises Gone."""
        if self.closed.is_set():
            raise Gone
        self.written_bytes += len(data)
        self._transport.write(data)
        await self._writable.wait()

    def reset(self) -> None:
        """Close the way a crashed process does."""
        raw = cast(socket.socket, self._transport.get_extra_info("socket"))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def pause(self) -> None:
        """Read nothing until `resume`. Closing is not noticed either."""
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def _parse(self) -> RawRequest | None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        start, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        method, target, _ = start.split(" ")
        self._buffer = rest[length:]
        return RawRequest(method, target, headers, rest[:length])

    async def _more(self) -> None:
        if self.closed.is_set():
            raise Gone
        self._news.clear()
        await self._news.wait()

    # ---- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.accept(self)

    def data_received(self, data: bytes) -> None:
        self.bytes_received += data
        self._buffer += data
        self._news.set()

    def eof_received(self) -> bool:
        self.connection_lost(None)
        return self._transport.get_extra_info("sslcontext") is None  # a TLS connection has no half

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._news.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


class RawServer:
    """Runs a script for each connection, on a free port of `host`. Leaving the context raises what a script raised.

    `bound`: the socket to listen on, for servers that come up after somebody was told of their port.
    """

    def __init__(
        self,
        script: Script,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        bound: socket.socket | None = None,
    ) -> None:
        self.port = 0
        self.peers: list[Peer] = []  # in the order they came
        self._script = script
        self._host = host
        self._tls = tls
        self._bound = bound
        self._arrived = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    async def peer(self, number: int) -> Peer:
        """The connection of that number, from 0, once it is there."""
        while len(self.peers) <= number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.peers[number]

    async def all_closed(self) -> None:
        """Until every client has closed its side."""
        for peer in self.peers:
            await peer.closed.wait()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        place = {"host": self._host, "port": 0} if self._bound is None else {"sock": self._bound}
        self._server = await loop.create_server(lambda: Peer(self), ssl=self._tls, **place)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
        for peer in self.peers:
            peer.close()
        await self._server.wait_closed()
        if self._failures and exc is None:
            raise self._failures[0]

    def accept(self, peer: Peer) -> None:
        """Called by a peer that was accepted."""
        self.peers.append(peer)
        self._arrived.set()
        run = asyncio.get_running_loop().create_task(self._run(peer))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)

    async def _run(self, peer: Peer) -> None:
        try:
            await self._script(peer)
        except Gone:
            pass
        except Exception as exc:
            self._failures.append(exc)
        finally:
            peer.close()
