"""An attempt under way inside LiteLLM, and the streams that come out of it.

For:      waits that end by a deadline, calls that are given up without leaving anything behind.
Touches:  tasks of its own, one a call and one a translated stream, which their upstream waits for when it closes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, Protocol, TypeVar

import httpx

from nexus_gateway.core.errors import UpstreamError

from .base import Reply
from .litellm_library import is_internal_call
from .litellm_wire import Body, Wire, current_wire
from .litellm_words import answer_to, event, unreadable, usage_event
from .replies import late, too_large, truncated

EVENTS_AHEAD: Final = 16  # of a translated stream, that wait to be taken
DONE: Final = b"data: [DONE]\n\n"
TERMINATORS: Final = (b"data: [DONE]", b"data:[DONE]")
TAIL_BYTES: Final = 32  # holds a terminator and the line ends after it

Failure = Callable[[str], UpstreamError]  # of an upstream's name
Result = TypeVar("Result")


class Tasks:
    """The tasks of one upstream."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str, context: Context | None = None) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def over(self, within_s: float) -> None:
        """Return when all are; those that take longer are cancelled."""
        for give_up in (False, True):
            for task in self._running if give_up else ():
                task.cancel()
            if self._running:
                await asyncio.wait(set(self._running), timeout=within_s)


class Call:
    """`work` makes the reply. It is not cut off while the library is busy with something else than the network: it
    would leave a coroutine behind that nobody awaits. The next thing that it asks of the network fails instead."""

    def __init__(self, work: Coroutine[Any, Any, Reply], wire: Wire, tasks: Tasks) -> None:
        self._wire = wire
        self._why: Failure | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = tasks.start(work, f"litellm {wire.name}", context_of(wire))
        self._task.add_done_callback(self._end)
        self._tasks = tasks

    async def wait(self, deadline_s: float) -> Reply:
        timer = asyncio.get_running_loop().call_at(deadline_s, self.give_up, late)
        try:
            await self._over
        except asyncio.CancelledError:
            if self._task.done():  # just now: nobody will take what it brought
                self._drop()
            self.give_up(truncated)
            raise
        finally:
            timer.cancel()
        if self._why is not None:
            raise self._why(self._wire.name)
        exc = self._task.exception()
        if exc is None:
            reply: Reply = self._task.result()
            return reply
        if isinstance(exc, UpstreamError):
            raise exc
        return answer_to(exc, self._wire)

    def give_up(self, why: Failure) -> None:
        """The first reason stands."""
        if self._why is not None or self._task.done():
            return
        self._why = why
        self._wire.is_over = True
        if self._wire.at_work:
            self._task.cancel()
        if not self._over.done():  # else whoever waited was cancelled
            self._over.set_result(None)

    def _end(self, task: "asyncio.Task[Reply]") -> None:
        if self._over.done():
            self._drop()
        else:
            self._over.set_result(None)

    def _drop(self) -> None:
        if not self._task.cancelled() and self._task.exception() is None:
            self._tasks.start(self._task.result().aclose(), "litellm late answer")


def context_of(wire: Wire) -> Context:
    context = copy_context()
    context.run(current_wire.set, wire)
    context.run(is_internal_call.set, True)  # the library then logs, prices and calls back nothing
    return context


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


async def begun(asking: Coroutine[Any, Any, Result], wire: Wire) -> Result | None:
    """What comes out; None as soon as the library would read a stream that it need not."""
    task = asyncio.get_running_loop().create_task(asking)
    try:
        waited: set[asyncio.Future[Any]] = {task, wire.reached}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        await asyncio.wait({task})


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
        pieces, size = [], 0
        while piece := await self.read(self._deadline_s):
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                self._failure = too_large(self._upstream)
                raise self._failure
        return b"".join(pieces)

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
