"""A model server that costs next to nothing: it looks at each body for two words and answers from prepared bytes.

For:      `python -m bench.upstream`, which prints its port and serves until its stdin ends.
Touches:  one listening socket on loopback.

The answer bears the tag of the request, so that the load notices an answer that belongs to somebody else.
"""

import asyncio
import contextlib
import sys
from typing import Final, cast

import httptools
import uvloop

TAG: Final = b"tag-00000000"  # what the prepared bytes hold in the place of a request's own tag
EVENTS: Final = 50
EVENT_EVERY_S: Final = 0.01

_TEXT: Final = b"Grey tower, and a gate that lets through what belongs together. " * 5
ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"bench","system_fingerprint":"%b",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"%b"},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":180,"completion_tokens":64,"total_tokens":244}}' % (TAG, _TEXT)
)
PLAIN: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)
STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(delta: bytes, finish_reason: bytes = b"null") -> bytes:
    return (
        b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"bench",'
        b'"system_fingerprint":"%b","choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]}'
        % (TAG, delta, finish_reason)
    )


def _event(chunk: bytes) -> bytes:
    event = b"data: %b\n\n" % chunk
    return b"%x\r\n%b\r\n" % (len(event), event)


PIECE_CHUNK: Final = _chunk(b'"content":" and so on"')
LAST_CHUNK: Final = _chunk(b"", b'"stop"')
PIECE: Final = _event(PIECE_CHUNK)
END: Final = _event(LAST_CHUNK) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._body = b""
        self._next_event: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._next_event is not None:
            self._next_event.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, b""
        start = body.find(b"tag-")
        tag = body[start : start + len(TAG)]
        if b'"stream":true' not in body:
            self._transport.write(PLAIN.replace(TAG, tag))
            return
        self._transport.write(STREAM_HEAD)
        self._send_events(PIECE.replace(TAG, tag), END.replace(TAG, tag), 1, self._loop.time())

    def _send_events(self, piece: bytes, end: bytes, number: int, began_s: float) -> None:
        if number == EVENTS:
            self._transport.write(end)
            return
        self._transport.write(piece)
        self._next_event = self._loop.call_at(
            began_s + number * EVENT_EVERY_S, self._send_events, piece, end, number + 1, began_s
        )


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())
