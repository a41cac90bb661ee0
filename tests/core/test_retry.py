"""Laws of waiting and of the retry budget."""

from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core import errors
from nexus_gateway.core.retry import (
    BACKOFF_BASE_S,
    BACKOFF_CAP_S,
    DEFAULT_COOLDOWN_S,
    MAX_COOLDOWN_S,
    RETRY_FLOOR_PER_S,
    RetryBudget,
    backoff_s,
    may_move_on,
    parse_retry_after,
)

NOW_UNIX_S = 1_800_000_000.0


@given(st.one_of(st.none(), st.text(max_size=80), st.text("0123456789.eE+-_ infa", max_size=200)), st.floats(0, 4e9))
def test_whatever_the_field_says_the_wait_is_above_0_and_capped(text: str | None, now_unix_s: float) -> None:
    assert 0 < parse_retry_after(text, now_unix_s) <= MAX_COOLDOWN_S


@given(st.integers(1, 10**30))
def test_whole_seconds_are_taken_as_they_are(seconds: int) -> None:
    assert parse_retry_after(f" {seconds}\t", NOW_UNIX_S) == min(seconds, MAX_COOLDOWN_S)


@given(st.integers(-(10**9), 10**9))
def test_a_date_is_waited_for(ahead_s: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW_UNIX_S + ahead_s, UTC), usegmt=True)
    assert parse_retry_after(date, NOW_UNIX_S) == (min(ahead_s, MAX_COOLDOWN_S) if ahead_s > 0 else DEFAULT_COOLDOWN_S)


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 09:49:37 +0100",
    ],
)
def test_every_form_of_a_date_is_read_in_its_zone(date: str) -> None:
    assert parse_retry_after(date, 784_111_777.0 - 42) == 42


@pytest.mark.parametrize(
    "junk", ["", "soon", "-5", "0", "0.0", "1e3", "nan", "inf", "٣", "1_000", "12 s", "Sun, 99 Nov 9999 99:99:99 GMT"]
)
def test_junk_counts_as_no_field_at_all(junk: str) -> None:
    assert parse_retry_after(junk, NOW_UNIX_S) == parse_retry_after(None, NOW_UNIX_S) == DEFAULT_COOLDOWN_S


def test_only_the_callers_own_error_ends_a_request() -> None:
    rejected = errors.UpstreamRejected("no", upstream="a", status=400, type_="t", code=None, param=None)
    assert not may_move_on(rejected)
    more: dict[type[errors.UpstreamError], dict[str, Any]] = {
        errors.UpstreamRateLimited: {"retry_after_s": 1.0},
        errors.UpstreamStarting: {"retry_after_s": 1.0},
    }
    kinds = [kind for kind in errors.UpstreamError.__subclasses__() if kind is not errors.UpstreamRejected]
    for kind in kinds:
        assert may_move_on(kind("no", upstream="a", **more.get(kind, {})))


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_a_part_of_a_bound_that_doubles_to_its_cap(repeat: int, roll: float) -> None:
    bound_s = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(repeat - 1, 60))
    assert backoff_s(repeat, roll) == roll * bound_s
    assert backoff_s(repeat, 0.0) == 0.0


# A request comes after a gap, and wants to be repeated so many times.
TRAFFIC = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5)), max_size=120)


@given(traffic=TRAFFIC, ratio=st.floats(0, 1), floor_per_s=st.floats(0, 20))
def test_in_any_stretch_of_time_repetitions_stay_within_the_budget(
    traffic: list[tuple[float, int]], ratio: float, floor_per_s: float
) -> None:
    budget = RetryBudget(ratio, floor_per_s)
    instants_s = list(accumulate(gap_s for gap_s, _ in traffic))
    repeated = []
    for now_s, (_, wanted) in zip(instants_s, traffic, strict=True):
        budget.deposit()
        repeated.append(sum(budget.withdraw(now_s) for _ in range(wanted)))
    for begin, begin_s in enumerate(instants_s):
        for end in range(begin, len(instants_s)):
            requests, seconds = end - begin + 1, instants_s[end] - begin_s
            bound = ratio * requests + floor_per_s * seconds + max(floor_per_s, 1.0)
            assert sum(repeated[begin : end + 1]) <= bound + 1e-6


@pytest.mark.parametrize("healthy_s", [0, 3600])
@pytest.mark.parametrize("down_s", [1, 10, 60])
def test_an_upstream_that_is_down_under_500_requests_a_second_sees_at_most_a_fifth_more(
    healthy_s: int, down_s: int
) -> None:
    budget, rate_per_s = RetryBudget(), 500
    for _ in range(healthy_s):  # good times save nothing up
        budget.deposit()
    offered, repeated = rate_per_s * down_s, 0
    for number in range(offered):
        now_s = healthy_s + number / rate_per_s
        budget.deposit()
        repeated += budget.withdraw(now_s) + budget.withdraw(now_s)  # the limit of three attempts
    assert offered + repeated <= 1.2 * offered + 10 * (down_s + 1)
    assert repeated >= 0.99 * (0.2 * offered + 10 * (down_s - 1)), "what is affordable is granted"


def test_a_quiet_upstream_may_be_asked_again() -> None:
    budget = RetryBudget()
    budget.deposit()
    assert budget.withdraw(5.0)


@given(st.integers(0, 1000), st.floats(0, 1e6))
def test_what_is_saved_is_worth_one_second(requests: int, quiet_s: float) -> None:
    budget = RetryBudget()
    for _ in range(requests):
        budget.deposit()
    assert sum(budget.withdraw(5.0 + quiet_s) for _ in range(100)) == RETRY_FLOOR_PER_S
