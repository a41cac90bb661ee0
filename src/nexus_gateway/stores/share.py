"""What one process may admit by itself while the shared store is away.

For:      limits that go on without their store: each process takes its part of what was left when it last heard.
Touches:  memory only.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import msgspec

from nexus_gateway.core.account import Account, Basis, Cost, Decision, Hold, Use
from nexus_gateway.core.limiter import SPAN_S, Window
from nexus_gateway.core.model import Principal, Verdict

from .accounts import Accounts


class Seen(NamedTuple):
    """The store's last answer about a caller: what it had left. None: no such limit."""

    at_s: float
    principal: Principal
    requests_left: int | None
    tokens_left: int | None


@dataclass(slots=True)
class Alone:
    """A caller's account with this process, and what of it the store has not been told."""

    account: Account = field(default_factory=Account)
    requests: Window = field(default_factory=lambda: Window(0))
    tokens: Window = field(default_factory=lambda: Window(0))
    debt: int = 0

    def is_idle(self, now_s: float) -> bool:
        return self.account.is_idle(now_s)


class Spending(NamedTuple):
    """What the store has to be told: (age in whole seconds, amount) of each kind, and the debt."""

    requests: list[tuple[int, int]]
    tokens: list[tuple[int, int]]
    debt: int


class LocalShare:
    """An equal part of every limit, but never nothing: with fewer units than processes each still has one."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._accounts = Accounts(Alone)

    def note(self, seen: Seen) -> None:
        """Remember the store's last answer, for as long as it can matter."""
        known, key_id = self._seen, seen.principal.key_id
        known[key_id] = seen
        known.move_to_end(key_id)
        while next(iter(known.values())).at_s < seen.at_s - SPAN_S:
            known.popitem(last=False)

    def seen(self, key_id: str) -> Seen | None:
        return self._seen.get(key_id)

    def known(self) -> list[str]:
        """Callers about whom the store has answered of late."""
        return list(self._seen)

    def admit(self, principal: Principal, cost: Cost, now_s: float, *, processes: int, open_holds: int) -> Decision:
        """`open_holds`: those that this caller already has in this process."""
        part = _part_of(principal, processes)
        alone = self._accounts.find(principal.key_id)
        if alone is None:
            alone = self._accounts.open(principal.key_id, now_s)
            self._begin(alone.account, part, processes, open_holds)
        decision = alone.account.admit(part, cost, now_s)
        decision.basis = Basis.SHARE
        _correct_never(decision, principal, cost)
        if decision.hold is not None:
            decision.hold.is_local = True
            if part.requests_per_minute is not None:
                alone.requests.advance(now_s)
                alone.requests.spend(1)
        return decision

    def restrain(
        self, principal: Principal, cost: Cost, now_s: float, *, processes: int, open_holds: int, within_s: float
    ) -> Decision | None:
        """The refusal if this process has had its share. Else the share counts the request, and the store decides.

        `within_s`: for so long at most a refusal holds. What was counted here is never settled: it is as good as used.
        """
        part = _part_of(principal, processes)
        alone = self._accounts.find(principal.key_id)
        if alone is None:
            alone = self._accounts.open(principal.key_id, now_s)
            self._begin(alone.account, part, processes, open_holds)
        alone.account.open = open_holds
        decision = alone.account.admit(part, cost, now_s)
        if decision.hold is None:
            decision.basis = Basis.SHARE
            _correct_never(decision, principal, cost)
            return _refused_for(decision, within_s)
        if not decision.hold.is_settled:
            alone.account.settle(decision.hold, decision.hold.tokens or 0, now_s)
        return None

    def go_on(self, count_open: Callable[[str], int], now_s: float) -> None:
        """The store is away again before the share was over. `count_open`: what this process holds of a caller, all of
        which the store knows: what was reserved here is as good as used."""
        for key_id, alone in self._accounts:
            account = alone.account
            account.open = count_open(key_id)
            account.tokens.advance(now_s)
            account.tokens.settle(account.tokens.reserved, account.tokens.reserved)

    def look(self, principal: Principal, now_s: float, *, processes: int) -> Decision | None:
        alone = self._accounts.find(principal.key_id)
        refused = None if alone is None else alone.account.look(_part_of(principal, processes), now_s)
        if refused is not None:
            refused.basis = Basis.SHARE
        return refused

    def use(self, principal: Principal, now_s: float) -> Use | None:
        """What this process has counted of the caller since the store went away; None: it has not come since."""
        alone = self._accounts.find(principal.key_id)
        if alone is None:
            return None
        used = alone.account.use(principal, now_s)
        return Use(used.requests, used.tokens, used.in_flight, Basis.SHARE)

    def settle(self, hold: Hold, used_tokens: int, now_s: float) -> None:
        """A hold from before frees its slot here too; its tokens were never counted here."""
        alone = self._accounts.find(hold.key_id)
        if alone is None:
            return
        if not hold.is_local:
            alone.account.open -= 1
            return
        owed = alone.account.tokens.debt
        alone.account.settle(hold, used_tokens, now_s)
        if hold.tokens is not None and not hold.is_shared:
            beyond = max(0, alone.account.tokens.debt - owed)
            alone.tokens.advance(now_s)
            alone.tokens.spend(used_tokens - beyond)
            alone.debt += beyond

    def unreported(self) -> set[str]:
        """Callers of whom the store has to be told something."""
        return {key_id for key_id, alone in self._accounts if alone.requests.total or alone.tokens.total or alone.debt}

    def take(self, key_id: str, now_s: float) -> Spending:
        """What the store has not been told of this caller; from now on it counts as told."""
        alone = self._accounts.find(key_id)
        if alone is None:
            return Spending([], [], 0)
        spending = Spending(_by_age(alone.requests, now_s), _by_age(alone.tokens, now_s), alone.debt)
        alone.requests, alone.tokens, alone.debt = Window(0), Window(0), 0
        return spending

    def give_back(self, key_id: str, spending: Spending, now_s: float) -> None:
        """The store did not hear what was taken."""
        if spending.requests or spending.tokens or spending.debt:
            alone = self._accounts.open(key_id, now_s)
            for window, spent in ((alone.requests, spending.requests), (alone.tokens, spending.tokens)):
                window.advance(now_s)
                for age_s, amount in spent:
                    window.spend_aged(amount, age_s)
            alone.debt += spending.debt

    def clear(self) -> None:
        """The store decides alone again, and was told all."""
        self._accounts.clear()

    def _begin(self, account: Account, part: Principal, processes: int, open_holds: int) -> None:
        """What was spent when the store was last heard of is spent here too, for as long as it may be there."""
        account.open = open_holds
        seen = self._seen.get(part.key_id)
        if seen is None:
            return
        if part.requests_per_minute is not None and seen.requests_left is not None:
            account.requests.advance(seen.at_s)
            account.requests.spend(max(0, part.requests_per_minute - seen.requests_left // processes))
        if part.tokens_per_minute is not None and seen.tokens_left is not None:
            account.tokens.advance(seen.at_s)
            account.tokens.window.spend(max(0, part.tokens_per_minute - seen.tokens_left // processes))


def _part_of(principal: Principal, processes: int) -> Principal:
    def part(limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // processes) if limit else 0

    return Principal(
        principal.key_id,
        part(principal.requests_per_minute),
        part(principal.tokens_per_minute),
        part(principal.max_concurrency),
    )


def _correct_never(decision: Decision, principal: Principal, cost: Cost) -> None:
    """What is larger than the part may yet fit the whole: once the store is back, not never."""
    tokens, limit = decision.tokens, principal.tokens_per_minute
    least = cost.tokens if cost.least_tokens is None else cost.least_tokens
    if tokens is None or limit is None or tokens.allowed or tokens.retry_after_s < inf or least > limit:
        return
    decision.tokens = Verdict(False, tokens.limit, tokens.remaining, tokens.reset_s, float(SPAN_S))


def _refused_for(decision: Decision, within_s: float) -> Decision:
    """The refusal holds no longer than that, whatever the share has to wait for."""

    def sooner(verdict: Verdict | None) -> Verdict | None:
        if verdict is None or verdict.allowed or verdict.retry_after_s == inf:
            return verdict
        return msgspec.structs.replace(verdict, retry_after_s=min(verdict.retry_after_s, within_s))

    decision.requests, decision.tokens = sooner(decision.requests), sooner(decision.tokens)
    decision.concurrency = sooner(decision.concurrency)
    return decision


def _by_age(window: Window, now_s: float) -> list[tuple[int, int]]:
    window.advance(now_s)
    ages = range(SPAN_S) if window.total else range(0)
    return [(age, amount) for age in ages if (amount := window.spent[(window.second - age) % SPAN_S])]
