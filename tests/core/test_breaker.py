"""Laws of the breaker, one by one."""

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core import errors
from nexus_gateway.core.breaker import (
    MAX_RAMP_S,
    PERIOD_JITTER,
    RAMP_START,
    Breaker,
    Outcome,
    Permit,
    State,
    outcome_of,
)

RESET_S = 30.0
DICE = st.floats(0, 1, exclude_max=True)
SOON_S = 10.0  # how long an attempt may take


def breaker_of(max_failures: int = 3, roll: float = 0.0) -> Breaker:
    return Breaker(max_failures, RESET_S, lambda: roll)


def take(breaker: Breaker, now_s: float) -> Permit:
    permit = breaker.acquire(now_s, now_s + SOON_S)
    assert permit is not None
    return permit


def fail(breaker: Breaker, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.settle(take(breaker, now_s), Outcome.FAILURE, now_s)


def opened(roll: float = 0.0) -> Breaker:
    """Open since 0 s."""
    breaker = breaker_of(roll=roll)
    fail(breaker, 0.0, times=3)
    assert breaker.snapshot(0.0).state is State.OPEN
    return breaker


@given(st.lists(st.sampled_from(Outcome), max_size=60), st.integers(1, 6))
def test_it_opens_at_the_nth_failure_in_a_row_and_not_before(outcomes: list[Outcome], max_failures: int) -> None:
    breaker, in_a_row = breaker_of(max_failures), 0
    for second, outcome in enumerate(outcomes):
        breaker.settle(take(breaker, second), outcome, second + 0.5)
        if outcome is Outcome.SUCCESS:
            in_a_row = 0
        elif outcome not in (
            Outcome.NEUTRAL,
            Outcome.REJECTED,
        ):  # nobody saw a sign of life, so that a timeout is a failure
            in_a_row += 1
        if in_a_row == max_failures:
            assert breaker.snapshot(second + 0.5).state is State.OPEN
            return
        assert breaker.is_at_rest


@given(roll=DICE, part=st.floats(0, 1, exclude_max=True))
def test_while_open_nobody_gets_through_and_the_wait_is_true(roll: float, part: float) -> None:
    breaker = opened(roll)
    period_s = breaker.wait_s(0.0)
    assert RESET_S * (1 - PERIOD_JITTER) <= period_s <= RESET_S
    now_s = part * period_s
    if breaker.wait_s(now_s) > 0:
        assert breaker.acquire(now_s, now_s + SOON_S) is None
    assert breaker.wait_s(period_s) == 0
    assert breaker.acquire(period_s, period_s + SOON_S) is not None


@given(DICE)
def test_500_racing_callers_send_one_probe(roll: float) -> None:
    breaker = opened(roll)
    permits = [breaker.acquire(RESET_S, RESET_S + SOON_S) for _ in range(500)]
    probes = [permit for permit in permits if permit is not None]
    assert len(probes) == 1
    assert probes[0].is_probe
    breaker.settle(probes[0], Outcome.SUCCESS, RESET_S + 1)
    assert all(breaker.acquire(RESET_S + 1, RESET_S + 1 + SOON_S) is not None for _ in range(500))


@given(st.lists(st.sampled_from([Outcome.FAILURE, Outcome.TIMED_OUT, None]), min_size=1, max_size=20), DICE)
def test_a_dead_upstream_sees_one_probe_per_period_however_many_knock(
    outcomes: list[Outcome | None], roll: float
) -> None:
    """An outcome of None is a probe that hangs."""
    breaker, now_s, seen_s = opened(roll), 0.0, []
    for outcome in outcomes:
        permits: list[Permit] = []
        while not permits:
            now_s += 2.5
            permits = [permit for _ in range(50) if (permit := breaker.acquire(now_s, now_s + SOON_S)) is not None]
        (probe,) = permits
        seen_s.append(now_s)
        if outcome is not None:
            breaker.settle(probe, outcome, now_s + 0.125)
    assert all(after - before >= RESET_S * (1 - PERIOD_JITTER) for before, after in pairwise(seen_s))


def test_a_success_closes_it_and_a_failure_opens_it_anew() -> None:
    breaker = opened()
    fail(breaker, RESET_S)
    assert breaker.wait_s(RESET_S) == RESET_S
    breaker.settle(take(breaker, 2 * RESET_S), Outcome.SUCCESS, 2 * RESET_S + 1)
    assert breaker.snapshot(2 * RESET_S + 1).state is State.CLOSED
    fail(breaker, 2 * RESET_S + 2, times=2)
    assert breaker.snapshot(2 * RESET_S + 2).state is State.CLOSED, "the count began at 0"


def test_a_probe_whose_request_is_refused_closes_it_on_probation() -> None:
    breaker = opened()
    breaker.settle(take(breaker, RESET_S), Outcome.REJECTED, RESET_S + 1)
    assert breaker.is_closed, "or one client's bad requests would take every probe from the others"
    breaker.settle(take(breaker, RESET_S + 2), Outcome.REJECTED, RESET_S + 2)
    assert breaker.is_closed
    fail(breaker, RESET_S + 2)
    assert breaker.wait_s(RESET_S + 2) == RESET_S, "it had served nobody yet"
    now_s = 2 * RESET_S + 2
    breaker.settle(take(breaker, now_s), Outcome.REJECTED, now_s)
    breaker.settle(take(breaker, now_s), Outcome.SUCCESS, now_s)
    fail(breaker, now_s, times=2)
    assert breaker.is_closed, "it has served somebody, and the count began at 0"


def test_a_probe_that_is_cancelled_gives_its_permit_back() -> None:
    breaker = opened()
    probe = take(breaker, RESET_S)
    assert breaker.acquire(RESET_S, RESET_S + SOON_S) is None
    assert 0 < breaker.wait_s(RESET_S) <= SOON_S
    breaker.settle(probe, Outcome.NEUTRAL, RESET_S + 1)
    assert breaker.wait_s(RESET_S + 1) == 0
    breaker.settle(take(breaker, RESET_S + 1), Outcome.SUCCESS, RESET_S + 2)
    assert breaker.snapshot(RESET_S + 2).state is State.CLOSED


@given(noticed_after_s=st.floats(0, 500), late=st.sampled_from(Outcome))
def test_a_probe_that_hangs_has_failed_at_its_deadline_whenever_that_is_noticed(
    noticed_after_s: float, late: Outcome
) -> None:
    breaker = opened()
    probe = take(breaker, RESET_S)
    deadline_s = RESET_S + SOON_S
    now_s = deadline_s + noticed_after_s
    expected_s = max(deadline_s + RESET_S - now_s, 0)
    assert breaker.wait_s(now_s) == expected_s
    breaker.settle(probe, late, now_s)
    assert breaker.wait_s(now_s) == expected_s, "its answer comes too late to matter"
    unwatched = opened()
    unwatched.settle(take(unwatched, RESET_S), late, now_s)
    assert unwatched.snapshot(now_s) == breaker.snapshot(now_s), "even if it is what makes it noticed"


@given(outcome=st.sampled_from(Outcome), late_s=st.sampled_from([1.0, RESET_S, RESET_S + 2, 5 * RESET_S]))
def test_a_result_from_before_the_trip_changes_nothing(outcome: Outcome, late_s: float) -> None:
    breaker = breaker_of()
    old = [take(breaker, 0.0) for _ in range(10)]
    fail(breaker, 0.0, times=3)
    if late_s > RESET_S:
        breaker.settle(take(breaker, RESET_S), Outcome.SUCCESS, RESET_S + 1)
        fail(breaker, RESET_S + 1, times=2)
    before = breaker.snapshot(late_s)
    for permit in old:
        breaker.settle(permit, outcome, late_s)
        breaker.vouch(permit, late_s)
    assert breaker.snapshot(late_s) == before


@given(st.lists(st.sampled_from(Outcome), min_size=1, max_size=5))
def test_a_permit_is_settled_once(again: list[Outcome]) -> None:
    breaker = breaker_of()
    permit = take(breaker, 0.0)
    breaker.settle(permit, Outcome.FAILURE, 0.0)
    before = breaker.snapshot(0.0)
    for outcome in again:
        breaker.settle(permit, outcome, 0.0)
    assert permit.is_settled
    assert breaker.snapshot(0.0) == before


def test_slow_plain_answers_from_a_server_that_answers_others_do_not_open_it() -> None:
    breaker = breaker_of()
    for second in range(100):
        slow = take(breaker, second)
        breaker.last_sign_of_life_s = second + 0.5  # somebody else's head or event
        breaker.settle(slow, Outcome.TIMED_OUT, second + 0.9)
    assert breaker.is_at_rest
    for second in range(200, 203):
        breaker.settle(take(breaker, second), Outcome.TIMED_OUT, second + 0.9)
    assert breaker.snapshot(203.0).state is State.OPEN


def test_a_success_is_a_sign_of_life_too() -> None:
    breaker = breaker_of(max_failures=1)
    slow, quick = take(breaker, 0.0), take(breaker, 1.0)
    breaker.settle(quick, Outcome.SUCCESS, 2.0)
    breaker.settle(slow, Outcome.TIMED_OUT, 9.0)
    assert breaker.is_at_rest


def test_a_life_sign_from_before_the_attempt_excuses_nothing() -> None:
    breaker = breaker_of(max_failures=1)
    breaker.settle(take(breaker, 0.0), Outcome.SUCCESS, 1.0)
    breaker.settle(take(breaker, 1.0), Outcome.TIMED_OUT, 9.0)
    assert breaker.snapshot(9.0).state is State.OPEN


def test_the_first_event_of_a_stream_closes_it_and_the_stream_may_go_on() -> None:
    breaker = opened()
    stream = take(breaker, RESET_S)
    breaker.vouch(stream, RESET_S + 1)
    assert breaker.snapshot(RESET_S + 1).state is State.CLOSED
    fail(breaker, RESET_S + 600)
    breaker.settle(stream, Outcome.SUCCESS, RESET_S + 600)
    assert breaker.snapshot(RESET_S + 600).failures == 0


@pytest.mark.parametrize(("after_s", "state"), [(1.0, State.OPEN), (600.0, State.CLOSED)])
def test_a_probes_stream_that_breaks_while_the_ramp_lasts_opens_it_again(after_s: float, state: State) -> None:
    breaker = opened()
    stream = take(breaker, RESET_S)
    breaker.vouch(stream, RESET_S + 1)
    breaker.settle(stream, Outcome.FAILURE, RESET_S + 1 + after_s)
    assert breaker.snapshot(RESET_S + 1 + after_s).state is state


def test_an_opening_ends_the_ramp() -> None:
    breaker = opened()
    breaker.settle(take(breaker, RESET_S), Outcome.SUCCESS, RESET_S)
    assert breaker.share(RESET_S) < 1
    breaker.force_open_until(RESET_S + 1, RESET_S)
    assert breaker.share(RESET_S) == 1
    assert breaker.acquire(RESET_S + 1, RESET_S + 1 + SOON_S) is not None


def test_the_first_event_after_the_deadline_is_too_late() -> None:
    breaker = opened()
    stream = take(breaker, RESET_S)
    breaker.vouch(stream, RESET_S + SOON_S)
    assert breaker.snapshot(RESET_S + SOON_S).state is State.OPEN


@given(st.floats(0.01, 3600), st.lists(st.floats(0, 1), min_size=2, max_size=10).map(sorted))
def test_the_ramp_is_short_linear_and_ends(reset_s: float, parts: list[float]) -> None:
    breaker = Breaker(1, reset_s, lambda: 0.0)
    assert breaker.share(0.0) == 1.0
    fail(breaker, 0.0)
    breaker.settle(take(breaker, reset_s), Outcome.SUCCESS, reset_s)
    assert 0 < breaker.ramp_s <= min(reset_s, MAX_RAMP_S)
    assert not breaker.is_at_rest
    for part in parts:
        share = breaker.share(reset_s + part * breaker.ramp_s)
        assert share == pytest.approx(RAMP_START + (1 - RAMP_START) * part, abs=1e-6)
        assert take(breaker, reset_s + part * breaker.ramp_s), "who was sent here anyway is let through"
    assert breaker.share(reset_s + 2 * breaker.ramp_s) == 1.0
    assert breaker.is_at_rest


@given(until_s=st.floats(-10, 300), now_s=st.floats(0, 100))
def test_an_opening_from_elsewhere_never_shortens_a_period(until_s: float, now_s: float) -> None:
    breaker, alike = opened(), opened()
    wait_s = alike.wait_s(now_s)
    breaker.force_open_until(until_s, now_s)
    assert breaker.wait_s(now_s) == max(wait_s, until_s - now_s, 0)


def test_an_opening_from_elsewhere_closes_no_door_for_good() -> None:
    breaker = breaker_of()
    old = take(breaker, 0.0)
    breaker.force_open_until(5.0, 0.0)
    breaker.settle(old, Outcome.SUCCESS, 1.0)
    assert breaker.acquire(4.9, 14.9) is None
    breaker.settle(take(breaker, 5.0), Outcome.SUCCESS, 6.0)
    assert breaker.snapshot(6.0).state is State.CLOSED


@given(since_s=st.sampled_from([0.0, 1.0, RESET_S, RESET_S + 1, 5 * RESET_S]), probing=st.booleans())
def test_a_recovery_found_elsewhere_counts_like_our_own(since_s: float, probing: bool) -> None:
    breaker = opened()
    probe = breaker.acquire(since_s, since_s + SOON_S) if probing else None
    breaker.force_close(since_s)
    assert breaker.is_closed
    assert breaker.share(since_s) == RAMP_START
    if probe is not None:
        breaker.settle(probe, Outcome.FAILURE, since_s + SOON_S)
        assert breaker.is_closed, "what came of it is about an earlier time"
    fail(breaker, since_s + 1, times=2)
    assert breaker.is_closed, "the count began at 0"
    fail(breaker, since_s + 1)
    assert not breaker.is_closed


@given(failures=st.integers(0, 2), outcome=st.sampled_from(Outcome))
def test_a_recovery_found_elsewhere_changes_nothing_where_all_is_well(failures: int, outcome: Outcome) -> None:
    breaker, alike = breaker_of(), breaker_of()
    for each in (breaker, alike):
        permit = take(each, 0.0)
        fail(each, 0.0, times=failures)
        each.settle(permit, Outcome.NEUTRAL, 0.0)
    breaker.force_close(1.0)
    for each in (breaker, alike):
        each.settle(take(each, 2.0), outcome, 2.0)
    assert breaker.snapshot(2.0) == alike.snapshot(2.0)


def test_every_change_is_told() -> None:
    told: list[tuple[State, State]] = []
    breaker = Breaker(1, RESET_S, lambda: 0.0, lambda before, after: told.append((before, after)))
    fail(breaker, 0.0)
    take(breaker, RESET_S)  # hangs
    breaker.settle(take(breaker, RESET_S + SOON_S + RESET_S), Outcome.SUCCESS, 75.0)
    assert told == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]


