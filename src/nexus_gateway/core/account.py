"""All limits of one caller, decided at once: requests, tokens and requests in flight.

For:      one decision that reserves everything or nothing.
Touches:  nothing. The caller brings the clock.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

import msgspec

from .limiter import HOLD_WAIT_S, Budget, Window
from .model import Principal, Verdict

Resource = Literal["requests", "tokens", "concurrency"]


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What one request needs besides itself. `least_tokens`: how few it would be content with; None: all or nothing."""

    tokens: int = 0
    least_tokens: int | None = None


_SMALLEST: Final = Cost(1)


class Basis(Enum):
    """What a decision rests on."""

    WHOLE = "whole"  # all that is to be known
    SHARE = "share"  # this process's share, while the shared store is away
    UNCHECKED = "unchecked"  # nothing: the store is away, and the configuration lets everybody in
    NONE = "none"  # the store is away, and the configuration lets nobody in


class Hold(msgspec.Struct, eq=False, gc=False):
    """What an admitted request keeps from others until it is settled. The store settles it once; again does nothing.

    It counts as in flight and keeps `tokens`, None where those are not limited. Where nothing but requests is limited
    it is settled from the start. The rest is for stores that share: `name` is what they call it, `is_shared` says that
    the shared store knows it, `is_local` that this process counts it alone.
    """

    key_id: str
    tokens: int | None = None
    name: str = ""
    is_settled: bool = False
    is_shared: bool = False
    is_local: bool = False

    @classmethod
    def of(cls, principal: Principal, tokens: int, name: str = "") -> "Hold":
        """What the limits of `principal` make of an admission that reserves `tokens`."""
        if principal.tokens_per_minute is not None:
            return cls(principal.key_id, tokens, name)
        return cls(principal.key_id, None, name, is_settled=principal.max_concurrency is None)


class Use(msgspec.Struct, frozen=True, gc=False):
    """What a caller has used of its limits. None: it has no such limit, or nobody knows."""

    requests: int | None = None  # of the last minute
    tokens: int | None = None  # of the last minute, reserved and owed: above the limit while there is debt
    in_flight: int | None = None
    basis: Basis = Basis.WHOLE


class Decision(msgspec.Struct):
    """What one arrival is told. A verdict is None where the caller has no such limit; `hold` is None when refused."""

    requests: Verdict | None = None
    tokens: Verdict | None = None
    concurrency: Verdict | None = None
    hold: Hold | None = None
    basis: Basis = Basis.WHOLE

    @property
    def refusal(self) -> tuple[Resource, Verdict] | None:
        """The limit that stands in the way for longest; None: admitted, or refused for want of a store."""
        named: list[tuple[Resource, Verdict | None]] = [
            ("requests", self.requests),
            ("tokens", self.tokens),
            ("concurrency", self.concurrency),
        ]
        worst: tuple[Resource, Verdict] | None = None
        for resource, verdict in named:
            if verdict is None or verdict.allowed:
                continue
            if worst is None or verdict.retry_after_s > worst[1].retry_after_s:
                worst = resource, verdict
        return worst


