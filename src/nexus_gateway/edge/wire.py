"""How an exchange talks to its caller, whatever server lies below.

For:      one small seam: read a body, send a whole answer, send a stream. Our own protocol implements it directly;
          `AsgiWire` does for any other ASGI server.
Touches:  the server, by `receive` and `send`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]


class ClientGone(Exception):  # no error: nobody is there to be told
    """The caller left while its body was being read."""


class TooMuch(Exception):  # the exchange knows what to tell the caller
    """The body is over the limit."""


class Wire(Protocol):
    """One request's way to its caller.

    A caller who leaves cancels the task of its exchange; `gone` tells that from a shutdown, which cancels too.
    `client` is the address at the other end of the connection, if it has one.
    """

    gone: bool
    client: str | None

    async def read_body(self, limit_bytes: int) -> bytes:
        """The whole body. Raises TooMuch after at most the limit was read, ClientGone if it will not come.

        Under our own server also what is wrong with it: RequestTooSlow, MalformedRequest, HeadTooLarge.
        """
        ...

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send everything at once."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Begin a stream; the head may go out with the first piece."""
        ...

    async def write(self, piece: bytes) -> None:
        """Send a piece. Waits while the caller takes none."""
        ...

    async def finish(self, piece: bytes) -> None:
        """Send the last piece and end the answer."""
        ...


class AsgiWire:
    """A Wire over ASGI. `until_gone` is for a watcher: the server itself does not tell who waits elsewhere."""

    def __init__(self, receive: Receive, send: Send, client: str | None = None) -> None:
        self.gone = False
        self.client = client
        self._receive = receive
        self._send = send
        self._body_read = asyncio.Event()

    async def read_body(self, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit_bytes:
                raise TooMuch
            more = message.get("more_body", False)
        self._body_read.set()
        return b"".join(pieces)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, headers)
        await self.finish(body)

    async def start(self, status: int, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def finish(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece})

    async def until_gone(self, exchange: asyncio.Task[None]) -> None:
        """Cancel the exchange when its caller leaves."""
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        exchange.cancel()
