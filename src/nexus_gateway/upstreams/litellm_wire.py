"""The wire below LiteLLM: every HTTP request that it makes for an attempt goes out through here.

For:      knowing what a provider really answered, whatever the library makes of it; headers and bounds that are the
          gateway's own; an attempt that is over when it is said to be.
Touches:  the connections of its upstream.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, Final

import httpx
import msgspec

from nexus_gateway import __version__
from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamDnsError,
    UpstreamError,
    UpstreamInvalidResponse,
)
from nexus_gateway.core.sse import MAX_EVENT_BYTES

from .base import UpstreamRequest, select_headers
from .litellm_network import Connections
from .replies import too_large, truncated

MAX_REFUSAL_BYTES: Final = 1 << 20  # of an error's body
LINGER_S: Final = 1.0  # for the end of a stream that said [DONE], and that nobody waits for any more
LINGER_BYTES: Final = 4 << 10
OWN_AGENT: Final = f"nexus-gateway/{__version__}"

_LIBRARY_AGENTS: Final = ("AsyncOpenAI/", "AsyncAzureOpenAI/", "litellm/", "python-httpx/")
_SDK: Final = "x-stainless-"  # by which OpenAI's client tells its maker about the machine
_TOLD: Final = ("content-type", "retry-after", "x-request-id", "openai-processing-ms")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")  # RFC 9110, 5.5


class _Sent(msgspec.Struct, gc=False):
    stream: bool | None = None
    tools: list[msgspec.Raw] | None = None


_decode_sent: Final = msgspec.json.Decoder(_Sent).decode

current_wire: Final[ContextVar["Wire"]] = ContextVar("current_wire")
"""Of the attempt that a task works for: how the library's clients, which are its own, come back to the attempt."""


class Below(httpx.AsyncBaseTransport):
    """What stands in the place of a network in every client of the library's. Holds nothing."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await current_wire.get().exchange(request)


class Wire:
    """The HTTP exchange of one attempt, as it was. `kept` is the body of an answer in OpenAI's own words.

    Providers are asked by POST. What the library GETs besides, such as an image to send on, does not count.
    `speaks_openai`: the provider is known to. `has_tools`: the caller names some.
    """

    def __init__(
        self, network: Connections, request: UpstreamRequest, *, speaks_openai: bool = False, has_tools: bool = False
    ) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.kept = bytearray()
        self.answer: Body | None = None  # of a 2xx
        self.failure: UpstreamError | None = None
        self.is_openai = False  # what was asked is in OpenAI's words, and so will be the answer
        self.is_over = False  # nobody waits any more
        self.at_work = 0  # how many of the library's calls wait for the network
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The library is about to read a stream that it need not read: `Body.is_relayed`."""
        self.name = network.name
        self._network = network
        self.is_stream = request.stream
        self._path = request.operation.value
        self._speaks_openai = speaks_openai
        self._has_tools = has_tools
        self._headers = _travelling(request, network.forwarded)

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx.HTTPError, which the library knows. Once an exchange has failed, there is no other."""
        if self.is_over or self.failure is not None or (self.status or 200) >= 300:
            raise httpx.ConnectError("This attempt is over.", request=request)
        counts = request.method == "POST"
        self.at_work += 1
        try:
            response = await self._network.ask(self._dressed(request, counts))
        except httpx.HTTPError as exc:
            if counts:
                self.failure = self._why(exc)
            raise
        finally:
            self.at_work -= 1
        body = Body(self, response, None if self.is_stream and counts else self._network.max_answer_bytes, counts)
        if response.headers.get("content-encoding", "identity") != "identity":
            if counts:
                self.failure = self._invalid("an encoding that nobody asked for")
            await body.abort()
            raise httpx.DecodingError("An encoding that nobody asked for.", request=request)
        if not counts:
            return _like(response, request, stream=body)
        self.status = response.status_code
        self.headers = {name: response.headers[name] for name in _TOLD if name in response.headers}
        if response.is_success:
            self.answer = body
            return _like(response, request, stream=body)
        self.kept = bytearray(await body.refusal())
        return _like(response, request, content=bytes(self.kept))

    def _dressed(self, request: httpx.Request, counts: bool) -> httpx.Request:
        """As it goes out. The library's own stays as it is: it looks there for what it meant."""
        headers = httpx.Headers([pair for pair in request.headers.multi_items() if not pair[0].startswith(_SDK)])
        self.is_openai = counts and self._is_in_openais_words(request, by_sdk=len(headers) < len(request.headers))
        headers["accept-encoding"] = "identity"
        if headers.get("user-agent", "").startswith(_LIBRARY_AGENTS):
            headers["user-agent"] = OWN_AGENT
        if counts:
            headers.update(self._headers)
        extensions = request.extensions  # such as the name that a certificate must bear
        return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)

    def _is_in_openais_words(self, request: httpx.Request, *, by_sdk: bool) -> bool:
        """Unless the library plays something that the provider cannot do: it asks for less, or by a tool of its own."""
        if not (by_sdk or self._speaks_openai) or not request.url.path.endswith(self._path):
            return False
        try:
            sent = _decode_sent(request.content)
        except msgspec.DecodeError:
            return False
        return bool(sent.stream) is self.is_stream and bool(sent.tools) is self._has_tools

    def _why(self, exc: httpx.HTTPError) -> UpstreamError:
        if isinstance(exc, httpx.RemoteProtocolError) and "without sending" not in str(exc):
            return self._invalid("what is not HTTP")
        if any(isinstance(cause, socket.gaierror) for cause in causes(exc)):
            return UpstreamDnsError(f"The host of upstream '{self.name}' was not found.", upstream=self.name)
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return UpstreamConnectError(f"Upstream '{self.name}' could not be reached.", upstream=self.name)
        what = f"Upstream '{self.name}' closed the connection without an answer."
        return UpstreamConnectError(what, upstream=self.name)

    def _invalid(self, what: str) -> UpstreamInvalidResponse:
        return UpstreamInvalidResponse(f"Upstream '{self.name}' sent {what}.", upstream=self.name, status=self.status)


