"""Mirrors a share of requests to a candidate, after their callers have been served, and compares the answers.

For:      trying a model on real traffic without anybody noticing.
Touches:  the shadow target, by tasks of its own; never the caller, its limits or its answer.

| state | held by | freed |
|---|---|---|
| the request's body, counted in one budget of bytes | `Mirror` | when it was compared, or dropped |
| what is kept of the caller's answer (a few hundred bytes) | its `Sketch` | likewise |
| a place among those under way, or in the queue | `Shadow` | when its task ends, however it does |
"""

import itertools
import logging
import time
from collections import deque
from typing import Final

from nexus_gateway.core.errors import UpstreamBusy, UpstreamError, drop_trace
from nexus_gateway.core.model import Call, CallRecord
from nexus_gateway.core.shadow_compare import Comparison, Observed, Sketch, compare
from nexus_gateway.observe.base import ShadowObserver

from .arrival import Answer, Arrival, no_body
from .attempt import Attempt
from .bounds import Bounds
from .endpoint import Endpoint
from .outcome import OK
from .stream import EventStream
from .tasks import Tasks

CONCURRENCY: Final = 8  # mirrored requests under way: a candidate is tried, not load-tested
STEP: Final = 2**0.5 - 1  # its multiples fill [0, 1) evenly, and have nothing to do with those that routes draw by
MAX_WAITING: Final = 256  # in the queue; what waits longer than its turn would be compared too late to matter

log = logging.getLogger(__name__)


class Mirror:
    """One request that will be mirrored, from the moment it was chosen. `sketch` takes in the caller's answer."""

    __slots__ = ("_shadow", "arrival", "call", "kept_bytes", "original", "sketch")

    def __init__(self, shadow: "Shadow", call: Call, arrival: Arrival) -> None:
        self._shadow = shadow
        self.call = call
        self.original = arrival.record
        self.arrival = Arrival(call.operation, arrival.headers, arrival.fields, no_body, arrival.record)
        self.arrival.screened = screened = arrival.screened
        self.kept_bytes = len(call.body) + (len(screened.call.body) if screened is not None else 0)
        self.sketch = Sketch()

    def served(self, stayed: bool) -> None:
        """The caller has its answer, or has left: then there is nothing to compare with."""
        if stayed:
            self._shadow.send(self)
        else:
            self._shadow.drop(self, "no answer")


class Shadow:
    """`percent` of the requests go to `endpoint` too, exactly that share. `max_bytes` bounds the bodies kept.

    The endpoint is the shadow's own: what mirrored requests do to it, its breaker and its room, no caller feels.
    """

    def __init__(
        self, endpoint: Endpoint, percent: float, max_bytes: int, tasks: Tasks, bounds: Bounds, events: ShadowObserver
    ) -> None:
        self._endpoint = endpoint
        self._share = percent / 100
        self._max_bytes = max_bytes
        self._tasks = tasks
        self._bounds = bounds
        self._events = events
        self._counter = itertools.count()
        self._waiting: deque[Mirror] = deque()
        self._under_way = 0
        self._kept_bytes = 0

    def choose(self, call: Call, arrival: Arrival) -> Mirror | None:
        """A Mirror for this request if it is one of the share. Whoever gets it calls `served` once."""
        if next(self._counter) * STEP % 1.0 >= self._share:
            return None
        mirror = Mirror(self, call, arrival)
        if self._kept_bytes + mirror.kept_bytes > self._max_bytes:
            self._events.shadow_dropped("bytes")
            return None
        self._kept_bytes += mirror.kept_bytes
        arrival.record.shadow = self._endpoint.name
        return mirror

    def send(self, mirror: Mirror) -> None:
        if self._under_way < CONCURRENCY:
            self._under_way += 1
            self._tasks.spawn(self._work(mirror), name="shadow")
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(mirror)
        else:
            self.drop(mirror, "queue")

    def drop(self, mirror: Mirror, reason: str) -> None:
        self._kept_bytes -= mirror.kept_bytes
        self._events.shadow_dropped(reason)

    async def _work(self, mirror: Mirror) -> None:
        """One after the other while any wait, so that a place is never lost between two."""
        try:
            while True:
                try:
                    await self._mirror(mirror)
                finally:
                    self._kept_bytes -= mirror.kept_bytes
                if not self._waiting:
                    return
                mirror = self._waiting.popleft()
        finally:
            self._under_way -= 1

    async def _mirror(self, mirror: Mirror) -> None:
        endpoint, bounds, call = self._endpoint, self._bounds, mirror.call
        now_s = bounds.clock()
        try:
            permit = endpoint.enter(now_s, now_s + endpoint.attempt.seconds)
        except UpstreamBusy:
            permit = None
        if permit is None:
            self._events.shadow_dropped("target down")
            return
        self._events.shadow_sent()
        original = mirror.original
        record = CallRecord(original.request_id, call.operation, time.time(), now_s)
        arrival = mirror.arrival
        arrival.record = record
        model = endpoint.upstream.traits.model or endpoint.name
        attempt = Attempt(bounds, call, arrival, endpoint, model, endpoint.attempt, permit)
        sketch = Sketch()
        try:
            answer = await attempt.run(sketch)
            record.first_byte_at_s = bounds.clock()
            await self._read(answer)
        except UpstreamError as failure:  # the attempt's record says how it ended, and that is compared
            drop_trace(failure)
        comparison = compare(_observed(original, mirror.sketch), _observed(record, sketch))
        self._events.shadow_compared(comparison)
        _tell(original, endpoint.name, comparison)

    async def _read(self, answer: Answer) -> None:
        if not isinstance(answer.body, EventStream):
            return
        stream = answer.body
        try:
            while not stream.is_over:
                await stream.next()
        finally:
            await stream.aclose()


def _observed(record: CallRecord, sketch: Sketch) -> Observed:
    ended = record.attempts[-1] if record.attempts else None
    first_s = record.first_byte_at_s
    return Observed(
        status=ended.status if ended is not None else None,
        outcome=ended.outcome if ended is not None else OK,
        sketch=sketch,
        usage=record.usage,
        first_token_s=None if first_s is None else first_s - record.started_at_s,
        total_s=ended.seconds if ended is not None else 0.0,
    )


def _tell(record: CallRecord, target: str, comparison: Comparison) -> None:
    log.info(
        "shadow_compared",
        extra={
            "request_id": record.request_id,
            "route": record.route,
            "primary": record.upstream,
            "shadow": target,
            "identical": comparison.is_identical,
            "differs": list(comparison.differs),
            "chars": comparison.chars,
            "completion_tokens": comparison.completion_tokens,
            "first_token_s": comparison.first_token_s,
            "total_s": comparison.total_s,
        },
    )
