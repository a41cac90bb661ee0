"""One look at all upstreams, and leave to ask one of them."""

from collections.abc import Callable
from itertools import count
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core import errors
from nexus_gateway.core.breaker import Outcome, Permit, State
from nexus_gateway.core.health import Fleet, UpstreamHealth, without
from nexus_gateway.core.routing import compile_routes, plan
from nexus_gateway.core.shares import roll_of

RESET_S = 30.0
SOON_S = 10.0


def fleet_of(dice: Callable[[], float] = lambda: 0.0) -> Fleet:
    return Fleet(["a", "b"], 2, RESET_S, dice)


def take(upstream: UpstreamHealth, now_s: float) -> Permit:
    permit = upstream.acquire(now_s, now_s + SOON_S)
    assert permit is not None
    return permit


def trip(upstream: UpstreamHealth, now_s: float = 0.0) -> None:
    for _ in range(2):
        upstream.settle(take(upstream, now_s), Outcome.FAILURE, now_s)


TROUBLES: dict[str, Callable[[UpstreamHealth], None]] = {
    "tripped": trip,
    "opened elsewhere": lambda upstream: upstream.force_open_until(RESET_S, 0.0),
    "rate limited": lambda upstream: upstream.cool_down(RESET_S, 0.0),
    "isolated": lambda upstream: upstream.isolate(),
    "failing its check": lambda upstream: upstream.fail_check(5.0),
}


def recover(upstream: UpstreamHealth) -> None:
    upstream.restore()
    upstream.pass_check()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_who_is_in_trouble_is_seen_refused_and_forgotten_once_it_is_over(trouble: str) -> None:
    fleet = fleet_of()
    well = fleet.look(0.0)
    assert not well.wait_s
    assert fleet.look(1.0) is well, "nothing is built while all is well"
    TROUBLES[trouble](fleet["a"])
    assert set(fleet.look(0.0).wait_s) == {"a"}
    assert fleet["a"].acquire(0.0, SOON_S) is None
    assert fleet["b"].acquire(0.0, SOON_S) is not None
    recover(fleet["a"])
    assert not fleet.look(RESET_S).wait_s
    fleet["a"].settle(take(fleet["a"], RESET_S), Outcome.SUCCESS, RESET_S)
    later_s = RESET_S + fleet["a"].breaker.ramp_s
    fleet.look(later_s)
    assert fleet.look(later_s) is well


@given(st.lists(st.floats(0.001, 500), min_size=1, max_size=10), st.floats(0, 600))
def test_a_cooldown_lasts_as_long_as_the_longest_wish(wishes_s: list[float], now_s: float) -> None:
    upstream = fleet_of()["a"]
    for wish_s in wishes_s:
        upstream.cool_down(wish_s, 0.0)
    assert upstream.wait_s(now_s) == max(max(wishes_s) - now_s, 0.0)
    assert (upstream.acquire(now_s, now_s + SOON_S) is None) == (now_s < max(wishes_s))


def test_a_429_is_no_failure_and_a_cooling_probe_gives_its_permit_back() -> None:
    upstream = fleet_of()["a"]
    trip(upstream)
    probe = take(upstream, RESET_S)
    upstream.cool_down(5.0, RESET_S)
    upstream.settle(probe, Outcome.NEUTRAL, RESET_S)
    assert upstream.wait_s(RESET_S) == 5.0
    assert upstream.wait_s(RESET_S + 5.0) == 0


def test_the_wait_for_an_operator_is_unknown_and_for_a_check_at_least_a_moment() -> None:
    upstream = fleet_of()["a"]
    upstream.fail_check(5.0)
    assert upstream.is_failing_checks
    assert upstream.wait_s(0.0) == 5.0
    assert upstream.wait_s(9.0) > 0, "the next check is late, not passed"
    upstream.isolate()
    assert upstream.wait_s(0.0) == inf


@given(st.lists(st.sampled_from([*Outcome, None]), max_size=30))
def test_what_is_in_flight_is_what_was_taken_and_not_settled(outcomes: list[Outcome | None]) -> None:
    upstream, open_now = fleet_of()["a"], 0
    for outcome in outcomes:
        permit = upstream.acquire(0.0, SOON_S)
        if permit is None:
            continue
        open_now += 1
        if outcome is not None:
            upstream.settle(permit, outcome, 0.0)
            upstream.settle(permit, outcome, 0.0)
            open_now -= 1
    assert upstream.load.in_flight == open_now


