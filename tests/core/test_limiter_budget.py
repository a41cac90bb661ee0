"""Laws of the budget: reserve, settle, debt, at arbitrary instants."""

from copy import deepcopy
from dataclasses import dataclass
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.limiter import SPAN_S, Budget, Window

LIMITS = st.integers(1, 60)
GAPS_S = st.floats(0, 3) | st.floats(0, 40)
RESERVES = st.tuples(GAPS_S, st.just("reserve"), st.integers(0, 40))
SETTLES = st.tuples(GAPS_S, st.just("settle"), st.integers(0, 60))
OVERUSES = st.tuples(GAPS_S, st.just("settle"), st.integers(0, 3000))
TRACES = st.lists(RESERVES | SETTLES | OVERUSES, max_size=60)
START_S = 1000.0


@dataclass
class Made:
    """One call as it went. `settled_s` is infinite while it goes on."""

    admitted_s: float
    reserved: int
    settled_s: float = inf
    used: int = 0

    def counts_at(self, now_s: float) -> int:
        if self.settled_s == inf:
            return self.reserved
        return self.used if now_s - self.settled_s <= 60 else 0


@dataclass
class Run:
    budget: Budget
    now_s: float = START_S

    def __post_init__(self) -> None:
        self.calls: list[Made] = []

    def step(self, gap_s: float, action: str, amount: int, *, capped: bool = False) -> bool:
        """Whether a call was admitted. `capped`: nobody uses more than it reserved."""
        self.now_s += gap_s
        self.budget.advance(self.now_s)
        open_calls = [call for call in self.calls if call.settled_s == inf]
        if action == "settle":
            if open_calls:
                call = open_calls[amount % len(open_calls)]
                call.settled_s, call.used = self.now_s, min(amount, call.reserved) if capped else amount
                self.budget.settle(call.reserved, call.used)
        elif self.budget.fits(amount):
            self.budget.reserve(amount)
            self.calls.append(Made(self.now_s, amount))
            return True
        return False


def budget(limit: int) -> Budget:
    return Budget(Window(limit))


@given(trace=TRACES, limit=LIMITS)
def test_at_every_admission_settled_and_reserved_are_within_the_limit(
    trace: list[tuple[float, str, int]], limit: int
) -> None:
    run = Run(budget(limit))
    for step in trace:
        if run.step(*step):
            assert sum(call.counts_at(run.now_s) for call in run.calls) <= limit


@given(trace=TRACES, limit=LIMITS)
def test_calls_that_touch_any_rolling_minute_come_to_no_more_than_the_limit(
    trace: list[tuple[float, str, int]], limit: int
) -> None:
    run = Run(budget(limit))
    for step in trace:
        run.step(*step, capped=True)
    for start_s in [call.settled_s for call in run.calls if call.settled_s < inf]:
        touching = [c for c in run.calls if c.admitted_s <= start_s + 60 and start_s <= c.settled_s]
        assert sum(c.used if c.settled_s < inf else c.reserved for c in touching) <= limit


