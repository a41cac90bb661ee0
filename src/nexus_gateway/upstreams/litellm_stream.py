"""The streams that come out of LiteLLM: relayed from the wire, or translated chunk by chunk.

For:      one reply over both, in the shape of `base.Reply`.
Touches:  the wire; a task for each translated stream, which its upstream waits for when it closes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from typing import Any, Final, Protocol

import httpx

from nexus_gateway.core.errors import UpstreamError, UpstreamInvalidResponse

from .litellm_call import Failure, Tasks, context_of
from .litellm_wire import Body, Wire
from .litellm_words import event, unreadable, usage_event
from .replies import joined, late, truncated

EVENTS_AHEAD: Final = 16  # of a translated stream, that wait to be taken
DONE: Final = b"data: [DONE]\n\n"
TERMINATORS: Final = (b"data: [DONE]", b"data:[DONE]")
TAIL_BYTES: Final = 32  # holds a terminator and the line ends after it


class Source(Protocol):
    """Where the bytes of a stream come from."""

    async def next(self) -> bytes:
        """`b""` at the end. Raises UpstreamError. Once it is cancelled there is nothing more to come."""
        ...

    def cut(self) -> None:
        """Its upstream is being closed: what is under way on its own account ends."""
        ...

    async def finish(self, is_due: bool) -> None:
        """Give everything back. `is_due`: the end is, within a moment."""
        ...


class Relayed:
    """The wire itself, of a provider that speaks OpenAI's words."""

    def __init__(self, body: Body, wire: Wire) -> None:
        self._body = body
        self._wire = wire

    async def next(self) -> bytes:
        try:
            return await self._body.next()
        except httpx.HTTPError as exc:
            raise self._wire.failure or truncated(self._wire.name) from exc

    def cut(self) -> None:
        """The connection ends with the upstream's network."""

    async def finish(self, is_due: bool) -> None:
        await (self._body.finish() if is_due else self._body.abort())


class Translated:
    """Chunks as the library makes them of another provider's, each an event; then the usage, if it was asked for.

    `first` was taken from the stream before.
    """

    def __init__(self, stream: Any, first: Any, wire: Wire, tasks: Tasks, *, wants_usage: bool) -> None:
        self._stream = stream
        self._wire = wire
        self._wants_usage = wants_usage
        self._usage: Any = None
        self._ready: deque[bytes] = deque()
        self._came = asyncio.Event()
        self._taken = asyncio.Event()
        self._task = tasks.start(self._pump(first), f"litellm stream {wire.name}", context_of(wire))
        self._task.add_done_callback(lambda _: self._came.set())

    async def next(self) -> bytes:
        while not self._ready:
            if self._task.done():
                return self._end()
            self._came.clear()
            await self._came.wait()
        self._taken.set()
        return self._ready.popleft()

    def cut(self) -> None:
        self._task.cancel()

    async def finish(self, is_due: bool) -> None:
        self._wire.is_over = True
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._wire.answer is not None:
            await self._wire.answer.abort()

    async def _pump(self, first: Any) -> None:
        stream, chunk = self._stream, first
        if first is not None:
            await self._say(first)
        while not getattr(stream, "sent_last_chunk", False):  # what it would do after that is its logging
            following = await anext(stream, None)
            if following is None:
                break
            chunk = following
            await self._say(chunk)
        usage = await self._find_usage()
        if self._wants_usage and usage is not None and usage.total_tokens:
            await self._put(usage_event(chunk, usage))
        await self._put(DONE)

    async def _say(self, chunk: Any) -> None:
        if self._is_made_up():
            raise self._wire.failure or truncated(self._wire.name)
        self._usage = getattr(chunk, "usage", None) or self._usage
        if chunk.choices:
            await self._put(event(chunk))

    async def _find_usage(self) -> Any:
        """Told with a chunk, kept by the library, or still to come: some providers tell it last."""
        rest = getattr(self._stream, "completion_stream", None)
        if isinstance(rest, AsyncIterable):
            async for chunk in rest:
                self._usage = getattr(chunk, "usage", None) or self._usage
        kept = (getattr(chunk, "usage", None) for chunk in reversed(getattr(self._stream, "chunks", ())))
        return self._usage or next(filter(None, kept), None)

    def _is_made_up(self) -> bool:
        """Whether the provider's stream broke off, and the library says "stop" all the same."""
        stream, wire = self._stream, self._wire
        if wire.status is None or not getattr(stream, "sent_last_chunk", False):
            return False
        return wire.failure is not None or not (stream.received_finish_reason or stream.intermittent_finish_reason)

    async def _put(self, data: bytes) -> None:
        self._ready.append(data)
        self._came.set()
        while len(self._ready) >= EVENTS_AHEAD:
            self._taken.clear()
            await self._taken.wait()

    def _end(self) -> bytes:
        if self._task.cancelled():
            raise truncated(self._wire.name)
        exc = self._task.exception()
        if exc is None:
            return b""
        if isinstance(exc, UpstreamError):
            raise exc
        raise self._wire.failure or unreadable(self._wire.name) from exc


class StreamReply:
    """A stream, read from its source. Implements `base.Reply`. Once it has failed, it fails for good."""

    def __init__(
        self,
        upstream: str,
        headers: dict[str, str],
        source: Source,
        tasks: Tasks,
        open_streams: "set[StreamReply]",
        deadline_s: float,
    ) -> None:
        self.status = 200
        self.headers = headers
        self._upstream = upstream
        self._source = source
        self._tasks = tasks
        self._open_streams = open_streams
        self._deadline_s = deadline_s
        self._timer: asyncio.Timeout | None = None
        self._tail = b""
        self._ended = False
        self._failure: UpstreamError | None = None
        self._is_closed = False

    async def read_all(self, limit_bytes: int) -> bytes:
        try:
            return await joined(self.read, self._deadline_s, limit_bytes, self._upstream)
        except UpstreamInvalidResponse as failure:
            self._failure = failure
            raise

    async def read(self, deadline_s: float) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return b""
        try:
            async with asyncio.timeout_at(deadline_s) as self._timer:
                piece = await self._source.next()
        except TimeoutError as exc:
            self._failure = self._failure or late(self._upstream)
            raise self._failure from exc
        except UpstreamError as failure:
            self._failure = failure
            raise
        except asyncio.CancelledError:
            self._failure = truncated(self._upstream)
            raise
        finally:
            self._timer = None
        self._ended = not piece
        self._tail = piece if len(piece) >= TAIL_BYTES else (self._tail + piece)[-TAIL_BYTES:]
        return piece

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._open_streams.discard(self)
        is_due = self._failure is None and self._tail.rstrip(b"\r\n").endswith(TERMINATORS)
        if not self._ended:
            self._failure = self._failure or truncated(self._upstream)
        self._tasks.start(self._source.finish(is_due), f"litellm end {self._upstream}")

    def give_up(self, why: Failure) -> None:
        """Whoever reads is told."""
        self._source.cut()
        if self._failure is None and not self._ended:
            self._failure = why(self._upstream)
        if self._timer is not None:
            self._timer.reschedule(0.0)