class Body(httpx.AsyncByteStream):
    """The body of an answer, read by the library or, where that has nothing to translate, by us alone.

    `limit_bytes` None: of any length. Whatever ends it early closes its connection; read to its end it gives it back.
    """

    def __init__(self, wire: Wire, response: httpx.Response, limit_bytes: int | None, counts: bool) -> None:
        self.is_whole = False
        events = response.headers.get("content-type", "").startswith("text/event-stream")
        self.is_relayed = counts and wire.is_openai and wire.is_stream and events
        self._wire = wire
        self._counts = counts
        self._keeps = counts and wire.is_openai and not wire.is_stream
        self._response = response
        stream: Any = response.stream
        self._pieces: AsyncIterator[bytes] = aiter(stream)
        self._limit_bytes = limit_bytes
        self._size = 0
        self._line_bytes = 0
        self._is_cut = False

    # ---- for the library

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        if self.is_relayed:
            if not self._wire.reached.done():
                self._wire.reached.set_result(None)
            await asyncio.Future()  # whoever relays it cancels this
        piece = await self.next()
        if not piece:
            raise StopAsyncIteration
        if self._keeps:
            self._wire.kept += piece
        return piece

    async def aclose(self) -> None:
        if not self.is_relayed:
            await self.abort()

    # ---- for us

    async def next(self) -> bytes:
        """What comes next; `b""` at the end. Raises httpx.HTTPError, with the reason in `wire.failure`."""
        if self.is_whole:
            return b""
        if self._is_cut:
            raise httpx.ReadError("The answer was cut.")
        self._is_cut, wire = True, self._wire  # as it stands when this is cancelled
        wire.at_work += 1
        try:
            piece = await anext(self._pieces, b"")
        except httpx.HTTPError:
            self._fail(truncated)
            raise
        finally:
            wire.at_work -= 1
        self._is_cut = False
        if not piece:
            self.is_whole = True
            await self._response.aclose()
        elif self._is_too_large(piece):
            self._fail(too_large)
            await self.abort()
            raise httpx.ReadError("The answer is too large.")
        return piece

    async def refusal(self) -> bytes:
        """The beginning of an error's body."""
        pieces: list[bytes] = []
        while sum(map(len, pieces)) < MAX_REFUSAL_BYTES and (piece := await self.next()):
            pieces.append(piece)
        await self.abort()
        return b"".join(pieces)

    async def finish(self) -> None:
        """Wait a moment for the end that is due, to keep the connection; else cut it."""
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(LINGER_S):
                left_bytes = LINGER_BYTES
                while left_bytes > 0 and (piece := await self.next()):
                    left_bytes -= len(piece)
        await self.abort()

    async def abort(self) -> None:
        """Close the connection, unless the answer is all there or was cut before."""
        if self.is_whole or self._is_cut:
            return
        await self._response.extensions["network_stream"].aclose()
        with contextlib.suppress(httpx.HTTPError):  # so every generator between here and there comes to its end
            while await anext(self._pieces, b""):
                pass
        self._is_cut = True
        await self._response.aclose()

    def _fail(self, why: Callable[[str], UpstreamError]) -> None:
        if self._counts and self._wire.failure is None:
            self._wire.failure = why(self._wire.name)

    def _is_too_large(self, piece: bytes) -> bool:
        self._size += len(piece)
        if self._limit_bytes is not None:
            return self._size > self._limit_bytes
        at = piece.rfind(b"\n")
        self._line_bytes = self._line_bytes + len(piece) if at < 0 else len(piece) - at
        return self._line_bytes > MAX_EVENT_BYTES


def causes(exc: BaseException) -> list[BaseException]:
    """The exception and what led to it, the first cause last."""
    chain: list[BaseException] = []
    found: BaseException | None = exc
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or found.__context__
    return chain


def _like(response: httpx.Response, request: httpx.Request, **body: Any) -> httpx.Response:
    return httpx.Response(response.status_code, headers=response.headers, request=request, **body)


def _travelling(request: UpstreamRequest, allowed: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """What goes out with every request: its id, and the caller's headers that may, unless one would not be a value."""
    own = (b"x-request-id", request.request_id.encode())
    return [own, *(pair for pair in select_headers(request.headers, allowed) if _VALUE.fullmatch(pair[1]))]