def test_replicas_do_not_probe_in_step() -> None:
    rolls = (number * 0.1 for number in count())
    waits_s = set()
    for _ in range(10):
        breaker = Breaker(1, RESET_S, lambda: next(rolls))
        fail(breaker, 0.0)
        waits_s.add(breaker.wait_s(0.0))
    assert len(waits_s) == 10


@pytest.mark.parametrize(
    ("kind", "plain", "streamed"),
    [
        (errors.UpstreamConnectError, Outcome.FAILURE, Outcome.FAILURE),
        (errors.UpstreamDnsError, Outcome.FAILURE, Outcome.FAILURE),
        (errors.UpstreamTimeout, Outcome.TIMED_OUT, Outcome.FAILURE),
        (errors.UpstreamInvalidResponse, Outcome.FAILURE, Outcome.FAILURE),
        (errors.UpstreamTruncated, Outcome.FAILURE, Outcome.FAILURE),
        (errors.UpstreamUnavailable, Outcome.FAILURE, Outcome.FAILURE),
        (errors.UpstreamAuthError, Outcome.NEUTRAL, Outcome.NEUTRAL),
        (errors.UpstreamModelNotFound, Outcome.NEUTRAL, Outcome.NEUTRAL),
        (errors.UpstreamBusy, Outcome.NEUTRAL, Outcome.NEUTRAL),
    ],
)
def test_whose_fault_a_failure_is(kind: type[errors.UpstreamError], plain: Outcome, streamed: Outcome) -> None:
    failure = kind("no", upstream="a")
    assert (outcome_of(failure, stream=False), outcome_of(failure, stream=True)) == (plain, streamed)


@pytest.mark.parametrize("stream", [False, True])
def test_neither_a_429_nor_a_start_nor_the_callers_own_error_is_a_failure(stream: bool) -> None:
    limited = errors.UpstreamRateLimited("no", upstream="a", retry_after_s=1.0)
    starting = errors.UpstreamStarting("no", upstream="a", retry_after_s=1.0)
    rejected = errors.UpstreamRejected("no", upstream="a", status=400, type_="t", code=None, param=None)
    assert outcome_of(limited, stream=stream) is Outcome.NEUTRAL
    assert outcome_of(starting, stream=stream) is Outcome.NEUTRAL
    assert outcome_of(rejected, stream=stream) is Outcome.REJECTED
