"""What the pipeline asks of a store of limits; memory and Redis answer alike.

For:      one decision per request, over all limits of a caller at once.
Touches:  nothing itself.
"""

from typing import Protocol

from nexus_gateway.core.account import Basis, Cost, Decision, Hold
from nexus_gateway.core.model import Principal, Verdict

__all__ = ["Basis", "Cost", "Decision", "Hold", "LimitStore", "Verdict"]


class LimitStore(Protocol):
    """`now_s` is the caller's monotonic clock throughout."""

    def look(self, principal: Principal, now_s: float) -> Decision | None:
        """The refusal that is already certain, without asking anyone; consumes nothing. None: ask `admit`."""
        ...

    async def admit(self, principal: Principal, cost: Cost, now_s: float) -> Decision:
        """Reserve a request, its tokens and a slot together, or refuse and consume nothing.

        Whoever gets a hold settles it. If the waiting caller is cancelled, its reservation is undone.
        """
        ...

    def settle(self, hold: Hold, used_tokens: int, now_s: float) -> None:
        """End what the hold keeps: `used_tokens` takes the place of what was reserved. Never waits.

        Once on every way out of a request; a second time does nothing.
        """
        ...
