"""The mock upstream: a model server inside the process, which can also be slow, break off or fail on command.

For:      a newcomer's first answer, demonstrations, and the faults of tests.
Touches:  the loop's clock.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from nexus_gateway.config.runtime import MockSpec, UpstreamSpec
from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamTimeout,
    UpstreamTruncated,
)
from nexus_gateway.core.mock.faults import ErrorShare
from nexus_gateway.core.mock.model import Response, refuse, respond

from .base import Traits, UpstreamRequest

EVENTS_PER_TURN: Final = 32  # of a stream without delays, before other tasks get their turn
RETRY_AFTER: Final = "1"  # seconds


class MockUpstream:
    """Implements `base.Upstream`. `active` counts requests without a reply yet, and replies that nobody closed."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self.name = spec.name
        self.traits = Traits(spec.model, spec.stream_usage, spec.timeout_s, spec.max_concurrency, spec.mask)
        self.behaviour = spec.mock or MockSpec()
        self.active = 0
        self._errors = ErrorShare(self.behaviour.error_rate, self.behaviour.seed)
        self._closed = asyncio.Event()

    async def send(self, request: UpstreamRequest) -> "MockReply":
        self.active += 1
        reply: MockReply | None = None
        try:
            now_s = _now_s()
            if self._closed.is_set():
                raise UpstreamConnectError(f"Upstream '{self.name}' is closed.", upstream=self.name)
            if request.deadline_s <= now_s:
                raise self._late()
            await self.pause(now_s + self.behaviour.delay_s, request.deadline_s)
            reply = self._answer(request)
            return reply
        finally:
            if reply is None:
                self.active -= 1

    async def check(self, deadline_s: float) -> None:
        """It is in this process: there is nothing to ask."""

    async def aclose(self) -> None:
        self._closed.set()

    def _answer(self, request: UpstreamRequest) -> "MockReply":
        behaviour = self.behaviour
        status = 500 if self._errors.draw() else behaviour.status
        response = respond(request.operation, request.body, behaviour.tokens) if status == 200 else refuse(status)
        headers = {
            "content-type": "text/event-stream; charset=utf-8" if response.is_stream else "application/json",
            "x-request-id": f"mock-{request.request_id}",
            "openai-processing-ms": f"{behaviour.delay_s * 1000:.0f}",
        }
        if status in (429, 503):
            headers["retry-after"] = RETRY_AFTER
        return MockReply(self, response, headers, request.deadline_s)

    def _late(self) -> UpstreamTimeout:
        return UpstreamTimeout(f"Upstream '{self.name}' did not answer in time.", upstream=self.name)

    # ---- called by a reply

    async def pause(self, due_s: float, deadline_s: float) -> None:
        """Return when `due_s` has come. Raises UpstreamTimeout at `deadline_s`, UpstreamTruncated when closed."""
        if due_s > _now_s():
            try:
                async with asyncio.timeout_at(min(due_s, deadline_s)):
                    await self._closed.wait()
            except TimeoutError as exc:
                if deadline_s < due_s:
                    raise self._late() from exc
        if self._closed.is_set():
            raise self.cut()

    def cut(self) -> UpstreamTruncated:
        return UpstreamTruncated(f"Upstream '{self.name}' cut its answer.", upstream=self.name)

    def leave(self) -> None:
        self.active -= 1


class MockReply:
    """Implements `base.Reply`. One event a read. Once it has failed, it fails for good."""

    __slots__ = (
        "_began_s",
        "_break_at",
        "_deadline_s",
        "_failure",
        "_is_closed",
        "_next",
        "_pieces",
        "_taken",
        "_upstream",
        "headers",
        "status",
    )

    def __init__(
        self, upstream: MockUpstream, response: Response, headers: Mapping[str, str], deadline_s: float
    ) -> None:
        self.status = response.status
        self.headers = headers
        self._upstream = upstream
        self._pieces = iter(response.pieces)
        self._next = next(self._pieces, b"")
        self._break_at = upstream.behaviour.fail_after if response.is_stream else None
        self._deadline_s = deadline_s
        self._began_s = _now_s()
        self._taken = 0
        self._failure: UpstreamError | None = None
        self._is_closed = False

    async def read_all(self, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read(self._deadline_s):
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                name = self._upstream.name
                self._failure = UpstreamInvalidResponse(
                    f"Upstream '{name}' sent an answer that is too large.", upstream=name, status=self.status
                )
                raise self._failure
        return b"".join(pieces)

    async def read(self, deadline_s: float) -> bytes:
        try:
            return await self._take(deadline_s)
        except UpstreamError as exc:
            self._failure = exc
            raise

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._next:
            self._failure = self._failure or self._upstream.cut()
        self._upstream.leave()

    async def _take(self, deadline_s: float) -> bytes:
        if self._next and self._taken and self._failure is None:
            await self._keep_pace(deadline_s)
        if self._failure is not None:
            raise self._failure
        piece = self._next
        if piece and self._taken == self._break_at:
            raise self._upstream.cut()
        self._next = next(self._pieces, b"")
        self._taken += 1
        return piece

    async def _keep_pace(self, deadline_s: float) -> None:
        """Events come at their own times, like a server's: a slow reader finds those it missed waiting."""
        await self._upstream.pause(self._began_s + self._taken * self._upstream.behaviour.chunk_delay_s, deadline_s)
        if self._taken % EVENTS_PER_TURN == 0:
            await asyncio.sleep(0)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
