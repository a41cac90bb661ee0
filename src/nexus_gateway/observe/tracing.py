"""Spans of requests and of their attempts, recorded with OpenTelemetry. Imported only where tracing is on.

For:      a server span per request, a client span per attempt; mirrored attempts are spans of the same trace.
Touches:  the tracer it is given, whose spans leave by a thread of their own. Names, numbers and error codes stand in
          spans, all of them the gateway's own words but the model's name; never a prompt, an answer, a key, a message.
"""

import time
from collections.abc import Callable
from typing import Final

from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from nexus_gateway.core.model import AttemptRecord, CallRecord, Operation, Usage
from nexus_gateway.core.tracing import Fields, Place, Target

from . import span_names as names

MAX_MODEL_CHARS: Final = 128  # of a name that a caller may have made up
NS: Final = 1_000_000_000
OK: Final = "ok"
CANCELLED: Final = "cancelled"
SUCCESS: Final = 200
CALLER_ERROR: Final = 400
SERVER_ERROR: Final = 500

_OPENED: Final = {
    operation: (
        f"POST /v1{operation.value}",
        {
            names.METHOD: "POST",
            names.HTTP_ROUTE: f"/v1{operation.value}",
            names.PATH: f"/v1{operation.value}",
            names.SCHEME: "http",
            names.GEN_AI_OPERATION: name,
        },
    )
    for operation, name in names.OPERATIONS.items()
}


class OtelTracing:
    """Implements `core.tracing.Tracing`."""

    def __init__(self, tracer: Tracer, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracer = tracer
        self._clock = clock

    def begin(self, record: CallRecord, parent: Place | None) -> "RequestTrace":
        name, attributes = _OPENED[record.operation]
        context = None
        if parent is not None:
            flags = TraceFlags(parent.flags)
            context = set_span_in_context(
                NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags))
            )
        began_ns = int(record.received_at * NS)
        span = self._tracer.start_span(name, context, kind=SpanKind.SERVER, attributes=attributes, start_time=began_ns)
        return RequestTrace(self._tracer, self._clock, span, began_ns - int(record.started_at_s * NS))


class RequestTrace:
    """Implements `core.tracing.Trace`. `offset_ns`: from the monotonic clock to that of the wall, as it was when the
    request came: within a trace no span ends before it began, whatever happens to the wall's."""

    __slots__ = ("_attempts", "_clock", "_context", "_offset_ns", "_span", "_tracer")

    def __init__(self, tracer: Tracer, clock: Callable[[], float], span: Span, offset_ns: int) -> None:
        self._tracer = tracer
        self._clock = clock
        self._span = span
        self._context = set_span_in_context(span)
        self._offset_ns = offset_ns
        self._attempts: list[AttemptSpan] = []

    def attempt(self, target: Target, operation: Operation, model: str, *, stream: bool) -> "AttemptSpan":
        doing, model = names.OPERATIONS[operation], model[:MAX_MODEL_CHARS]
        began_s = self._clock()
        attributes: dict[str, AttributeValue] = {
            names.GEN_AI_OPERATION: doing,
            names.GEN_AI_PROVIDER: names.PROVIDER,
            names.GEN_AI_MODEL: model,
            names.GEN_AI_STREAM: stream,
            names.UPSTREAM: target.upstream,
        }
        if target.host:
            attributes[names.SERVER_ADDRESS] = target.host
            attributes[names.SERVER_PORT] = target.port
        if target.is_mirror:
            attributes[names.SHADOW] = True
        else:
            attributes[names.ATTEMPT] = len(self._attempts) + 1
        span = self._tracer.start_span(
            f"{doing} {model}",
            self._context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=self.unix_ns(began_s),
        )
        attempt = AttemptSpan(self, span, self._clock, began_s, stream=stream, is_mirror=target.is_mirror)
        if not target.is_mirror:
            self._attempts.append(attempt)
        return attempt

    def finish(self, record: CallRecord) -> None:
        if not self._span.is_recording():
            return
        usage = None if record.is_usage_estimated else record.usage
        last = len(self._attempts) - 1
        for at, attempt in enumerate(self._attempts):
            ended = record.attempts[at] if at < len(record.attempts) else None
            attempt.end(ended, usage if at == last else None)
        self._span.set_attributes(_told_of(record))
        if _failed(record):
            self._span.set_status(StatusCode.ERROR)
        self._span.end(self.unix_ns(record.finished_at_s))

    def unix_ns(self, at_s: float) -> int:
        return self._offset_ns + int(at_s * NS)


