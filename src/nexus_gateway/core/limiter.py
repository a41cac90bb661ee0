"""Admission arithmetic: what one caller spent in the last minute.

For:      deciding one arrival, from the recent past and the time; telling a refused caller how long to wait.
Touches:  nothing. The caller brings the clock. `stores/redis_account.lua` says the same in Lua: change both.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Final

SPAN_S: Final = 61  # whole seconds that a rolling 60 s can touch: sixty and the one that it begins in
HOLD_WAIT_S: Final = 1.0  # a wait for requests in flight: nobody knows when they end


@dataclass(slots=True)
class Window:
    """Spending in each of the last 61 whole seconds, so that no rolling 60 s ever hold more than the limit.

    Sixty counters would leak at the edge: the second that an interval begins in counts in full.
    `limit` and `cost` are in the caller's unit (requests or tokens); a refusal changes nothing.
    Advance first: all but `admit` and `advance` speak of the second that the window is in.
    """

    limit: int
    spent: list[int] = field(default_factory=lambda: [0] * SPAN_S)
    total: int = 0
    second: int = 0
    spent_second: int = 0  # the newest second with spending

    def admit(self, now_s: float, cost: int = 1) -> bool:
        self.advance(now_s)
        if self.total + cost > self.limit:
            return False
        self.spend(cost)
        return True

    def advance(self, now_s: float) -> None:
        """Forget what is older than the span.

        A clock that steps back forgets nothing: by less than a span it is waited for, by more the past keeps its age
        and moves along, so that nobody is locked out until the clock has caught up.
        """
        second = int(now_s)
        passed = second - self.second
        if passed == 0:
            return
        if passed < 0:
            if passed < -SPAN_S:
                self._move(passed)
            return
        if passed >= SPAN_S:
            if self.total:
                self.spent = [0] * SPAN_S
                self.total = 0
        elif self.total:
            for expired in range(self.second + 1, second + 1):
                self.total -= self.spent[expired % SPAN_S]
                self.spent[expired % SPAN_S] = 0
        self.second = second

    def spend(self, cost: int) -> None:
        """Count `cost` in the present second, unasked."""
        self.spent[self.second % SPAN_S] += cost
        self.total += cost
        self.spent_second = self.second

    def spend_aged(self, cost: int, age_s: int) -> None:
        """Count what was spent `age_s` whole seconds ago; beyond the span it no longer matters."""
        if age_s < SPAN_S:
            second = self.second - age_s
            self.spent[second % SPAN_S] += cost
            self.total += cost
            self.spent_second = max(self.spent_second, second)

    def remaining(self) -> int:
        """What is left of the limit; never negative, also after the limit was lowered."""
        return max(0, self.limit - self.total)

    def reset_s(self, now_s: float) -> float:
        """Seconds until the whole limit is free again, if nothing more is spent."""
        return self.spent_second + SPAN_S - now_s if self.total else 0.0

    def wait_s(self, now_s: float, cost: int = 1) -> float:
        """Seconds until `cost` fits, if nothing more is spent; infinite when it is larger than the whole limit."""
        if cost > self.limit:
            return inf
        over = self.total + cost - self.limit
        return self.freed_s(now_s, over) if over > 0 else 0.0

    def freed_s(self, now_s: float, amount: int) -> float:
        """Seconds until `amount` of what is spent has expired; what is more than all of it was spent anew each time."""
        turns, rest = divmod(amount - 1, self.total)
        oldest = (self.second + 1) % SPAN_S
        expired = accumulate(self.spent[oldest:] + self.spent[:oldest])
        return self.second + 1 + turns * SPAN_S + bisect_left(list(expired), rest + 1) - now_s

    def is_idle(self, now_s: float) -> bool:
        """Nothing that is known here could matter any more."""
        return self.reset_s(now_s) <= 0

    def _move(self, seconds: int) -> None:
        turn = -seconds % SPAN_S
        self.spent = self.spent[turn:] + self.spent[:turn]
        self.spent_second += seconds
        self.second += seconds


@dataclass(slots=True)
class Budget:
    """A window whose costs are known only afterwards: reserve an estimate, settle what it came to.

    At every admission settled + reserved <= limit. A reservation counts until it is settled, and what was settled
    counts for the 60 s after that: so the calls that touch any rolling 60 s never come to more than the limit.
    What was used beyond both the reservation and what was free is debt: it takes every token that becomes free,
    before anything is admitted.
    """

    window: Window
    reserved: int = 0
    debt: int = 0

    def advance(self, now_s: float) -> None:
        if self.debt:
            self._replay(int(now_s))
        self.window.advance(now_s)

    def fits(self, cost: int) -> bool:
        return not self.debt and self.window.total + self.reserved + cost <= self.window.limit

    def reserve(self, cost: int) -> None:
        self.reserved += cost

    def settle(self, reserved: int, used: int) -> None:
        """End a reservation: `used` is what it came to, more or less."""
        self.reserved -= reserved
        self.charge(used)

    def charge(self, used: int) -> None:
        self.debt += used
        self._pay()

    def remaining(self) -> int:
        return max(0, self.window.limit - self.window.total - self.reserved)

    def reset_s(self, now_s: float) -> float:
        """Seconds until the whole limit is free again, if what is in flight ended now."""
        window = self.window
        in_debt = self.debt and window.total
        free_s = window.freed_s(now_s, window.total + self.debt) if in_debt else window.reset_s(now_s)
        return max(free_s, SPAN_S) if self.reserved else free_s

    def wait_s(self, now_s: float, cost: int) -> float:
        """Seconds until `cost` fits, if nothing more is spent; infinite when it is larger than the whole limit.

        Where only the end of requests in flight can make room, it is the least that it can take.
        """
        window = self.window
        if cost > window.limit:
            return inf
        over = window.total + self.debt + self.reserved + cost - window.limit
        if over <= 0:
            return 0.0
        if window.total and over <= window.total + self.debt:
            return window.freed_s(now_s, over)
        over -= self.reserved
        return max(HOLD_WAIT_S, window.freed_s(now_s, over) if window.total and over > 0 else 0.0)

    def is_idle(self, now_s: float) -> bool:
        return not self.reserved and not self.debt and self.window.is_idle(now_s)

    def _pay(self) -> None:
        free = self.window.limit - self.window.total - self.reserved
        if self.debt and free > 0:
            paid = min(self.debt, free)
            self.window.spend(paid)
            self.debt -= paid

    def _replay(self, second: int) -> None:
        """Go through the seconds that passed in debt, for each token is spent again as it expires."""
        window = self.window
        self._pay()  # the limit may have been raised
        while self.debt and window.total and window.second < second:
            full = window.total + self.reserved == window.limit
            turns = min((second - window.second) // SPAN_S, self.debt // window.total) if full else 0
            if turns:  # whole rounds of the ring leave it as it is
                self.debt -= turns * window.total
                window.second += turns * SPAN_S
                window.spent_second += turns * SPAN_S
            else:
                window.advance(window.second + 1)
                self._pay()
