"""What the pipeline asks of a store of limits; memory and Redis answer alike.

For:      one decision per request, over all limits of a caller at once.
Touches:  nothing itself.
"""

from typing import Protocol

from nexus_gateway.core.model import Principal, Verdict

__all__ = ["LimitStore", "Verdict"]


class LimitStore(Protocol):
    def look(self, principal: Principal, now_s: float) -> Verdict | None:
        """What is known here and now without asking anyone; consumes nothing. None: nothing is known, or no limit."""
        ...

    async def admit(self, principal: Principal, now_s: float) -> Verdict | None:
        """Reserve one request, or refuse and consume nothing. None: this caller has no limit."""
        ...