@given(trace=TRACES, limit=LIMITS)
def test_in_the_long_run_nobody_uses_more_than_the_limit_each_minute(
    trace: list[tuple[float, str, int]], limit: int
) -> None:
    run = Run(budget(limit))
    for step in trace:
        if run.step(*step):
            used = sum(call.used for call in run.calls)
            assert used <= limit * ((run.now_s - START_S) // SPAN_S + 2)


@given(trace=TRACES, limit=LIMITS, ahead_s=st.integers(0, 40_000))
def test_time_passes_in_one_leap_as_in_single_seconds(
    trace: list[tuple[float, str, int]], limit: int, ahead_s: int
) -> None:
    run = Run(budget(limit))
    for step in trace:
        run.step(*step)
    leaping, walking = run.budget, deepcopy(run.budget)
    until_s = int(run.now_s) + ahead_s % 700
    for second in range(int(run.now_s), until_s + 1):
        walking.advance(second)
    leaping.advance(until_s)
    walking.advance(until_s)
    assert (leaping.debt, leaping.reserved, leaping.window.total) == (
        walking.debt,
        walking.reserved,
        walking.window.total,
    )
    assert leaping.window.spent == walking.window.spent
    if leaping.window.total:
        assert leaping.window.spent_second == walking.window.spent_second


@given(trace=TRACES, limit=LIMITS, cost=st.integers(1, 70), asked_after_s=st.floats(0, 70))
def test_the_wait_is_true_when_nothing_is_in_flight(
    trace: list[tuple[float, str, int]], limit: int, cost: int, asked_after_s: float
) -> None:
    run = Run(budget(limit))
    for step in trace:
        run.step(*step)
    while any(call.settled_s == inf for call in run.calls):
        run.step(0, "settle", 7)
    now_s, spent = run.now_s + asked_after_s, run.budget
    spent.advance(now_s)
    wait_s = spent.wait_s(now_s, cost)
    assert (wait_s == 0) == spent.fits(cost)
    assert (wait_s == inf) == (cost > limit)
    if 0 < wait_s < inf:
        ready_s = round(now_s + wait_s)
        assert abs(now_s + wait_s - ready_s) < 1e-5
        before, after = deepcopy(spent), deepcopy(spent)
        before.advance(max(now_s, ready_s - 0.001))
        after.advance(ready_s)
        assert not before.fits(cost)
        assert after.fits(cost)


@given(trace=TRACES, limit=LIMITS)
def test_the_whole_limit_is_free_at_the_reset_and_not_before(trace: list[tuple[float, str, int]], limit: int) -> None:
    run = Run(budget(limit))
    for step in trace:
        run.step(*step)
    while any(call.settled_s == inf for call in run.calls):
        run.step(0, "settle", 7)
    spent, reset_at_s = run.budget, round(run.now_s + run.budget.reset_s(run.now_s))
    if spent.window.total:
        before = deepcopy(spent)
        before.advance(reset_at_s - 0.001)
        assert before.remaining() < limit or before.debt
        assert not before.is_idle(reset_at_s - 0.001)
    spent.advance(max(run.now_s, reset_at_s))
    assert spent.remaining() == limit
    assert spent.is_idle(max(run.now_s, reset_at_s))


@given(trace=TRACES, limit=LIMITS)
def test_what_is_remaining_fits_unless_debt_comes_first(trace: list[tuple[float, str, int]], limit: int) -> None:
    run = Run(budget(limit))
    for step in trace:
        run.step(*step)
    left = run.budget.remaining()
    assert run.budget.fits(left) == (run.budget.debt == 0)
    assert not run.budget.fits(left + 1)
    assert not run.budget.debt or left == 0


@given(limit=st.integers(200, 2000), call_s=st.floats(0.01, 1.5), phase_s=st.floats(0, 1))
def test_a_saturating_caller_with_short_calls_gets_at_least_95_percent(
    limit: int, call_s: float, phase_s: float
) -> None:
    spent, cost, minutes = budget(limit), limit // 20, 6
    ends_s: list[float] = []
    used = 0
    for tick in range(minutes * SPAN_S * 20):
        now_s = phase_s + tick / 20
        spent.advance(now_s)
        while ends_s and ends_s[0] <= now_s:
            ends_s.pop(0)
            spent.settle(cost, cost)
            used += cost
        while spent.fits(cost):
            spent.reserve(cost)
            ends_s.append(now_s + call_s)
    assert used >= 0.95 * (20 * cost) * minutes


def test_with_the_limit_reserved_only_the_end_of_a_call_makes_room() -> None:
    spent = budget(100)
    spent.advance(10.5)
    spent.reserve(100)
    assert spent.wait_s(10.5, 1) == 1.0
    assert spent.reset_s(10.5) == SPAN_S
    spent.settle(60, 500)
    assert (spent.debt, spent.remaining()) == (440, 0)
    spent.advance(10 + SPAN_S * 8)  # paid at 60 a minute, for 40 are still reserved
    assert (spent.debt, spent.window.total, spent.remaining()) == (0, 20, 40)


def test_a_debt_of_ages_is_worked_off_without_walking_through_them() -> None:
    spent = budget(3)
    spent.advance(7.5)
    spent.charge(3 * 10**9)
    spent.advance(7 + SPAN_S * (10**9 - 1) - 1)
    assert spent.debt == 3
    spent.advance(7 + SPAN_S * (10**9 - 1))
    assert (spent.debt, spent.window.total) == (0, 3)
    spent.advance(7 + SPAN_S * 10**9)
    assert spent.fits(3)


def test_a_raised_limit_pays_debt_at_once() -> None:
    spent = budget(10)
    spent.advance(5)
    spent.charge(25)
    assert spent.debt == 15
    spent.window.limit = 30
    spent.advance(6)
    assert (spent.debt, spent.remaining()) == (0, 5)
