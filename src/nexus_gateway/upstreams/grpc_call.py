"""One RPC under way, and the reply that is read from it.

For:      waits that end by a deadline, and answers in the shape of `base.Reply`.
Touches:  the call, by the library's client. Calls are given up by cancelling them, which is how a worker learns of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError
from grpc.aio import EOF, AioRpcError, UnaryStreamCall

from nexus_gateway.core.errors import (
    UpstreamError,
    UpstreamInvalidResponse,
)

from .grpc_status import body_of, error_body, error_of, failure_of
from .replies import WholeReply, joined, late, truncated
from .worker_v1.worker_pb2 import ChatStreamResponse

DONE_EVENT: Final = b"data: [DONE]\n\n"
Answer = TypeVar("Answer")
Failure = Callable[[str], UpstreamError]  # of an upstream's name


class RunningCall:
    """An RPC that is given up with a reason. `under_way` holds it until the library is done with it."""

    __slots__ = ("_call", "_upstream", "_why")

    def __init__(self, call: Any, upstream: str, under_way: set["RunningCall"]) -> None:
        self._call = call
        self._upstream = upstream
        self._why: Failure | None = None
        under_way.add(self)
        call.add_done_callback(lambda _: under_way.discard(self))

    async def wait(self, waiting: Awaitable[Answer], deadline_s: float) -> Answer:
        """What it gives. Raises AioRpcError, or the reason for which the call was given up meanwhile."""
        timer = asyncio.get_running_loop().call_at(deadline_s, self.give_up, late)
        try:
            return await waiting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._why is not None and task is not None and not task.cancelling():
                raise self._why(self._upstream) from None
            self.give_up(truncated)
            raise
        finally:
            timer.cancel()

    def give_up(self, why: Failure) -> None:
        """The first reason stands."""
        if self._why is None:
            self._why = why
        self._call.cancel()

    async def over(self) -> None:
        """Return when nothing of it will come any more: soon after it was given up."""
        await self._call.code()


class StreamReply:
    """The events of a ChatStream, one a read. Implements `base.Reply`. Once it has failed, it fails for good.

    `first` is the message that made the head known, None when the stream broke right behind its metadata.
    """

    __slots__ = ("_call", "_deadline_s", "_ended", "_failure", "_ready", "_running", "_upstream", "headers", "status")

    def __init__(
        self,
        upstream: str,
        call: "UnaryStreamCall[Any, bytes]",
        running: RunningCall,
        headers: Mapping[str, str],
        first: ChatStreamResponse | None,
        deadline_s: float,
    ) -> None:
        self.status = 200
        self.headers = headers
        self._upstream = upstream
        self._call = call
        self._running = running
        self._deadline_s = deadline_s
        self._ready = b""
        self._ended = False
        self._failure: UpstreamError | None = truncated(upstream) if first is None else None
        if first is not None:
            self._ready = self._event(first)

    async def read_all(self, limit_bytes: int) -> bytes:
        try:
            return await joined(self.read, self._deadline_s, limit_bytes, self._upstream)
        except UpstreamInvalidResponse as failure:
            self._failure = failure
            raise

    async def read(self, deadline_s: float) -> bytes:
        if self._ready:
            ready, self._ready = self._ready, b""
            return ready
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return b""
        try:
            return await self._pull(deadline_s)
        except UpstreamError as failure:
            self._failure = failure
            self._running.give_up(truncated)
            raise

    async def aclose(self) -> None:
        if not self._ended:
            self._running.give_up(truncated)
            self._failure = self._failure or truncated(self._upstream)

    async def _pull(self, deadline_s: float) -> bytes:
        try:
            raw: Any = await self._running.wait(self._call.read(), deadline_s)
        except AioRpcError as exc:
            raise failure_of(exc, self._upstream, answered=True) or truncated(self._upstream) from exc
        if raw is EOF:
            self._ended = True
            return DONE_EVENT
        return self._event(parsed(ChatStreamResponse, raw, self._upstream))

    def _event(self, message: ChatStreamResponse) -> bytes:
        """An error inside a stream is an event too: the last one that anybody reads."""
        body = error_body(message.error) if message.HasField("error") else body_of(message, self._upstream)
        return b"data: %b\n\n" % body


def refusal(upstream: str, exc: AioRpcError, headers: Mapping[str, str]) -> WholeReply:
    """A status that is an answer, as an HTTP server would have given it."""
    error = error_of(exc)
    return WholeReply(upstream, error.status, headers, error_body(error))


Message = TypeVar("Message")


def parsed(kind: Callable[[], Message], raw: bytes, upstream: str) -> Message:
    """Raises UpstreamInvalidResponse for bytes that are no such message."""
    message: Any = kind()
    try:
        message.ParseFromString(raw)
    except DecodeError as exc:
        what = f"Upstream '{upstream}' sent what is not a message of its contract."
        raise UpstreamInvalidResponse(what, upstream=upstream) from exc
    return message  # type: ignore[no-any-return]
