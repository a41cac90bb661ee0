"""Laws of one caller's account: everything or nothing, and a look changes nothing."""

from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.account import Account, Cost, Decision, Hold
from nexus_gateway.core.model import Principal, Verdict

CALLERS = st.builds(
    Principal,
    st.just("caller"),
    st.none() | st.integers(0, 6),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 4),
)
COSTS = st.builds(Cost, st.integers(1, 40)) | st.builds(Cost, st.integers(20, 60), st.integers(1, 20))
STEPS = st.lists(st.tuples(st.floats(0, 30), COSTS, st.booleans(), st.integers(0, 90)), max_size=40)


@given(steps=STEPS, caller=CALLERS)
def test_a_refusal_changes_nothing_and_an_admission_takes_all(
    steps: list[tuple[float, Cost, bool, int]], caller: Principal
) -> None:
    account, now_s = Account(), 100.0
    holds: list[Hold] = []
    for gap_s, cost, ends_one, used in steps:
        now_s += gap_s
        if ends_one and holds:
            account.settle(holds.pop(), used, now_s)
        unasked = deepcopy(account)
        unasked.look(caller, now_s)  # only lets the time pass
        decision = account.admit(caller, cost, now_s)
        if decision.hold is None:
            assert account == unasked
            assert decision.refusal is not None
        else:
            assert decision.refusal is None
            assert account.requests.total == unasked.requests.total + (caller.requests_per_minute is not None)
            assert account.tokens.reserved == unasked.tokens.reserved + (decision.hold.tokens or 0)
            assert account.open == unasked.open + (not decision.hold.is_settled)
            if not decision.hold.is_settled:
                holds.append(decision.hold)
    for hold in holds:
        account.settle(hold, 0, now_s)
    assert (account.open, account.tokens.reserved) == (0, 0)


@given(steps=STEPS, caller=CALLERS)
def test_whoever_is_refused_at_a_look_would_be_refused_whatever_it_asked(
    steps: list[tuple[float, Cost, bool, int]], caller: Principal
) -> None:
    account, now_s = Account(), 100.0
    for gap_s, cost, _, _ in steps:
        now_s += gap_s
        seen = account.look(caller, now_s)
        assert (seen is not None) == (deepcopy(account).admit(caller, Cost(1), now_s).hold is None)
        decision = account.admit(caller, cost, now_s)
        assert seen is None or decision.hold is None


@given(caller=CALLERS, cost=COSTS)
def test_a_grant_is_never_more_than_asked_nor_less_than_agreed(caller: Principal, cost: Cost) -> None:
    hold = Account().admit(caller, cost, 5).hold
    if hold is not None and hold.tokens is not None:
        assert (cost.tokens if cost.least_tokens is None else cost.least_tokens) <= hold.tokens <= cost.tokens


def test_the_longest_wait_is_the_refusal_and_what_fits_is_not() -> None:
    short, long, fine = Verdict(False, 5, 0, 9, 1), Verdict(False, 50, 0, 9, 30), Verdict(True, 5, 2, 9, 0)
    assert Decision(short, long, fine).refusal == ("tokens", long)
    assert Decision(short, fine, None).refusal == ("requests", short)
    assert Decision(fine, None, short).refusal == ("concurrency", short)
    assert Decision(fine, None, None).refusal is None
