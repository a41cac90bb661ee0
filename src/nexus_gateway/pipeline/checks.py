"""Asks upstreams how they are, off the request path.

For:      upstreams with `health=` in their URL: one that fails its check is skipped until it passes again.
Touches:  those upstreams, every few seconds, by one task each.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from nexus_gateway.core.errors import UpstreamError

from .endpoint import Endpoint

log = logging.getLogger(__name__)

HEALTHY: Final = "upstream_healthy"
JITTER: Final = 0.2  # of the interval, so that replicas do not check in step


class HealthChecks:
    """`every_s`: between two checks of one upstream; `timeout_s`: for one of them."""

    def __init__(self, every_s: float, timeout_s: float, clock: Callable[[], float], dice: Callable[[], float]) -> None:
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._dice = dice
        self._found: dict[str, str] = {}

    async def watch(self, endpoint: Endpoint) -> None:
        """Runs until it is cancelled."""
        while True:
            pause_s = self._every_s * (1 - JITTER * self._dice())
            await self.check(endpoint, pause_s)
            await asyncio.sleep(pause_s)

    async def check(self, endpoint: Endpoint, pause_s: float) -> None:
        """Check once. `pause_s`: until the next check."""
        health = endpoint.health
        try:
            await endpoint.upstream.check(self._clock() + self._timeout_s)
        except UpstreamError as failure:
            now_s = self._clock()
            found = "upstream_starting" if health.is_starting(now_s) else "upstream_unhealthy"
            self._tell(endpoint, found, cause=failure.outcome)
            health.fail_check(now_s + pause_s)
        else:
            self._tell(endpoint, HEALTHY)
            health.pass_check()

    def _tell(self, endpoint: Endpoint, found: str, **more: str) -> None:
        """A line for every change. To be well from the first check on is none."""
        if found != self._found.get(endpoint.name, HEALTHY):
            log.warning(found, extra={"upstream": endpoint.name, **more})
        self._found[endpoint.name] = found
