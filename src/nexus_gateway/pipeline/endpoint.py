"""An upstream and what the gateway holds of it while it runs.

For:      one object per upstream that every request shares. No locks: a critical section is a stretch without await.
Touches:  nothing.
"""

from dataclasses import dataclass

from nexus_gateway.core.breaker import Outcome, Permit
from nexus_gateway.core.errors import UpstreamBusy, UpstreamStarting
from nexus_gateway.core.health import UpstreamHealth
from nexus_gateway.stores.base import ALONE, HealthSharing
from nexus_gateway.upstreams.base import Upstream


@dataclass(frozen=True, slots=True)
class Bound:
    """A time limit in seconds, and the setting that gave it: an error about it names the setting."""

    seconds: float
    setting: str
    is_rest: bool = False  # what was left of another limit: passing it says nothing about the upstream


def tightest(first: Bound, *others: Bound | None) -> Bound:
    """The smallest of the limits that are set; of equal ones the first."""
    for other in others:
        if other is not None and other.seconds < first.seconds:
            first = other
    return first


class Endpoint:
    """`attempt` bounds one attempt."""

    __slots__ = ("attempt", "health", "last_error", "max_concurrency", "name", "sharing", "upstream")

    def __init__(
        self, upstream: Upstream, health: UpstreamHealth, request_timeout: Bound, sharing: HealthSharing = ALONE
    ) -> None:
        own_s = upstream.traits.timeout_s
        own = Bound(own_s, f"timeout_seconds of upstream '{upstream.name}'") if own_s is not None else None
        self.upstream = upstream
        self.health = health
        self.sharing = sharing
        self.name = upstream.name
        self.last_error: dict[str, object] | None = None  # of the attempt that failed last; `at` is Unix time
        self.max_concurrency = upstream.traits.max_concurrency
        self.attempt = tightest(request_timeout, own)

    def enter(self, now_s: float, deadline_s: float) -> Permit | None:
        """A permit for one attempt, or None when the upstream may not be asked. Raises UpstreamBusy when as many are
        under way as may be. Whoever gets a permit settles it."""
        if self._is_full:
            raise UpstreamBusy(
                f"Upstream '{self.name}' has {self.max_concurrency} requests under way, as many as it may.",
                upstream=self.name,
            )
        return self.health.acquire(now_s, deadline_s)

    def starting(self, retry_after_s: float, status: int | None = None) -> UpstreamStarting:
        """What callers are told while it comes up."""
        what = f"Upstream '{self.name}' is still starting; try again later."
        return UpstreamStarting(what, upstream=self.name, status=status, retry_after_s=retry_after_s)

    async def claim(self, probe: Permit) -> Permit | None:
        """The permit with which the request may go out after all, if other processes have a say in who probes."""
        may_go = False
        try:
            may_go = await self.sharing.claim(self.name, probe)
        finally:
            if not may_go:
                self.health.settle(probe, Outcome.NEUTRAL, probe.acquired_s)
        if may_go:
            return probe
        if self._is_full or not self.health.breaker.is_closed:
            return None
        return self.health.acquire(probe.acquired_s, probe.deadline_s)  # somebody else's probe has just succeeded

    def isolate(self) -> None:
        """Take it out by hand, in all processes that share."""
        self.health.isolate()
        self.sharing.isolation_changed(self.name)

    def restore(self) -> None:
        self.health.restore()
        self.sharing.isolation_changed(self.name)

    @property
    def _is_full(self) -> bool:
        return self.max_concurrency is not None and self.health.load.in_flight >= self.max_concurrency
