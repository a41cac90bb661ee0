"""The mock upstream: a model server inside the process, which can also misbehave on command.

For:      the first answer of a newcomer, demonstrations, and the tests' faults.
Touches:  the clock, to be as slow as it was told.
"""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from nexus_gateway.config.runtime import MockSpec, UpstreamSpec
from nexus_gateway.core.errors import UpstreamInvalidResponse, UpstreamTimeout, UpstreamTruncated
from nexus_gateway.core.mock_answers import BadRequest, answer, embed, write_error, write_events, write_plain
from nexus_gateway.core.model import Operation

from .base import Traits, UpstreamRequest

GOLDEN: Final = 0.6180339887498949  # multiples of it modulo 1 cover [0, 1) evenly: a share is exact, not luck
EVENTS_PER_TURN: Final = 16  # how many events without delay go out before the loop gets a turn


class MockUpstream:
    """Implements `base.Upstream`. `active` counts replies that nobody has closed."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self.name = spec.name
        self.traits = Traits(spec.model, spec.stream_usage, spec.timeout_s, spec.max_concurrency)
        self.active = 0
        self._behaviour = spec.mock or MockSpec()
        self._requests = itertools.count()

    async def send(self, request: UpstreamRequest) -> "MockReply":
        behaviour = self._behaviour
        await self._delay(behaviour.delay_s, request.deadline_s)
        failing = (next(self._requests) * GOLDEN + behaviour.seed * GOLDEN**2) % 1.0 < behaviour.error_rate
        status = 500 if failing else behaviour.status
        headers = {"content-type": "application/json", "x-request-id": f"mock-{request.request_id}"}
        if status != 200:
            if status in (429, 503):
                headers["retry-after"] = "1"
            return self._reply(status, headers, write_error(status, f"The mock was told to answer {status}."))
        try:
            document = msgspec.json.decode(request.body)
            if request.operation is Operation.EMBEDDINGS:
                return self._reply(200, headers, embed(document))
            decided = answer(request.operation, document, behaviour.tokens)
        except BadRequest as exc:
            return self._reply(400, headers, write_error(400, str(exc), exc.param))
        if not request.stream:
            return self._reply(200, headers, write_plain(decided))
        headers["content-type"] = "text/event-stream; charset=utf-8"
        return self._reply(200, headers, write_events(decided))

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _reply(self, status: int, headers: Mapping[str, str], body: bytes | Iterator[bytes]) -> "MockReply":
        self.active += 1
        return MockReply(self, status, headers, body)

    async def _delay(self, delay_s: float, deadline_s: float) -> None:
        if delay_s > 0:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await asyncio.sleep(delay_s)
            except TimeoutError as exc:
                raise UpstreamTimeout(f"Upstream '{self.name}' did not answer in time.", upstream=self.name) from exc


class MockReply:
    """Implements `base.Reply`."""

    def __init__(
        self, upstream: MockUpstream, status: int, headers: Mapping[str, str], body: bytes | Iterator[bytes]
    ) -> None:
        self.status = status
        self.headers = headers
        self._upstream: MockUpstream | None = upstream
        self._name = upstream.name
        self._behaviour = upstream._behaviour  # the two are one
        self._pieces = iter((body,)) if isinstance(body, bytes) else body
        self._is_stream = not isinstance(body, bytes)
        self._sent = 0

    async def read_all(self, limit_bytes: int) -> bytes:
        body = b"".join(self._pieces)
        if len(body) > limit_bytes:
            raise UpstreamInvalidResponse(
                f"Upstream '{self._name}' sent an answer that is too large.", upstream=self._name
            )
        return body

    async def read(self, deadline_s: float) -> bytes:
        if self._upstream is None:
            return b""
        behaviour = self._behaviour
        if self._is_stream and self._sent:
            if behaviour.chunk_delay_s > 0:
                await self._upstream._delay(behaviour.chunk_delay_s, deadline_s)
            elif self._sent % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        if self._is_stream and self._sent == behaviour.fail_after:
            raise UpstreamTruncated(f"Upstream '{self._name}' broke off its answer.", upstream=self._name)
        self._sent += 1
        return next(self._pieces, b"")

    async def aclose(self) -> None:
        if self._upstream is not None:
            self._upstream.active -= 1
            self._upstream = None
