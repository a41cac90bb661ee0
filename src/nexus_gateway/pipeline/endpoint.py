"""An upstream and what the gateway knows of it while it runs.

For:      one object per upstream that every request shares. No locks: a critical section is a stretch without await.
Touches:  nothing.
"""

from dataclasses import dataclass

from nexus_gateway.core.errors import UpstreamBusy
from nexus_gateway.upstreams.base import Upstream


@dataclass(frozen=True, slots=True)
class Bound:
    """A time limit in seconds, and the setting that gave it: an error about it names the setting."""

    seconds: float
    setting: str


class Endpoint:
    """`attempt` bounds one attempt. `in_flight` counts attempts that hold a permit."""

    __slots__ = ("attempt", "in_flight", "max_concurrency", "name", "upstream")

    def __init__(self, upstream: Upstream, request_timeout: Bound) -> None:
        own_s = upstream.traits.timeout_s
        self.upstream = upstream
        self.name = upstream.name
        self.max_concurrency = upstream.traits.max_concurrency
        self.in_flight = 0
        self.attempt = request_timeout
        if own_s is not None and own_s < request_timeout.seconds:
            self.attempt = Bound(own_s, f"timeout_seconds of upstream '{self.name}'")

    def enter(self) -> None:
        """Take a permit. Raises UpstreamBusy."""
        if self.max_concurrency is not None and self.in_flight >= self.max_concurrency:
            raise UpstreamBusy(
                f"Upstream '{self.name}' has {self.max_concurrency} requests under way, as many as it may.",
                upstream=self.name,
            )
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
