"""Counts of finished requests, for `GET /metrics`.

For:      adding up on the request path in plain integers, and telling Prometheus when it asks.
Touches:  nothing on the request path; a registry of its own, never the process-wide one.

The library's counters take a lock and a label look-up for every step; a tally is one dictionary look-up and an
addition, and the library still writes the exposition.
"""

import logging
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from nexus_gateway.core.breaker import State
from nexus_gateway.core.health import UpstreamHealth
from nexus_gateway.core.model import OPERATION_NAMES, CallRecord
from nexus_gateway.core.shadow_compare import Comparison

from .base import AuditState

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

log = logging.getLogger(__name__)

Labels = tuple[str | int, ...]


class Tally:
    """A histogram with fixed bounds: how many observations fell at or below each, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as the exposition wants them."""
        so_far = 0
        cumulative: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, map(float, SECONDS)), "+Inf"), self.counts, strict=True):
            so_far += count
            cumulative.append((bound, so_far))
        return cumulative


class Metrics(Collector):
    """An Observer that is also what Prometheus reads. Labels come from closed sets, whatever callers send."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        self._dropped_lines = dropped_lines
        self._in_flight = 0
        self._requests: defaultdict[Labels, int] = defaultdict(int)
        self._rejections: defaultdict[Labels, int] = defaultdict(int)
        self._decisions: defaultdict[Labels, int] = defaultdict(int)
        self._attempts: defaultdict[Labels, int] = defaultdict(int)
        self._tokens: defaultdict[Labels, int] = defaultdict(int)
        self._fallbacks: defaultdict[Labels, int] = defaultdict(int)
        self._refused_retries: defaultdict[Labels, int] = defaultdict(int)
        self._cooldowns: defaultdict[Labels, int] = defaultdict(int)
        self._shadowed: defaultdict[Labels, int] = defaultdict(int)
        self._shadow_differs: defaultdict[Labels, int] = defaultdict(int)
        self._transitions: defaultdict[Labels, int] = defaultdict(int)
        self._store_state: str | None = None  # None: limits are this process's own
        self._bases: defaultdict[Labels, int] = defaultdict(int)
        self.upstreams: Sequence[UpstreamHealth] = ()  # whose state is asked for when Prometheus comes
        self.audit: AuditState | None = None  # likewise
        self._durations: defaultdict[Labels, Tally] = defaultdict(Tally)
        self._first_bytes: defaultdict[Labels, Tally] = defaultdict(Tally)
        self._attempt_durations: defaultdict[Labels, Tally] = defaultdict(Tally)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def started(self) -> None:
        self._in_flight += 1

    def finished(self, record: CallRecord) -> None:
        self._in_flight -= 1
        operation = OPERATION_NAMES[record.operation]
        kind = (operation, "stream" if record.stream else "plain")
        self._requests[operation, record.status, record.error_code or "none"] += 1
        self._durations[kind].observe(record.finished_at_s - record.started_at_s)
        if record.verdict is not None:
            self._decisions["admitted" if record.verdict.allowed else "refused",] += 1
        if record.limit_basis is not None and record.limit_basis != "whole":
            self._bases[record.limit_basis,] += 1
        if record.first_byte_at_s is not None and record.status == 200:
            self._first_bytes[kind].observe(record.first_byte_at_s - record.started_at_s)
        elif record.error_code is not None and not record.attempts:
            self._rejections[record.error_code,] += 1
        for attempt in record.attempts:
            self._attempts[attempt.upstream, attempt.outcome] += 1
            self._attempt_durations[attempt.upstream,].observe(attempt.seconds)
        if record.usage is not None and record.route is not None:
            self._tokens[record.route, "prompt"] += record.usage.prompt_tokens
            self._tokens[record.route, "completion"] += record.usage.completion_tokens

    def fell_back(self, route: str, upstream: str) -> None:
        self._fallbacks[route, upstream] += 1

    def retry_refused(self, upstream: str) -> None:
        self._refused_retries[upstream,] += 1

    def cooled(self, upstream: str) -> None:
        self._cooldowns[upstream,] += 1

    def breaker_changed(self, upstream: str, before: str, after: str) -> None:
        self._transitions[upstream, before, after] += 1
        log.warning("breaker_changed", extra={"upstream": upstream, "from": before, "to": after})

    def store_changed(self, state: str, reason: str) -> None:
        """The shared store of limits went into another state; `reason` is a word."""
        self._store_state = state
        log.warning("redis_changed", extra={"state": state, "reason": reason})

    def shadow_sent(self) -> None:
        self._shadowed["sent",] += 1

    def shadow_dropped(self, reason: str) -> None:
        self._shadowed[f"dropped: {reason}",] += 1

    def shadow_compared(self, comparison: Comparison) -> None:
        self._shadowed["compared",] += 1
        for aspect in comparison.differs or ("nothing",):
            self._shadow_differs[aspect,] += 1

    def collect(self) -> Iterator[Metric]:
        """Read by the registry."""
        yield GaugeMetricFamily(
            "nexus_in_flight_requests", "Inference requests that are being answered.", value=self._in_flight
        )
        yield CounterMetricFamily(
            "nexus_log_lines_dropped", "Log lines that nobody read in time.", value=self._dropped_lines()
        )
        yield _counter(
            "nexus_requests", "Inference requests by how they ended.", ("operation", "status", "code"), self._requests
        )
        yield _counter(
            "nexus_rejections", "Requests refused before any upstream was asked.", ("code",), self._rejections
        )
        yield _counter("nexus_limiter_decisions", "Decisions of the limiter.", ("decision",), self._decisions)
        yield _counter("nexus_upstream_attempts", "Attempts at an upstream.", ("upstream", "outcome"), self._attempts)
        yield _counter("nexus_tokens", "Tokens as the upstreams counted them.", ("route", "direction"), self._tokens)
        yield _histogram(
            "nexus_request_duration_seconds", "From the head of a request to the end of its answer.",
            ("operation", "kind"), self._durations,
        )  # fmt: skip
        yield _histogram(
            "nexus_first_byte_seconds", "From the head of a request to the head of its answer.",
            ("operation", "kind"), self._first_bytes,
        )  # fmt: skip
        yield _histogram(
            "nexus_upstream_attempt_seconds", "How long an attempt took.", ("upstream",), self._attempt_durations
        )
        yield _counter(
            "nexus_fallbacks",
            "Answers by another upstream than the chosen one.",
            ("route", "upstream"),
            self._fallbacks,
        )
        yield _counter(
            "nexus_retries_refused",
            "Repetitions that the budget had no room for.",
            ("upstream",),
            self._refused_retries,
        )
        yield _counter(
            "nexus_upstream_cooldowns", "Times that an upstream asked to be left alone.", ("upstream",), self._cooldowns
        )
        yield _counter(
            "nexus_breaker_transitions", "Changes of a breaker.", ("upstream", "from", "to"), self._transitions
        )
        yield _counter("nexus_shadow_requests", "Requests chosen to be mirrored.", ("outcome",), self._shadowed)
        yield _counter(
            "nexus_shadow_compared", "Compared answers, by what differed.", ("differs",), self._shadow_differs
        )
        yield _counter(
            "nexus_limiter_degraded", "Decisions made while the shared store was away, by what they rested on.",
            ("basis",), self._bases,
        )  # fmt: skip
        if self._store_state is not None:
            shared = int(self._store_state == "shared")
            yield GaugeMetricFamily("nexus_redis_up", "1 while limits are shared through Redis.", value=shared)
        yield from self._collect_upstreams()
        yield from self._collect_audit()

    def _collect_upstreams(self) -> Iterator[Metric]:
        now_s = time.monotonic()
        state = GaugeMetricFamily("nexus_breaker_state", "1 for the state that it is in.", labels=["upstream", "state"])
        in_flight = GaugeMetricFamily("nexus_upstream_in_flight", "Attempts under way.", labels=["upstream"])
        available = GaugeMetricFamily("nexus_upstream_available", "1 if it may be asked now.", labels=["upstream"])
        for upstream in self.upstreams:
            present = upstream.breaker.snapshot(now_s).state
            for each in State:
                state.add_metric([upstream.name, each.value], int(each is present))
            in_flight.add_metric([upstream.name], upstream.load.in_flight)
            available.add_metric([upstream.name], int(upstream.wait_s(now_s) <= 0))
        yield from (state, in_flight, available)

    def _collect_audit(self) -> Iterator[Metric]:
        if self.audit is not None:
            yield CounterMetricFamily(
                "nexus_audit_records_dropped", "Audit records that are lost.", value=self.audit.dropped
            )
            yield GaugeMetricFamily(
                "nexus_audit_failing", "1 while audit records cannot be written.", value=int(self.audit.failing)
            )


def _counter(name: str, text: str, labels: Iterable[str], values: dict[Labels, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(labels))
    for key, value in values.items():
        family.add_metric([str(part) for part in key], value)
    return family


def _histogram(name: str, text: str, labels: Iterable[str], values: dict[Labels, Tally]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    for key, tally in values.items():
        family.add_metric([str(part) for part in key], tally.buckets(), tally.total)
    return family
