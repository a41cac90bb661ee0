"""An upstream whose attempts are traced, whatever its kind.

For:      telling the upstream which span its work belongs to, and the span what became of it.
Touches:  the upstream that it stands before. Bodies pass through unread.
"""

from collections.abc import Mapping

import msgspec

from nexus_gateway.core.errors import UpstreamError
from nexus_gateway.core.tracing import AttemptTrace, Target, TracedHeaders

from .base import Reply, Upstream, UpstreamRequest


class TracedUpstream:
    """Implements `base.Upstream` by another one."""

    def __init__(self, upstream: Upstream, target: Target) -> None:
        self.name = upstream.name
        self.traits = upstream.traits
        self.check = upstream.check
        self.aclose = upstream.aclose
        self._send = upstream.send
        self._target = target

    async def send(self, request: UpstreamRequest) -> Reply:
        headers = request.headers
        if not isinstance(headers, TracedHeaders):
            return await self._send(request)
        attempt = headers.trace.attempt(self._target, request.operation, request.model, stream=request.stream)
        request = msgspec.structs.replace(request, headers=[*headers, *attempt.headers])
        if not attempt.is_recorded:
            return await self._send(request)
        reply = None
        try:
            reply = await self._send(request)
        except UpstreamError as failure:
            attempt.failed(failure.outcome)
            raise
        finally:
            if reply is None:
                attempt.over()
        attempt.answered(reply.status)
        return TracedReply(reply, attempt)


class TracedReply:
    """Implements `base.Reply` by another one."""

    __slots__ = ("_attempt", "_is_open", "_reply", "headers", "status")

    def __init__(self, reply: Reply, attempt: AttemptTrace) -> None:
        self.status: int = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._reply = reply
        self._attempt = attempt
        self._is_open = True

    async def read_all(self, limit_bytes: int) -> bytes:
        try:
            return await self._reply.read_all(limit_bytes)
        except UpstreamError as failure:
            self._attempt.failed(failure.outcome)
            raise

    async def read(self, deadline_s: float) -> bytes:
        try:
            piece = await self._reply.read(deadline_s)
        except UpstreamError as failure:
            self._attempt.failed(failure.outcome)
            raise
        self._attempt.received()
        return piece

    async def aclose(self) -> None:
        was_open, self._is_open = self._is_open, False
        try:
            await self._reply.aclose()
        finally:
            if was_open:
                self._attempt.over()
