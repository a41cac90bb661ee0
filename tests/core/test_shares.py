"""Laws of exact shares: rolls for requests, hashes for callers."""

from collections import Counter
from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexus_gateway.core.shares import CYCLE, Rendezvous, Shares, roll_of

WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(0.001, 1000)), min_size=1, max_size=6).filter(any)
STARTS = st.integers(0, 10**9)


@settings(max_examples=20, deadline=None)
@given(STARTS)
def test_any_10_000_rolls_fill_every_cell_once(start: int) -> None:
    cells = Counter(int(roll_of(count) * CYCLE) for count in range(start, start + CYCLE))
    assert set(cells) == set(range(CYCLE))
    assert set(cells.values()) == {1}


def test_shares_finer_than_a_cell_come_out_over_time() -> None:
    count = 1_000_000
    for begin in (0.0, 0.123456, 0.99999):
        hits = sum(begin <= roll_of(number) < begin + 0.00001 for number in range(count))
        assert abs(hits - 10) <= 2


@given(st.integers(0, 10**15))
def test_a_roll_is_below_1(count: int) -> None:
    assert 0 <= roll_of(count) < 1


@settings(max_examples=50, deadline=None)
@given(start=STARTS, begin=st.floats(0, 1), length=st.floats(0, 1), step=st.sampled_from([1, 2, 3, 4, 7, 10]))
@example(start=0, begin=0.95, length=0.05, step=1)
def test_after_any_number_of_rolls_an_interval_has_had_its_share(
    start: int, begin: float, length: float, step: int
) -> None:
    """Also for a client that makes only every second or tenth of the requests."""
    end = min(begin + length, 1.0)
    hits = 0
    for made in range(1, 2001):
        hits += begin <= roll_of(start + made * step) < end
        assert abs(hits - made * (end - begin)) <= (5 if step == 1 else 10)


@settings(max_examples=50, deadline=None)
@given(weights=WEIGHTS, start=STARTS)
def test_10_000_draws_are_exact_to_two(weights: list[float], start: int) -> None:
    shares = Shares.of(weights)
    drawn = Counter(shares.draw(roll_of(count))[0] for count in range(start, start + CYCLE))
    for member, weight in enumerate(weights):
        assert abs(drawn[member] - CYCLE * weight / sum(weights)) <= 2
        assert weight or member not in drawn


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS, data=st.data())
def test_whoever_is_absent_leaves_its_share_to_the_rest_in_proportion(
    weights: list[float], data: st.DataObject
) -> None:
    shares = Shares.of(weights)
    absent = data.draw(st.sets(st.sampled_from(list(shares.members)), max_size=len(shares.members) - 1))
    rest = shares.without(absent)
    left = [0.0 if member in absent else weight for member, weight in enumerate(weights)]
    assert (list(rest.members), list(rest.ends)) == (list(Shares.of(left).members), list(Shares.of(left).ends))


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS)
def test_the_second_is_another_one_and_in_proportion_too(weights: list[float]) -> None:
    shares = Shares.of(weights)
    draws = [shares.draw(roll_of(count)) for count in range(CYCLE)]
    if len(shares.members) == 1:
        assert set(draws) == {(shares.members[0], shares.members[0])}
        return
    pairs, total = Counter(draws), sum(weights)
    for (first, second), times in pairs.items():
        assert first != second
        share = weights[first] / total * weights[second] / (total - weights[first])
        assert abs(times - CYCLE * share) <= 4


@given(weights=WEIGHTS, roll=st.one_of(st.just(0.0), st.just(1 - 2**-53), st.floats(0, 1, exclude_max=True)))
def test_every_roll_draws_somebody(weights: list[float], roll: float) -> None:
    shares = Shares.of(weights)
    first, second = shares.draw(roll)
    assert weights[first] > 0
    assert weights[second] > 0
    assert (first == second) == (len(shares.members) == 1)


# ---- callers

CALLERS = [f"caller-{number}" for number in range(4000)]


def sides(weights: list[float], salt: str = "chat") -> list[int]:
    """The member that each caller has."""
    rendezvous, shares = Rendezvous(salt, [f"upstream-{i}" for i in range(len(weights))]), Shares.of(weights)
    return [rendezvous.draw(shares, caller)[0] for caller in CALLERS]


@pytest.mark.parametrize("weights", [[95, 5], [1, 1], [60, 30, 10], [1, 0, 1], [5, 1, 1, 1, 1, 1]])
@pytest.mark.parametrize("salt", ["chat", "code"])
def test_shares_hold_over_callers(weights: list[float], salt: str) -> None:
    counts = Counter(sides(weights, salt))
    for member, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(counts[member] - len(CALLERS) * share) <= 4 * sqrt(len(CALLERS) * share * (1 - share))


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS, data=st.data(), factor=st.floats(1.01, 50))
def test_when_a_weight_grows_callers_move_to_it_alone(weights: list[float], data: st.DataObject, factor: float) -> None:
    grown = data.draw(st.integers(0, len(weights) - 1))
    after = [weight * factor if member == grown else weight for member, weight in enumerate(weights)]
    moved = [(old, new) for old, new in zip(sides(weights), sides(after), strict=True) if old != new]
    assert all(new == grown for _, new in moved)
    needed = after[grown] / sum(after) - weights[grown] / sum(weights)
    assert len(moved) / len(CALLERS) == pytest.approx(needed, abs=0.04)


def test_a_canary_that_grows_keeps_the_callers_it_has() -> None:
    steps = [
        {caller for caller, side in zip(CALLERS, sides([100 - percent, percent]), strict=True) if side == 1}
        for percent in (0, 1, 5, 20, 50, 100)
    ]
    assert not steps[0]
    assert len(steps[-1]) == len(CALLERS)
    assert all(before < after for before, after in pairwise(steps))


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS, data=st.data())
def test_who_loses_its_member_goes_to_its_second_and_nobody_else_moves(
    weights: list[float], data: st.DataObject
) -> None:
    shares = Shares.of(weights)
    if len(shares.members) == 1:
        return
    rendezvous = Rendezvous("chat", [f"upstream-{i}" for i in range(len(weights))])
    absent = data.draw(st.sampled_from(list(shares.members)))
    rest = shares.without({absent})
    for caller in CALLERS[:200]:
        first, second = rendezvous.draw(shares, caller)
        assert first != second
        assert rendezvous.draw(rest, caller)[0] == (second if first == absent else first)


def test_a_caller_stays_wherever_a_target_stands_in_the_list() -> None:
    shares = Shares.of([1, 1, 1])
    forward, backward = Rendezvous("chat", ["a", "b", "c"]), Rendezvous("chat", ["c", "b", "a"])
    for caller in CALLERS[:200]:
        assert forward.draw(shares, caller)[0] == 2 - backward.draw(shares, caller)[0]


def test_the_sides_of_two_routes_have_nothing_to_do_with_each_other() -> None:
    both = sum(one == other == 1 for one, other in zip(sides([1, 1], "chat"), sides([1, 1], "code"), strict=True))
    assert abs(both - len(CALLERS) / 4) <= 4 * sqrt(len(CALLERS) * 3 / 16)


def test_a_caller_has_the_same_side_in_every_process_and_release() -> None:
    shares, rendezvous = Shares.of([1, 1, 1]), Rendezvous("chat", ["a", "b", "c"])
    assert [rendezvous.draw(shares, caller) for caller in ("key_1", "김철수", "", "\ud800")] == [
        (2, 1),
        (1, 2),
        (1, 0),
        (1, 2),
    ]
