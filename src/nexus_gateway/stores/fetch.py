"""Gets one small document over HTTP, slowly or not at all if the server is so minded, but within bounds.

For:      keys that an issuer publishes. Inference goes another way: `upstreams/`.
Touches:  the network. No redirect is followed, nothing is kept open, no proxy is asked.
"""

import asyncio
import ssl
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httptools

FETCH_S: Final = 5.0  # from the look-up of the name to the last byte
MAX_BYTES: Final = 256 << 10  # head and body; a set of a hundred keys is about 50 KiB
_READ_BYTES: Final = 16 << 10


class FetchFailed(Exception):
    """The text names the cause and repeats nothing that was received."""


class _Document:
    """What httptools tells of the answer."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.is_framed = False  # says where it ends; otherwise the end of the connection does

    def on_header(self, name: bytes, _value: bytes) -> None:
        self.is_framed |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_complete = True


async def fetch(url: str, timeout_s: float = FETCH_S) -> bytes:
    """The body of a 200. Raises FetchFailed, and nothing else."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _fetch(urlsplit(url))
    except TimeoutError:
        raise FetchFailed("too slow") from None
    except (OSError, UnicodeError, httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
        raise FetchFailed(type(exc).__name__) from exc


async def _fetch(url: SplitResult) -> bytes:
    context = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (80 if context is None else 443)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
    try:
        writer.write(_request(url))
        return await _read(reader)
    finally:
        writer.transport.abort()


def _request(url: SplitResult) -> bytes:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"GET {target} HTTP/1.1", f"host: {url.netloc}", "accept: application/json", "connection: close"]
    return "\r\n".join([*lines, "user-agent: nexus-gateway", "", ""]).encode("ascii")


async def _read(reader: asyncio.StreamReader) -> bytes:
    document = _Document()
    parser = httptools.HttpResponseParser(document)
    received = 0
    while not document.is_complete:
        data = await reader.read(_READ_BYTES)
        if not data:
            break
        received += len(data)
        if received > MAX_BYTES:
            raise FetchFailed(f"more than {MAX_BYTES} bytes")
        parser.feed_data(data)
    status = parser.get_status_code()
    if status != 200:
        raise FetchFailed(f"status {status}" if status else "no answer")
    if not document.is_complete and document.is_framed:
        raise FetchFailed("cut")
    return b"".join(document.pieces)
