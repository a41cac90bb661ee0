"""An OpenAI-compatible server over HTTP/1.1, on a free port of 127.0.0.1: the mock model behind uvicorn.

For:      adapters and gateways that want a real server which does what a `MockSpec` says.

    async with openai_server(MockSpec(tokens=100, chunk_delay_s=0.01)) as server:
        ...  # speak to http://127.0.0.1:{server.port}/v1; server.seen holds what came
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from nexus_gateway.config.runtime import MockSpec
from nexus_gateway.core.errors import UpstreamTruncated
from nexus_gateway.core.mock.faults import error_body
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.base import UpstreamRequest
from nexus_gateway.upstreams.mock import MockReply
from tests.support.watched_mock import WatchedMock

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_ANSWER_BYTES: Final = 1 << 30
PATIENCE_S: Final = 3600.0  # a server knows nothing of its client's deadline


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came, header names in lower case."""

    path: str
    query: bytes
    headers: Mapping[str, str]
    body: bytes


class OpenAIServer:
    """An ASGI application. `cut_bytes`: bodies go out in writes of that size, wherever that cuts them.

    While `is_garbling`, whoever asks gets bytes that are not HTTP.
    """

    def __init__(self, mock: MockSpec, cut_bytes: int | None) -> None:
        self.port = 0
        self.seen: list[Seen] = []
        self.model = WatchedMock(mock)
        self.is_garbling = False
        self._cut_bytes = cut_bytes

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        body = b""
        message = await receive()
        while message["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
            message = await receive()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.seen.append(Seen(scope["path"], scope["query_string"], headers, body))
        await _until_gone(self._answer(self.seen[-1], send), receive)

    async def _answer(self, request: Seen, send: Send) -> None:
        if request.path == "/health":
            await self._send_whole(send, 200, {}, b"")
            return
        operation = next((known for known in Operation if request.path == f"/v1{known.value}"), None)
        if operation is None:
            await self._send_whole(send, 404, {"content-type": "application/json"}, error_body(404, "No such path."))
            return
        reply = await self.model.send(
            UpstreamRequest(
                operation=operation,
                model="",
                body=request.body,
                stream=False,  # the body says what is wanted
                headers=(),
                request_id=request.headers.get("x-request-id", "none"),
                deadline_s=_later(),
            )
        )
        try:
            await self._relay(reply, send)
        finally:
            await reply.aclose()

    async def _relay(self, reply: MockReply, send: Send) -> None:
        if reply.headers["content-type"] == "application/json":
            await self._send_whole(send, reply.status, reply.headers, await reply.read_all(MAX_ANSWER_BYTES))
            return
        await _start(send, reply.status, reply.headers)
        try:
            while piece := await reply.read(_later()):
                await self._send_part(send, piece)
        except UpstreamTruncated:
            return  # the server closes the connection of an answer that has no end
        await send({"type": "http.response.body"})

    async def _send_whole(self, send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
        await _start(send, status, {**headers, "content-length": str(len(body))})
        await self._send_part(send, body)
        await send({"type": "http.response.body"})

    async def _send_part(self, send: Send, piece: bytes) -> None:
        size = self._cut_bytes or max(1, len(piece))
        for at in range(0, len(piece), size):
            await send({"type": "http.response.body", "body": piece[at : at + size], "more_body": True})
            if self._cut_bytes:
                await asyncio.sleep(0)  # or the pieces would leave together


class _Garbling(HttpToolsProtocol):
    """uvicorn's own, unless its server is told otherwise."""

    def __init__(self, application: OpenAIServer, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._application = application

    def data_received(self, data: bytes) -> None:
        if self._application.is_garbling:
            self.transport.write(b"\xff\xfe\x00 this is not HTTP\r\n\r\n")
        else:
            super().data_received(data)


@asynccontextmanager
async def openai_server(
    mock: MockSpec | None = None, *, cut_bytes: int | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[OpenAIServer]:
    """Serves until the block ends; connections that are still open then are cut."""
    app = OpenAIServer(mock or MockSpec(), cut_bytes)
    config = Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: _Garbling(app, config, state), "127.0.0.1", 0, ssl=tls
    )
    app.port = listener.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks)
        await listener.wait_closed()


async def _until_gone(answering: Any, receive: Receive) -> None:
    """Answer, and stop at once when the client leaves."""
    tasks = [asyncio.ensure_future(answering), asyncio.ensure_future(receive())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(ended[0], Exception):
        raise ended[0]


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})


def _later() -> float:
    return asyncio.get_running_loop().time() + PATIENCE_S
