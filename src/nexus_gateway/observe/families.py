"""Every metric of the gateway's own: its name, its type, its labels and what it means.

For:      the exposition, and `docs/metrics.md`, which a test holds to this list.
Touches:  nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from .tally import Tally

Values = Iterable[tuple[tuple[str, ...], float]]  # label values, and what stands there


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its labels, whose values come from closed sets, whatever callers send."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str

    def of(self, values: Values) -> Metric:
        """With these values, as the library writes them."""
        made = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        family = made(self.name, self.text, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family

    def one(self, value: float) -> Metric:
        """The value of a metric without labels."""
        return self.of([((), value)])

    def spread(self, tallies: Iterable[tuple[tuple[str, ...], Tally]]) -> Metric:
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels, tally in tallies:
            family.add_metric(labels, tally.buckets(), tally.total)
        return family


def _counter(name: str, labels: str, text: str) -> Family:
    return Family(name, Kind.COUNTER, tuple(labels.split()), text)


def _gauge(name: str, labels: str, text: str) -> Family:
    return Family(name, Kind.GAUGE, tuple(labels.split()), text)


def _histogram(name: str, labels: str, text: str) -> Family:
    return Family(name, Kind.HISTOGRAM, tuple(labels.split()), text)


# ---- how much, how fast, what failed

REQUESTS: Final = _counter("nexus_requests_total", "operation status code", "Inference requests by how they ended.")
IN_FLIGHT: Final = _gauge("nexus_in_flight_requests", "", "Inference requests that are being answered.")
REJECTIONS: Final = _counter("nexus_rejections_total", "code", "Requests refused before any upstream was asked.")
UNREAD: Final = _counter(
    "nexus_connections_refused_total",
    "code",
    "What was refused before it was a request: heads malformed, large or slow.",
)
DURATIONS: Final = _histogram(
    "nexus_request_duration_seconds", "operation kind", "From the head of a request to the end of its answer."
)
FIRST_BYTES: Final = _histogram(
    "nexus_first_byte_seconds", "operation", "From the head of a request to the first event of its stream."
)
TOKEN_SECONDS: Final = _histogram(
    "nexus_output_token_seconds", "upstream", "Time per output token of a stream, the first one not counted."
)
OVERHEADS: Final = _histogram(
    "nexus_overhead_seconds",
    "operation kind",
    "What the gateway itself took: from the end of the body to the end of the answer, the upstream's time not counted.",
)
TOKENS: Final = _counter(
    "nexus_tokens_total", "route direction", "Tokens as the upstreams counted them, estimated where they did not."
)

# ---- from whom

CALLER_REQUESTS: Final = _counter("nexus_caller_requests_total", "caller status", "Inference requests by who called.")
CALLER_TOKENS: Final = _counter("nexus_caller_tokens_total", "caller direction", "Tokens by who called.")
CALLER_REFUSALS: Final = _counter(
    "nexus_caller_refusals_total", "caller limit", "Requests that a limit of their caller refused."
)

# ---- limits

DECISIONS: Final = _counter("nexus_limiter_decisions_total", "decision", "Decisions of the limiter.")
DEGRADED: Final = _counter(
    "nexus_limiter_degraded_total", "basis", "Decisions made while the shared store was away, by what they rested on."
)
REDIS_UP: Final = _gauge("nexus_redis_up", "", "1 while limits are shared through Redis.")
REDIS_PROCESSES: Final = _gauge("nexus_redis_processes", "", "Gateway processes that share limits, this one included.")

# ---- upstreams

ATTEMPTS: Final = _counter("nexus_upstream_attempts_total", "upstream outcome", "Attempts at an upstream.")
ATTEMPT_SECONDS: Final = _histogram(
    "nexus_upstream_attempt_seconds", "upstream kind", "How long an attempt took, a stream to its end."
)
UPSTREAM_IN_FLIGHT: Final = _gauge("nexus_upstream_in_flight", "upstream", "Attempts under way.")
AVAILABLE: Final = _gauge("nexus_upstream_available", "upstream", "1 if it may be asked now.")
ISOLATED: Final = _gauge("nexus_upstream_isolated", "upstream", "1 while an operator has taken it out.")
COOLDOWNS: Final = _counter(
    "nexus_upstream_cooldowns_total", "upstream", "Times that an upstream asked to be left alone."
)
FALLBACKS: Final = _counter(
    "nexus_fallbacks_total", "route upstream", "Answers by another upstream than the chosen one."
)
RETRIES_REFUSED: Final = _counter(
    "nexus_retries_refused_total", "upstream", "Repetitions that the budget had no room for."
)
BREAKER_STATE: Final = _gauge("nexus_breaker_state", "upstream state", "1 for the state that it is in.")
TRANSITIONS: Final = _counter("nexus_breaker_transitions_total", "upstream from to", "Changes of a breaker.")
SHADOWED: Final = _counter("nexus_shadow_requests_total", "outcome", "Requests chosen to be mirrored.")
SHADOW_COMPARED: Final = _counter("nexus_shadow_compared_total", "differs", "Compared answers, by what differed.")

# ---- privacy and audit

MASKED: Final = _counter("nexus_masked_identifiers_total", "type", "Identifiers hidden from upstreams.")
MASKED_REQUESTS: Final = _counter("nexus_masked_requests_total", "", "Requests in which something was hidden.")
AUDIT_DROPPED: Final = _counter("nexus_audit_records_dropped_total", "", "Audit records that are lost.")
AUDIT_FAILING: Final = _gauge("nexus_audit_failing", "", "1 while audit records cannot be written.")

# ---- the gateway itself

LOOP_LAG: Final = _histogram(
    "nexus_loop_lag_seconds", "", "How late the event loop gave a turn that was due. Its clock ticks in milliseconds."
)
LINES_DROPPED: Final = _counter("nexus_log_lines_dropped_total", "", "Log lines that nobody read in time.")
SPANS: Final = _counter("nexus_spans_total", "outcome", "Finished spans, by whether the receiver took them.")
BUILD: Final = _gauge("nexus_build_info", "version", "1 for the version that runs.")

ALL: Final = tuple(value for value in dict(vars()).values() if isinstance(value, Family))
