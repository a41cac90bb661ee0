"""What Prometheus reads at `GET /metrics`.

For:      counting what the observers' protocols tell, and asking the rest for its state when Prometheus comes.
Touches:  a registry of its own, never the process-wide one; the log, for changes of breakers and of Redis.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from nexus_gateway import __version__
from nexus_gateway.core.breaker import State
from nexus_gateway.core.health import UpstreamHealth
from nexus_gateway.core.shadow_compare import Comparison

from . import families
from .base import AuditState
from .lag import LoopLag
from .recent import Totals
from .traffic import Traffic

TRANSITIONS: Final = (  # all that a breaker can make: told of before they happen, so that the first one is a rise
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.HALF_OPEN),
    (State.OPEN, State.CLOSED),
    (State.HALF_OPEN, State.OPEN),
    (State.HALF_OPEN, State.CLOSED),
)
SHARED: Final = "shared"

log = logging.getLogger(__name__)


class Metrics(Collector):
    """Hears of routing, mirrors and Redis; `traffic` hears of requests. Labels come from closed sets."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        self.traffic = Traffic()
        self.lag = LoopLag()
        self.upstreams: Sequence[UpstreamHealth] = ()  # whose state is asked for when Prometheus comes
        self.audit: AuditState | None = None  # likewise
        self.processes: Callable[[], int] | None = None  # how many share limits; None: this process shares them not
        self.spans: Callable[[], tuple[int, int]] = lambda: (0, 0)  # sent and lost
        self._dropped_lines = dropped_lines
        self._store_state = ""
        self._fallbacks: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._refused_retries: defaultdict[str, int] = defaultdict(int)
        self._cooldowns: defaultdict[str, int] = defaultdict(int)
        self._transitions: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._unread: defaultdict[str, int] = defaultdict(int)
        self._shadowed: defaultdict[str, int] = defaultdict(int)
        self._shadow_differs: defaultdict[str, int] = defaultdict(int)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def fell_back(self, route: str, upstream: str) -> None:
        self._fallbacks[route, upstream] += 1

    def retry_refused(self, upstream: str) -> None:
        self._refused_retries[upstream] += 1

    def cooled(self, upstream: str) -> None:
        self._cooldowns[upstream] += 1

    def breaker_changed(self, upstream: str, before: str, after: str) -> None:
        self._transitions[upstream, before, after] += 1
        log.warning("breaker_changed", extra={"upstream": upstream, "from": before, "to": after})

    def store_changed(self, state: str, reason: str) -> None:
        """The shared store of limits went into another state; `reason` is a word."""
        self._store_state = state
        log.warning("redis_changed", extra={"state": state, "reason": reason})

    def connection_refused(self, code: str) -> None:
        """What came on a connection was no request."""
        self._unread[code] += 1

    def shadow_sent(self) -> None:
        self._shadowed["sent"] += 1

    def shadow_dropped(self, reason: str) -> None:
        self._shadowed[f"dropped: {reason}"] += 1

    def shadow_compared(self, comparison: Comparison) -> None:
        self._shadowed["compared"] += 1
        for aspect in comparison.differs or ("nothing",):
            self._shadow_differs[aspect] += 1

    def totals(self) -> Totals:
        """What the operators' page shows, summed up."""
        return self.traffic.totals(upstream.name for upstream in self.upstreams)

    def collect(self) -> Iterator[Metric]:
        """Read by the registry."""
        yield from self.traffic.collect(upstream.name for upstream in self.upstreams)
        yield families.UNREAD.of(((code,), count) for code, count in self._unread.items())
        yield from self._collect_upstreams()
        yield families.FALLBACKS.of(self._fallbacks.items())
        yield families.SHADOWED.of(((outcome,), count) for outcome, count in self._shadowed.items())
        yield families.SHADOW_COMPARED.of(((aspect,), count) for aspect, count in self._shadow_differs.items())
        if self.processes is not None:
            yield families.REDIS_UP.one(self._store_state == SHARED)
            yield families.REDIS_PROCESSES.one(self.processes())
        if self.audit is not None:
            yield families.AUDIT_DROPPED.one(self.audit.dropped)
            yield families.AUDIT_FAILING.one(self.audit.failing)
        yield families.LOOP_LAG.spread([((), self.lag.tally)])
        yield families.LINES_DROPPED.one(self._dropped_lines())
        sent, lost = self.spans()
        yield families.SPANS.of([(("sent",), sent), (("lost",), lost)])
        yield families.BUILD.of([((__version__,), 1)])

    def _collect_upstreams(self) -> Iterator[Metric]:
        now_s = time.monotonic()
        members = [(upstream.name, upstream, upstream.breaker.snapshot(now_s).state) for upstream in self.upstreams]
        yield families.BREAKER_STATE.of(
            ((name, state.value), state is present) for name, _, present in members for state in State
        )
        yield families.TRANSITIONS.of(
            ((name, before.value, after.value), self._transitions[name, before.value, after.value])
            for name, _, _ in members
            for before, after in TRANSITIONS
        )
        yield families.UPSTREAM_IN_FLIGHT.of(((name,), upstream.load.in_flight) for name, upstream, _ in members)
        yield families.AVAILABLE.of(((name,), upstream.wait_s(now_s) <= 0) for name, upstream, _ in members)
        yield families.ISOLATED.of(((name,), upstream.is_isolated) for name, upstream, _ in members)
        yield families.COOLDOWNS.of(((name,), self._cooldowns[name]) for name, _, _ in members)
        yield families.RETRIES_REFUSED.of(((name,), self._refused_retries[name]) for name, _, _ in members)
