"""Spans of requests and of their attempts, made from what is known of them when they have ended.

For:      a server span per request, a client span per attempt; mirrored attempts are spans of the same trace.
Touches:  nothing: `put` takes the spans, the clock and the dice are brought. Names, numbers and error codes stand in
          spans, all of them the gateway's own words but the model's name and the request's id; never a prompt, an
          answer, a key, a message.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from nexus_gateway.core.errors import UpstreamRejected
from nexus_gateway.core.model import AttemptRecord, CallRecord, Operation, Usage
from nexus_gateway.core.tracing import RANDOM, SAMPLED, AttemptTrace, Fields, Place, Sampling, Target

from . import span_names as names

MAX_MODEL_CHARS: Final = 128  # of a name that a caller may have made up
NS: Final = 1_000_000_000
OK: Final = "ok"
CANCELLED: Final = "cancelled"
NO_FAILURES: Final = (OK, CANCELLED, UpstreamRejected.outcome)  # of an upstream: the caller left, or asked nonsense
SUCCESS: Final = 200
CALLER_ERROR: Final = 400
SERVER_ERROR: Final = 500

Value = str | int | float | bool
_OPENED: Final = {
    operation: {
        names.METHOD: "POST",
        names.HTTP_ROUTE: f"/v1{operation.value}",
        names.PATH: f"/v1{operation.value}",
        names.SCHEME: "http",
        names.GEN_AI_OPERATION: name,
    }
    for operation, name in names.OPERATIONS.items()
}


class FinishedSpan(msgspec.Struct, frozen=True):
    """Instants in nanoseconds of Unix time. `is_server`: of a request, else of an attempt."""

    name: str
    is_server: bool
    place: Place
    parent: Place | None
    began_ns: int
    ended_ns: int
    attributes: dict[str, Value]
    has_failed: bool


class Recorder:
    """Implements `core.tracing.Tracing`. `bits` draws so many of them."""

    def __init__(
        self,
        sampling: Sampling,
        put: Callable[[FinishedSpan], None],
        clock: Callable[[], float],
        bits: Callable[[int], int],
    ) -> None:
        self.sampling = sampling
        self.put = put
        self.clock = clock
        self._bits = bits

    def begin(self, record: CallRecord, parent: Place | None) -> "RequestTrace":
        if parent is None:
            trace_id, flags = self._bits(128) or 1, RANDOM
        else:
            trace_id, flags = parent.trace_id, parent.flags & RANDOM
        if self.sampling.takes(trace_id, parent):
            flags |= SAMPLED
        return RequestTrace(self, record, parent, Place(trace_id, self.new_span_id(), flags))

    def new_span_id(self) -> int:
        return self._bits(64) or 1  # 0 means none


class RequestTrace:
    """Implements `core.tracing.Trace`."""

    __slots__ = ("_attempts", "_offset_ns", "_parent", "_place", "recorder")

    def __init__(self, recorder: Recorder, record: CallRecord, parent: Place | None, place: Place) -> None:
        self.recorder = recorder
        self._parent = parent
        self._place = place
        self._offset_ns = int((record.received_at - record.started_at_s) * NS)
        self._attempts: list[AttemptSpan] = []

    @property
    def trace_id(self) -> str:
        return f"{self._place.trace_id:032x}"

    def attempt(self, target: Target, operation: Operation, model: str, *, stream: bool) -> AttemptTrace:
        place = Place(self._place.trace_id, self.recorder.new_span_id(), self._place.flags)
        if not place.flags & SAMPLED:
            return Unrecorded((place.header(),))
        attempt = AttemptSpan(self, place, target, operation, model, stream=stream)
        if not target.is_mirror:
            self._attempts.append(attempt)
            attempt.number = len(self._attempts)
        return attempt

    def finish(self, record: CallRecord) -> None:
        if not self._place.flags & SAMPLED:
            return
        usage = None if record.is_usage_estimated else record.usage
        for attempt in self._attempts:
            at = attempt.number - 1
            judged = record.attempts[at] if at < len(record.attempts) else None
            attempt.end(judged, usage if attempt is self._attempts[-1] else None)
        span = FinishedSpan(
            f"POST {_OPENED[record.operation][names.PATH]}",
            True,
            self._place,
            self._parent,
            self.unix_ns(record.started_at_s),
            self.unix_ns(record.finished_at_s),
            _told_of(record),
            _has_failed(record),
        )
        self.recorder.put(span)

    def put(self, attempt: "AttemptSpan", ended_s: float, attributes: dict[str, Value], *, has_failed: bool) -> None:
        began_ns, ended_ns = self.unix_ns(attempt.began_s), self.unix_ns(ended_s)
        name = f"{attributes[names.GEN_AI_OPERATION]} {attributes[names.GEN_AI_MODEL]}"
        span = FinishedSpan(name, False, attempt.place, self._place, began_ns, ended_ns, attributes, has_failed)
        self.recorder.put(span)

    def unix_ns(self, at_s: float) -> int:
        """By the wall's clock as it was when the request came: within a trace nothing ends before it began, whatever
        happens to that clock meanwhile."""
        return self._offset_ns + int(at_s * NS)


class Unrecorded:
    """Implements `core.tracing.AttemptTrace` for a trace that is not sampled: its upstream is told so."""

    __slots__ = ("headers",)

    is_recorded = False

    def __init__(self, headers: Fields) -> None:
        self.headers = headers

    def answered(self, status: int) -> None: ...

    def received(self) -> None: ...

    def failed(self, outcome: str) -> None: ...

    def over(self) -> None: ...


class AttemptSpan:
    """Implements `core.tracing.AttemptTrace`. It becomes a span with its request, which knows how it was judged; a
    mirrored one by itself."""

    __slots__ = (
        "_first_s",
        "_model",
        "_operation",
        "_outcome",
        "_over_s",
        "_status",
        "_stream",
        "_target",
        "_trace",
        "began_s",
        "headers",
        "number",
        "place",
    )

    is_recorded = True

    def __init__(
        self, trace: RequestTrace, place: Place, target: Target, operation: Operation, model: str, *, stream: bool
    ) -> None:
        self.place = place
        self.headers: Fields = (place.header(),)
        self.number = 0
        self.began_s = trace.recorder.clock()
        self._trace = trace
        self._target = target
        self._operation = operation
        self._model = model
        self._stream = stream
        self._status: int | None = None
        self._first_s: float | None = None
        self._over_s: float | None = None
        self._outcome = OK

    def answered(self, status: int) -> None:
        self._status = status

    def received(self) -> None:
        if self._first_s is None:
            self._first_s = self._trace.recorder.clock()

    def failed(self, outcome: str) -> None:
        self._outcome = outcome

    def over(self) -> None:
        self._over_s = self._trace.recorder.clock()
        if self._target.is_mirror:
            if self._status is None and self._outcome == OK:
                self._outcome = CANCELLED
            self.end(None, None)

    def end(self, judged: AttemptRecord | None, usage: Usage | None) -> None:
        """`judged`: how it was, where anybody did."""
        status, target = self._status, self._target
        outcome = self._outcome if judged is None else judged.outcome
        if outcome == OK and status is not None and status >= CALLER_ERROR:
            outcome = str(status)
        told: dict[str, Value] = {
            names.GEN_AI_OPERATION: names.OPERATIONS[self._operation],
            names.GEN_AI_PROVIDER: names.PROVIDER,
            names.GEN_AI_MODEL: self._model[:MAX_MODEL_CHARS],
            names.GEN_AI_STREAM: self._stream,
            names.UPSTREAM: target.upstream,
        }
        if target.host:
            told[names.SERVER_ADDRESS] = target.host
            told[names.SERVER_PORT] = target.port
        if target.is_mirror:
            told[names.SHADOW] = True
        else:
            told[names.ATTEMPT] = self.number
        if status is not None:
            told[names.STATUS] = status
        if self._stream and self._first_s is not None:
            told[names.GEN_AI_FIRST_CHUNK] = self._first_s - self.began_s
        if usage is not None:
            told[names.GEN_AI_INPUT_TOKENS] = usage.prompt_tokens
            told[names.GEN_AI_OUTPUT_TOKENS] = usage.completion_tokens
        if outcome != OK:
            told[names.ERROR_TYPE] = outcome
        ended_s = self._trace.recorder.clock() if self._over_s is None else self._over_s
        self._trace.put(self, ended_s, told, has_failed=outcome not in NO_FAILURES)


def _told_of(record: CallRecord) -> dict[str, Value]:
    """What stands in a server span."""
    told: dict[str, Value] = {
        **_OPENED[record.operation],
        names.REQUEST_ID: record.request_id,
        names.STATUS: record.status,
        names.ATTEMPTS: len(record.attempts),
    }
    if record.key_id is not None:
        told[names.KEY_ID] = record.key_id
    if record.model is not None:
        told[names.GEN_AI_MODEL] = record.model[:MAX_MODEL_CHARS]
        told[names.GEN_AI_STREAM] = record.stream
    if record.route is not None:
        told[names.ROUTE] = record.route
    if record.upstream is not None:
        told[names.UPSTREAM] = record.upstream
    if record.first_byte_at_s is not None:
        told[names.FIRST_BYTE] = record.first_byte_at_s - record.started_at_s
    if record.stream:
        told[names.EVENTS] = record.events
    if record.usage is not None:
        told[names.INPUT_TOKENS] = record.usage.prompt_tokens
        told[names.OUTPUT_TOKENS] = record.usage.completion_tokens
        told[names.ESTIMATED] = record.is_usage_estimated
    if record.client_gone:
        told[names.ERROR_TYPE] = names.CLIENT_GONE
    elif record.error_code is not None:
        told[names.ERROR_TYPE] = record.error_code
    return told


def _has_failed(record: CallRecord) -> bool:
    """Whether it was the gateway or what is behind it, told by a status or inside a stream; what a caller did wrong is
    no failure."""
    if record.client_gone or record.error_code is None:
        return False
    return record.status == SUCCESS or record.status >= SERVER_ERROR