def test_on_the_ramp_the_dice_decide_who_is_shy() -> None:
    rolls: list[float] = []
    fleet = fleet_of(lambda: rolls.pop() if rolls else 0.0)
    trip(fleet["a"])
    fleet["a"].vouch(take(fleet["a"], RESET_S), 0.5, RESET_S)
    half_s = RESET_S + fleet["a"].breaker.ramp_s / 2
    share = fleet["a"].breaker.share(half_s)
    for roll, is_shy in ((share - 0.01, False), (share + 0.01, True), (share, True)):
        rolls.append(roll)
        health = fleet.look(half_s)
        assert not health.wait_s
        assert set(health.shy) == ({"a"} if is_shy else set())


@pytest.mark.parametrize("others", [True, False])
def test_a_thousand_waiting_come_back_little_by_little_if_others_can_take_them(others: bool) -> None:
    rolls = map(roll_of, count())
    fleet = fleet_of(lambda: next(rolls))
    route = compile_routes(["a", "b"], {}, {"a": ["b"]}).routes["a"]
    trip(fleet["a"])
    fleet["a"].settle(take(fleet["a"], RESET_S), Outcome.SUCCESS, RESET_S)
    if not others:
        fleet["b"].isolate()
    ramp_s, firsts = fleet["a"].breaker.ramp_s, []
    for number in range(1000):
        now_s = RESET_S + ramp_s * number / 1000
        firsts.append(plan(route, now_s, 0.0, None, fleet.look(now_s)).upstreams[0])
    tenths = [firsts[at : at + 100].count("a") for at in range(0, 1000, 100)]
    if others:
        assert tenths == pytest.approx([14.5 + 9 * tenth for tenth in range(10)], abs=8)
    else:
        assert tenths == [100] * 10
    later_s = RESET_S + ramp_s
    assert plan(route, later_s, 0.0, None, fleet.look(later_s)).upstreams[0] == "a"


def test_the_first_token_is_seen_by_whoever_balances() -> None:
    fleet = fleet_of()
    permit = take(fleet["a"], 0.0)
    fleet["a"].vouch(permit, 0.5, 0.5)
    assert fleet.look(0.5).loads["a"].first_token_s == 0.5
    assert fleet.look(0.5).loads["a"].in_flight == 1
    assert fleet["a"].breaker.last_sign_of_life_s == 0.5


def test_changes_are_told_by_name() -> None:
    told: list[tuple[str, State, State]] = []
    fleet = Fleet(["a", "b"], 2, RESET_S, lambda: 0.0, lambda *change: told.append(change))
    trip(fleet["b"])
    assert told == [("b", State.CLOSED, State.OPEN)]
    assert [upstream.name for upstream in fleet] == ["a", "b"]


def test_without_leaves_them_out_for_nobody_knows_how_long() -> None:
    assert without(["a"]).wait_s == {"a": inf}


ABSENT = errors.UpstreamConnectError("no", upstream="a")


@pytest.mark.parametrize(
    ("failure", "is_absence"),
    [
        (ABSENT, True),
        (errors.UpstreamDnsError("no", upstream="a"), True),
        (errors.UpstreamUnavailable("no", upstream="a", status=503), True),
        (errors.UpstreamUnavailable("no", upstream="a", status=500), False),
        (errors.UpstreamTimeout("no", upstream="a"), False),
        (errors.UpstreamTruncated("no", upstream="a"), False),
    ],
)
def test_what_a_server_that_is_coming_up_looks_like(failure: errors.UpstreamError, is_absence: bool) -> None:
    upstream = fleet_of()["a"]
    assert not upstream.awaits(failure, 0.0), "nobody gave it time"
    upstream.expect_start(60.0)
    assert upstream.awaits(failure, 59.0) is is_absence
    assert not upstream.awaits(failure, 60.0), "its time is over"


SIGNS_OF_LIFE: dict[str, Callable[[UpstreamHealth], None]] = {
    "a passed check": lambda upstream: upstream.pass_check(),
    "an answer": lambda upstream: upstream.settle(take(upstream, 1.0), Outcome.SUCCESS, 1.0),
    "the first event of a stream": lambda upstream: upstream.vouch(take(upstream, 1.0), 0.5, 1.0),
}


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
def test_who_has_been_there_once_is_never_starting_again(sign: str) -> None:
    upstream = fleet_of()["a"]
    upstream.expect_start(60.0)
    for now_s in (0.0, 1.0):
        upstream.settle(take(upstream, now_s), Outcome.NEUTRAL, now_s)
        assert upstream.is_starting(now_s)
    SIGNS_OF_LIFE[sign](upstream)
    upstream.fail_check(2.0)
    assert not upstream.is_starting(2.0)
    assert not upstream.awaits(ABSENT, 2.0)