class AttemptSpan:
    """Implements `core.tracing.AttemptTrace`. It is ended with its request, which knows how it was judged; a mirrored
    one by itself."""

    __slots__ = ("_began_s", "_clock", "_first_s", "_is_mirror", "_outcome", "_over_s", "_span", "_status", "_stream",
                 "_trace", "headers", "is_recorded")  # fmt: skip

    def __init__(
        self, trace: RequestTrace, span: Span, clock: Callable[[], float], began_s: float, *, stream: bool,
        is_mirror: bool,
    ) -> None:  # fmt: skip
        self._trace = trace
        self._span = span
        self._clock = clock
        self._began_s = began_s
        self._stream = stream
        self._is_mirror = is_mirror
        self._status: int | None = None
        self._first_s: float | None = None
        self._over_s: float | None = None
        self._outcome = OK
        self.is_recorded = span.is_recording()
        context = span.get_span_context()
        place = Place(context.trace_id, context.span_id, context.trace_flags)
        self.headers: Fields = (place.header(),) if context.is_valid else ()

    def answered(self, status: int) -> None:
        self._status = status

    def received(self) -> None:
        if self._first_s is None:
            self._first_s = self._clock()

    def failed(self, outcome: str) -> None:
        self._outcome = outcome

    def over(self) -> None:
        self._over_s = self._clock()
        if self._is_mirror:
            if self._status is None and self._outcome == OK:
                self._outcome = CANCELLED
            self.end(None, None)

    def end(self, ended: AttemptRecord | None, usage: Usage | None) -> None:
        """`ended`: how it was judged, where it was."""
        span, status = self._span, self._status
        outcome = self._outcome if ended is None else ended.outcome
        if status is not None:
            span.set_attribute(names.STATUS, status)
        if self._stream and self._first_s is not None:
            span.set_attribute(names.GEN_AI_FIRST_CHUNK, self._first_s - self._began_s)
        if usage is not None:
            span.set_attribute(names.GEN_AI_INPUT_TOKENS, usage.prompt_tokens)
            span.set_attribute(names.GEN_AI_OUTPUT_TOKENS, usage.completion_tokens)
        if outcome == OK and status is not None and status >= CALLER_ERROR:  # nobody judged it
            outcome = str(status)
        if outcome != OK:
            span.set_attribute(names.ERROR_TYPE, outcome)
            if outcome != CANCELLED:
                span.set_status(StatusCode.ERROR)
        span.end(self._trace.unix_ns(self._clock() if self._over_s is None else self._over_s))


def _told_of(record: CallRecord) -> dict[str, AttributeValue]:
    """What stands in a server span."""
    told: dict[str, AttributeValue | None] = {
        names.REQUEST_ID: record.request_id,
        names.KEY_ID: record.key_id,
        names.STATUS: record.status,
        names.GEN_AI_MODEL: None if record.model is None else record.model[:MAX_MODEL_CHARS],
        names.ROUTE: record.route,
        names.UPSTREAM: record.upstream,
        names.ATTEMPTS: len(record.attempts),
        names.ERROR_TYPE: names.CLIENT_GONE if record.client_gone else record.error_code,
    }
    if record.model is not None:
        told[names.GEN_AI_STREAM] = record.stream
    if record.first_byte_at_s is not None:
        told[names.FIRST_BYTE] = record.first_byte_at_s - record.started_at_s
    if record.stream:
        told[names.EVENTS] = record.events
    if record.usage is not None:
        told[names.INPUT_TOKENS] = record.usage.prompt_tokens
        told[names.OUTPUT_TOKENS] = record.usage.completion_tokens
        told[names.ESTIMATED] = record.is_usage_estimated
    return {name: value for name, value in told.items() if value is not None}


def _failed(record: CallRecord) -> bool:
    """A failure of ours or behind us, told by a status or inside a stream; what a caller did wrong is none."""
    if record.client_gone or record.error_code is None:
        return False
    return record.status == SUCCESS or record.status >= SERVER_ERROR
