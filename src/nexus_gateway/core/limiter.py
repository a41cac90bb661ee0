"""Admission arithmetic: what one caller spent in the last minute.

For:      deciding one arrival, from the recent past and the time; telling a refused caller how long to wait.
Touches:  nothing. The caller brings the clock.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

SPAN_S = 61  # whole seconds that a rolling 60 s can touch: sixty and the one that it begins in


@dataclass(slots=True)
class Window:
    """Spending in each of the last 61 whole seconds, so that no rolling 60 s ever hold more than the limit.

    Sixty counters would leak at the edge: the second that an interval begins in counts in full.
    `limit` and `cost` are in the caller's unit (requests or tokens); a refusal changes nothing.
    """

    limit: int
    spent: list[int] = field(default_factory=lambda: [0] * SPAN_S)
    total: int = 0
    second: int = 0  # the newest second this window knows of
    spent_second: int = 0  # the newest one with spending

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
        if second == self.second:
            return
        passed = second - self.second
        if passed < 0:
            if passed < -SPAN_S:
                self._move(second)
            return
        if self.total:
            if passed >= SPAN_S:
                self.spent = [0] * SPAN_S
                self.total = 0
            else:
                for expired in range(self.second + 1, second + 1):
                    self.total -= self.spent[expired % SPAN_S]
                    self.spent[expired % SPAN_S] = 0
        self.second = second

    def spend(self, cost: int) -> None:
        """Count `cost` in the present second, unasked. Advance first."""
        self.spent[self.second % SPAN_S] += cost
        self.total += cost
        self.spent_second = self.second

    def remaining(self) -> int:
        """What is left of the limit. Advance first; never negative, also after the limit was lowered."""
        return max(0, self.limit - self.total)

    def reset_s(self, now_s: float) -> float:
        """Seconds until the whole limit is free again, if nothing more is spent."""
        return self.spent_second + SPAN_S - now_s if self.total else 0.0

    def wait_s(self, now_s: float, cost: int = 1) -> float:
        """Seconds until `cost` fits, if nothing more is spent; infinite when it is larger than the whole limit."""
        over = self.total + cost - self.limit
        if over <= 0:
            return 0.0
        if cost > self.limit:
            return float("inf")
        oldest = (self.second + 1) % SPAN_S
        freed = accumulate(self.spent[oldest:] + self.spent[:oldest])
        return self.second + 1 + bisect_left(list(freed), over) - now_s

    def is_idle(self, now_s: float) -> bool:
        """Nothing that is known here could matter any more."""
        return self.reset_s(now_s) <= 0

    def _move(self, second: int) -> None:
        turn = (self.second - second) % SPAN_S
        self.spent = self.spent[turn:] + self.spent[:turn]
        self.spent_second += second - self.second
        self.second = second
