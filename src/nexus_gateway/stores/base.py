"""What the pipeline asks of what processes may share: limits, and how upstreams stand.

For:      one decision per request, over all limits of a caller at once; breakers and isolation that others hear of.
Touches:  nothing itself.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from nexus_gateway.core.account import Basis, Cost, Decision, Hold, Use
from nexus_gateway.core.breaker import Permit, State
from nexus_gateway.core.model import Principal, Verdict

__all__ = ["ALONE", "Basis", "Cost", "Decision", "HealthSharing", "Hold", "LimitStore", "Use", "Verdict"]


class LimitStore(Protocol):
    """`now_s` is the caller's monotonic clock throughout."""

    def look(self, principal: Principal, now_s: float) -> Decision | None:
        """The refusal that is already certain, without asking anyone; consumes nothing. None: ask `admit`."""
        ...

    def admit_at_once(self, principal: Principal, cost: Cost, now_s: float) -> Decision | None:
        """The same as `admit`, where it takes no waiting. None: it does."""
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

    async def use(self, principals: Sequence[Principal], now_s: float) -> list[Use]:
        """What each has used of its limits, for operators to see. Consumes nothing."""
        ...


class HealthSharing(Protocol):
    """Tells other processes how upstreams stand here, and applies what they tell. Nothing fails without them."""

    @property
    def is_shared(self) -> bool:
        """Whether others hear of it just now."""
        ...

    async def started(self) -> None:
        """Return once it is known whether there is anybody to share with, and what they know was applied."""
        ...

    async def claim(self, upstream: str, permit: Permit) -> bool:
        """Whether the probe of this permit may go out, so that one does in all processes. Waits 50 ms at most.

        False: the permit is settled. If the waiting caller is cancelled, settling it is the caller's part.
        """
        ...

    def breaker_changed(self, upstream: str, before: State, after: State) -> None:
        """Called while it changes. Never waits."""
        ...

    def isolation_changed(self, upstream: str) -> None:
        """Called after an operator has changed it here. Never waits."""
        ...


class Alone:
    """Each process on its own."""

    __slots__ = ()
    is_shared: Final = False

    async def started(self) -> None:
        pass

    async def claim(self, upstream: str, permit: Permit) -> bool:
        return True

    def breaker_changed(self, upstream: str, before: State, after: State) -> None:
        pass

    def isolation_changed(self, upstream: str) -> None:
        pass


ALONE: Final = Alone()
