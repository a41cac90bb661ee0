"""A way through an HTTP proxy to a server behind it, by CONNECT (RFC 9110, 9.3.6).

For:      connections that the proxy may only carry, not read: those with TLS.
Touches:  one transport, which is handed on as soon as the proxy has said yes.
"""

import asyncio
import re
from typing import Final, cast

from nexus_gateway.config.runtime import ProxySpec

MAX_HEAD_BYTES: Final = 16 << 10

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r\n)")


class ProxyRefused(Exception):
    """The proxy answered, and not with a way through. `status` is None when that was not HTTP."""

    def __init__(self, status: int | None) -> None:
        super().__init__()
        self.status = status


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect_request(host: str, port: int, proxy: ProxySpec) -> bytes:
    """Asks the proxy for a way to the server."""
    target = authority(host, port)
    credential = "" if proxy.authorization is None else f"proxy-authorization: {proxy.authorization}\r\n"
    return f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{credential}\r\n".encode("ascii")


async def open_tunnel(loop: asyncio.AbstractEventLoop, address: str, port: int, request: bytes) -> asyncio.Transport:
    """A transport whose other end is the server. Raises OSError and ProxyRefused."""
    asking = _Asking(loop)
    transport, _ = await loop.create_connection(lambda: asking, address, port)
    try:
        transport.write(request)
        await asking.answer
    except BaseException:
        transport.abort()
        raise
    return transport


class _Asking(asyncio.Protocol):
    """`answer` is done when the proxy has opened the way. It holds its tongue then, as the server speaks second."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer = loop.create_future()
        self._transport: asyncio.Transport
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, surplus = self._head.partition(b"\r\n\r\n")
        if self.answer.done() or not (end or len(self._head) > MAX_HEAD_BYTES):
            return
        found = _STATUS.match(head + b"\r\n")
        status = int(found[1]) if found is not None and end else None
        if status is not None and 200 <= status < 300 and not surplus:
            self._transport.pause_reading()  # what comes next is for whoever speaks TLS
            self.answer.set_result(None)
        else:
            self.answer.set_exception(ProxyRefused(status))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError("the proxy hung up"))
