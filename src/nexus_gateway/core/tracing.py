"""What a request knows of its trace, whichever library records it.

For:      reading where a caller's trace stands (W3C Trace Context), deciding whether to record it, and telling an
          upstream where ours does.
Touches:  nothing. Whoever records implements `Tracing`; nobody else imports its library.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from .model import CallRecord, Operation

Fields = Sequence[tuple[bytes, bytes]]

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_INVALID_VERSION: Final = b"ff"


SAMPLED: Final = 1  # bit 0 of the flags
RANDOM: Final = 2  # bit 1 (level 2 of the standard): the low 56 bits of the trace's id are random
_HALF: Final = 1 << 64


class Place(msgspec.Struct, frozen=True, gc=False):
    """One span in one trace."""

    trace_id: int
    span_id: int
    flags: int

    def header(self) -> tuple[bytes, bytes]:
        return TRACEPARENT, b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, self.flags)


def place_of(traceparent: bytes) -> Place | None:
    """What the header says, None if it says nothing that can be believed (W3C Trace Context, section 3.2).

    A version that is not known yet may have more at its end, and nothing else that is new.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _INVALID_VERSION or (version == b"00" and more is not None):
        return None
    place = Place(int(trace_id, 16), int(span_id, 16), int(flags, 16))
    return place if place.trace_id and place.span_id else None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which traces are recorded. `share`: of those that begin here, and of all unless `heeds_parent`.

    By the low 64 bits of the trace's id, as OpenTelemetry's TraceIdRatioBased: who has the same share decides alike.
    """

    share: float = 1.0
    heeds_parent: bool = True  # a caller who has decided already is followed

    def takes(self, trace_id: int, parent: Place | None) -> bool:
        if self.heeds_parent and parent is not None:
            return bool(parent.flags & SAMPLED)
        return trace_id % _HALF < self.share * _HALF


class TracedHeaders(list[tuple[bytes, bytes]]):
    """A caller's headers without those of its trace, which `trace` goes on with. An upstream gets those of ours."""

    __slots__ = ("trace",)

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], trace: "Trace") -> None:
        super().__init__(headers)
        self.trace = trace


@dataclass(frozen=True, slots=True)
class Target:
    """Whom attempts are made at. `host` is empty where there is no server."""

    upstream: str
    host: str = ""
    port: int = 0
    is_mirror: bool = False  # it gets copies, of which callers know nothing


class AttemptTrace(Protocol):
    """One attempt. `headers` tell its upstream of it."""

    @property
    def headers(self) -> Fields: ...

    @property
    def is_recorded(self) -> bool:
        """Whether anybody wants to hear more."""
        ...

    def answered(self, status: int) -> None:
        """The head is there."""
        ...

    def received(self) -> None:
        """Bytes of a stream have come."""
        ...

    def failed(self, outcome: str) -> None:
        """What there was to hear of it is a failure."""
        ...

    def over(self) -> None:
        """Nothing more will come. Called once."""
        ...


class Trace(Protocol):
    """One request and its attempts."""

    @property
    def trace_id(self) -> str:
        """In hex, as people look for it."""
        ...

    def attempt(self, target: Target, operation: Operation, model: str, *, stream: bool) -> AttemptTrace: ...

    def finish(self, record: CallRecord) -> None:
        """The request has ended. Called once, before the mirrored ones begin."""
        ...


class Tracing(Protocol):
    """Who records."""

    def begin(self, record: CallRecord, parent: Place | None) -> Trace: ...


def take_trace(headers: Fields) -> tuple[list[tuple[bytes, bytes]], Place | None]:
    """The headers to go on with, and where the caller's trace stands.

    `tracestate` is other people's: handed on as it came, unread, and not without the `traceparent` that it belongs to
    (section 3.3.1.1).
    """
    rest, parents, states = [], [], []
    for field in headers:
        name = field[0]
        if name == TRACEPARENT:
            parents.append(field[1])
        elif name == TRACESTATE:
            states.append(field)
        else:
            rest.append(field)
    parent = place_of(parents[0].strip(b" \t")) if len(parents) == 1 else None
    return rest if parent is None else rest + states, parent
