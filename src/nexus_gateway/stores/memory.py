"""Limits kept in this process.

For:      one gateway process alone; the reference for every other store.
Touches:  memory only. The caller brings the clock; nothing here waits.
"""

from collections import OrderedDict

from nexus_gateway.core.limiter import Window
from nexus_gateway.core.model import Principal

from .base import Verdict


class MemoryLimitStore:
    """Windows by principal. Whoever spent nothing for a minute is forgotten as others arrive, so memory is bounded.

    Needs no lock: a decision is a stretch without `await`.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[str, Window] = OrderedDict()

    def __len__(self) -> int:
        """Principals that are remembered."""
        return len(self._windows)

    def look(self, principal: Principal, now_s: float) -> Verdict | None:
        window = self._windows.get(principal.key_id)
        limit = principal.requests_per_minute
        if window is None or limit is None:
            return None
        window.limit = limit
        window.advance(now_s)
        return _verdict(window, window.total < limit, now_s)

    async def admit(self, principal: Principal, now_s: float) -> Verdict | None:
        limit = principal.requests_per_minute
        if limit is None:
            return None
        window = self._windows.get(principal.key_id)
        if window is None:
            self._forget_idle(now_s)
            window = self._windows[principal.key_id] = Window(limit)
        window.limit = limit  # a reload may have changed it
        return _verdict(window, window.admit(now_s), now_s)

    def _forget_idle(self, now_s: float) -> None:
        """Check the two that were checked longest ago: two for each newcomer, so the idle go faster than any come."""
        for _ in range(min(2, len(self._windows))):
            key_id, window = next(iter(self._windows.items()))
            if window.is_idle(now_s):
                del self._windows[key_id]
            else:
                self._windows.move_to_end(key_id)


def _verdict(window: Window, allowed: bool, now_s: float) -> Verdict:
    return Verdict(
        allowed, window.limit, window.remaining(), window.reset_s(now_s), 0.0 if allowed else window.wait_s(now_s)
    )