@dataclass(slots=True)
class Account:
    """What one caller has spent and holds. Limits come with each call, so that a reload counts at once."""

    requests: Window = field(default_factory=lambda: Window(0))
    tokens: Budget = field(default_factory=lambda: Budget(Window(0)))
    open: int = 0  # holds that are not settled

    def admit(self, principal: Principal, cost: Cost, now_s: float) -> Decision:
        """Reserve all that the request needs, or refuse and change nothing."""
        limit = principal.requests_per_minute
        if limit is not None and principal.tokens_per_minute is None and principal.max_concurrency is None:
            window = self.requests
            window.limit = limit
            window.advance(now_s)
            left = limit - window.total
            if left > 0:  # the usual case, told apart for its speed
                window.spend(1)
                verdict = Verdict(True, limit, left - 1, window.reset_s(now_s), 0.0)
                return Decision(verdict, hold=Hold.of(principal, 0))
        return self._decide(principal, cost, now_s, consume=True)

    def look(self, principal: Principal, now_s: float) -> Decision | None:
        """The refusal that even the smallest request would meet now; None if it would be admitted. Changes nothing."""
        requests, slots = principal.requests_per_minute, principal.max_concurrency
        if (
            principal.tokens_per_minute is None
            and (requests is None or self.requests.total < requests)
            and (slots is None or self.open < slots)
        ):
            return None  # without a look at the time: what has passed meanwhile only makes more room
        decision = self._decide(principal, _SMALLEST, now_s, consume=False)
        return decision if decision.refusal is not None else None

    def use(self, principal: Principal, now_s: float) -> Use:
        """What is used of the caller's limits. Consumes nothing."""
        requests = tokens = None
        if principal.requests_per_minute is not None:
            self.requests.advance(now_s)
            requests = self.requests.total
        if principal.tokens_per_minute is not None:
            self.tokens.advance(now_s)
            tokens = self.tokens.window.total + self.tokens.reserved + self.tokens.debt
        return Use(requests, tokens, None if principal.max_concurrency is None else self.open)

    def settle(self, hold: Hold, used_tokens: int, now_s: float) -> None:
        """End what the hold keeps. Once for each hold: whoever calls sees to that."""
        self.open -= 1
        if hold.tokens is not None:
            self.tokens.advance(now_s)
            self.tokens.settle(hold.tokens, used_tokens)

    def is_idle(self, now_s: float) -> bool:
        return not self.open and self.requests.is_idle(now_s) and self.tokens.is_idle(now_s)

    def _decide(self, principal: Principal, cost: Cost, now_s: float, *, consume: bool) -> Decision:
        request_fits = tokens_fit = slot_fits = True
        tokens: int | None = None
        if principal.requests_per_minute is not None:
            self.requests.limit = principal.requests_per_minute
            self.requests.advance(now_s)
            request_fits = self.requests.total < self.requests.limit
        if principal.tokens_per_minute is not None:
            self.tokens.window.limit = principal.tokens_per_minute
            self.tokens.advance(now_s)
            tokens = self._grant(cost)
            tokens_fit = self.tokens.fits(tokens)
        if principal.max_concurrency is not None:
            slot_fits = self.open < principal.max_concurrency
        hold: Hold | None = None
        if consume and request_fits and tokens_fit and slot_fits:
            hold = self._take(principal, tokens or 0)
        return Decision(
            None if principal.requests_per_minute is None else self._tell_requests(request_fits, now_s),
            None if tokens is None else self._tell_tokens(tokens, tokens_fit, now_s),
            None if principal.max_concurrency is None else self._tell_slots(principal.max_concurrency, slot_fits),
            hold,
        )

    def _grant(self, cost: Cost) -> int:
        """What to reserve: all, or what is left if the caller is content with that."""
        if cost.least_tokens is None:
            return cost.tokens
        return min(cost.tokens, max(cost.least_tokens, self.tokens.remaining()))

    def _take(self, principal: Principal, tokens: int) -> Hold:
        if principal.requests_per_minute is not None:
            self.requests.spend(1)
        hold = Hold.of(principal, tokens)
        if not hold.is_settled:
            self.tokens.reserve(tokens)
            self.open += 1
        return hold

    def _tell_requests(self, fits: bool, now_s: float) -> Verdict:
        window = self.requests
        wait_s = 0.0 if fits else window.wait_s(now_s)
        return Verdict(fits, window.limit, window.remaining(), window.reset_s(now_s), wait_s)

    def _tell_tokens(self, tokens: int, fits: bool, now_s: float) -> Verdict:
        budget = self.tokens
        wait_s = 0.0 if fits else budget.wait_s(now_s, tokens)
        return Verdict(fits, budget.window.limit, budget.remaining(), budget.reset_s(now_s), wait_s)

    def _tell_slots(self, limit: int, fits: bool) -> Verdict:
        left = max(0, limit - self.open)
        return Verdict(fits, limit, left, HOLD_WAIT_S if left < limit else 0.0, 0.0 if fits else HOLD_WAIT_S)
