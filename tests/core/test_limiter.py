"""Laws of the window, at arbitrary instants."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.limiter import SPAN_S, Window

GAPS_S = st.lists(st.floats(0, 40), max_size=60)
BACK_AND_FORTH_S = st.lists(st.floats(-5000, 5000), max_size=40)
ARRIVALS = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 12)), max_size=60)


def replay(window: Window, gaps_s: list[float]) -> list[float]:
    """The instants that were let through."""
    return [now_s for now_s in accumulate(gaps_s, initial=1000.0) if window.admit(now_s)]


@given(gaps_s=GAPS_S, limit=st.integers(1, 10))
def test_no_rolling_minute_admits_more_than_the_limit(gaps_s: list[float], limit: int) -> None:
    admitted_s = replay(Window(limit), gaps_s)
    for i, start_s in enumerate(admitted_s):
        assert sum(1 for at_s in admitted_s[i:] if at_s - start_s <= 60) <= limit


@given(arrivals=ARRIVALS, limit=st.integers(1, 30))
def test_no_rolling_minute_costs_more_than_the_limit(arrivals: list[tuple[float, int]], limit: int) -> None:
    window, now_s = Window(limit), 0.0
    admitted: list[tuple[float, int]] = []
    for gap_s, cost in arrivals:
        now_s += gap_s
        if window.admit(now_s, cost):
            admitted.append((now_s, cost))
    for i, (start_s, _) in enumerate(admitted):
        assert sum(cost for at_s, cost in admitted[i:] if at_s - start_s <= 60) <= limit


@given(limit=st.integers(1, 400), per_s=st.integers(7, 50), phase=st.floats(0, 1, exclude_max=True))
def test_a_saturating_caller_gets_at_least_95_percent(limit: int, per_s: int, phase: float) -> None:
    window = Window(limit)
    minutes = 10
    arrivals_s = [phase + i / per_s for i in range(SPAN_S * minutes * per_s)]
    admitted = sum(window.admit(at_s) for at_s in arrivals_s)
    offered = min(limit, per_s * 60)  # nobody can be given more than it asks for
    assert admitted >= 0.95 * offered * minutes


@given(arrivals=ARRIVALS, limit=st.integers(1, 30), cost=st.integers(1, 30), asked_after_s=st.floats(0, 70))
def test_the_wait_is_true(arrivals: list[tuple[float, int]], limit: int, cost: int, asked_after_s: float) -> None:
    def spent() -> Window:
        window, at_s = Window(limit), 0.0
        for gap_s, paid in arrivals:
            at_s += gap_s
            window.admit(at_s, paid)
        return window

    now_s = sum(gap_s for gap_s, _ in arrivals) + asked_after_s
    window = spent()
    window.advance(now_s)
    wait_s = window.wait_s(now_s, cost)
    if cost > limit:
        assert wait_s == float("inf")
    elif wait_s == 0:
        assert spent().admit(now_s, cost)
    else:
        ready_s = round(now_s + wait_s)
        assert abs(now_s + wait_s - ready_s) < 1e-6
        assert spent().admit(ready_s, cost)
        assert not spent().admit(max(now_s, ready_s - 1), cost)
        assert not spent().admit(max(now_s, ready_s - 0.001), cost)


@given(arrivals=ARRIVALS, limit=st.integers(1, 30))
def test_the_whole_limit_is_free_at_the_reset_and_not_before(arrivals: list[tuple[float, int]], limit: int) -> None:
    window, now_s = Window(limit), 0.0
    for gap_s, cost in arrivals:
        now_s += gap_s
        window.admit(now_s, cost)
    window.advance(now_s)
    reset_at_s = round(now_s + window.reset_s(now_s))
    if window.total:
        window.advance(reset_at_s - 0.5)
        assert window.remaining() < limit
        assert not window.is_idle(reset_at_s - 0.5)
    window.advance(max(now_s, reset_at_s))
    assert window.remaining() == limit
    assert window.is_idle(max(now_s, reset_at_s))


@given(arrivals=ARRIVALS, limit=st.integers(1, 30))
def test_what_is_remaining_is_admitted_and_one_more_is_not(arrivals: list[tuple[float, int]], limit: int) -> None:
    window, now_s = Window(limit), 0.0
    for gap_s, cost in arrivals:
        now_s += gap_s
        window.admit(now_s, cost)
    left = window.remaining()
    assert 0 <= left <= limit
    assert not window.admit(now_s, left + 1)
    assert window.admit(now_s, left)


@given(gaps_s=GAPS_S, limit=st.integers(1, 10), back_s=st.floats(0, 5000))
def test_a_clock_that_steps_back_forgets_nothing(gaps_s: list[float], limit: int, back_s: float) -> None:
    window = Window(limit)
    now_s = 10_000.0 + sum(gaps_s)
    replay(window, gaps_s)
    window.advance(now_s)
    total = window.total
    window.advance(now_s - back_s)
    assert window.total == total
    assert sum(window.spent) == total


@given(jumps_s=BACK_AND_FORTH_S, limit=st.integers(1, 10))
def test_whatever_the_clock_does_nobody_is_locked_out_for_more_than_two_spans(jumps_s: list[float], limit: int) -> None:
    window = Window(limit)
    for now_s in accumulate(jumps_s, initial=100_000.0):
        window.admit(now_s)
        assert 0 <= window.total == sum(window.spent) <= limit
        assert window.wait_s(now_s) <= 2 * SPAN_S
        assert window.reset_s(now_s) <= 2 * SPAN_S + 1


@given(back_s=st.floats(62, 5000), gap_s=st.floats(0, 60))
def test_after_a_long_step_back_the_past_keeps_its_age(back_s: float, gap_s: float) -> None:
    window = Window(1)
    spent_s = 10_000.25
    assert window.admit(spent_s)
    window.advance(spent_s + gap_s)
    stepped_s = spent_s + gap_s - back_s - 1
    assert not window.admit(stepped_s)
    assert not window.admit(stepped_s + 60 - gap_s - 1)
    assert window.admit(stepped_s + SPAN_S - gap_s + 1)


def test_a_lowered_limit_refuses_until_it_holds() -> None:
    window = Window(10)
    assert all(window.admit(5.5) for _ in range(10))
    window.limit = 4
    assert window.remaining() == 0
    assert not window.admit(6)
    assert window.wait_s(6) == 60
    assert window.admit(66)
