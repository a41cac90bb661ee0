"""What the pipeline asks of a store of limits; memory and Redis answer alike.

For:      one decision per request, over all limits of a caller at once.
Touches:  nothing itself.
"""

from typing import Protocol

import msgspec

from nexus_gateway.core.model import Principal


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The decision about one arrival and what it left of the limit.

    `reset_s`: until the whole limit is free again. `retry_after_s`: until a refused request would be let through,
    0 for an admitted one.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float


class LimitStore(Protocol):
    def look(self, principal: Principal, now_s: float) -> Verdict | None:
        """What is known here and now without asking anyone; consumes nothing. None: nothing is known, or no limit."""
        ...

    async def admit(self, principal: Principal, now_s: float) -> Verdict | None:
        """Reserve one request, or refuse and consume nothing. None: this caller has no limit."""
        ...
