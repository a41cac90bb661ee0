"""Python and Lua must say the same: equal verdicts on equal traces, whatever the clock does."""

import os
from dataclasses import dataclass
from math import inf

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_gateway.core.account import Account, Cost, Decision, Hold
from nexus_gateway.core.model import Principal, Verdict
from nexus_gateway.stores.redis_commands import NOTHING_SPENT, Commands, Scripts, read_decision
from nexus_gateway.stores.redis_link import Command
from nexus_gateway.stores.share import Spending

from .server_clock import ServerClock, clocked

FOREVER_S = 10**6


@dataclass(frozen=True)
class Arrive:
    tokens: int
    least: int | None


@dataclass(frozen=True)
class Settle:
    pick: int
    used: int


LIMITS = st.builds(
    Principal,
    st.just("caller"),
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 5),
)
EVENTS = (
    st.builds(Arrive, st.integers(0, 40), st.none())
    | st.builds(Arrive, st.integers(0, 80), st.integers(0, 20))
    | st.builds(Settle, st.integers(0, 10), st.integers(0, 30) | st.integers(0, 2000))
)
GAPS_MS = st.integers(0, 3_000) | st.integers(0, 130_000) | st.integers(-200_000, 0) | st.integers(0, 5_000_000)
STEPS = st.lists(st.tuples(GAPS_MS, EVENTS, st.none() | LIMITS), max_size=30)


class InLua:
    """An account kept by the scripts, called one by one."""

    def __init__(self, client: redis.Redis, prefix: str, scripts: Scripts, lease_s: float = FOREVER_S) -> None:
        self._client = client
        self._commands = Commands(scripts, prefix, lease_s)
        self._numbers = iter(range(10**6))

    def run(self, command: Command) -> object:
        reply: object = self._client.eval(command.script.source.decode(), 2, *command.keys, command.payload)
        return reply

    def admit(self, principal: Principal, cost: Cost) -> Decision:
        name = f"n{next(self._numbers)}"
        reply = self.run(self._commands.admit(name, principal, cost, lambda reply: None))
        return read_decision(reply, name, principal)

    def settle(self, hold: Hold, used: int) -> object:
        return self.run(self._commands.settle(hold, used, lambda reply: None))

    def renew(
        self,
        holds: list[Hold],
        principal: Principal | None = None,
        spending: Spending = NOTHING_SPENT,
        floors: tuple[int, ...] = (),
    ) -> object:
        command = self._commands.renew(
            "caller", holds, lambda reply: None, principal=principal, spending=spending, floors=floors
        )
        return self.run(command)


def same(one: Verdict | None, other: Verdict | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.allowed, one.limit, one.remaining) == (other.allowed, other.limit, other.remaining) and all(
        mine == yours or abs(mine - yours) < 0.002 if mine != inf else yours == inf
        for mine, yours in ((one.reset_s, other.reset_s), (one.retry_after_s, other.retry_after_s))
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, principal=LIMITS)
def test_equal_traces_get_equal_verdicts(
    client: redis.Redis, steps: list[tuple[int, Arrive | Settle, Principal | None]], principal: Principal
) -> None:
    prefix = f"test-{os.urandom(6).hex()}"
    clock = ServerClock(client, prefix)
    lua, python = InLua(client, prefix, clocked(clock)), Account()
    holds: list[tuple[Hold, Hold]] = []
    now_ms = 10**9
    for gap_ms, event, changed in steps:
        principal = changed or principal
        now_ms += gap_ms
        clock.set(now_ms)
        if isinstance(event, Arrive):
            cost = Cost(event.tokens, event.least)
            mine, yours = python.admit(principal, cost, now_ms / 1000), lua.admit(principal, cost)
            assert same(mine.requests, yours.requests), (mine, yours)
            assert same(mine.tokens, yours.tokens), (mine, yours)
            assert same(mine.concurrency, yours.concurrency), (mine, yours)
            assert (mine.hold is None) == (yours.hold is None)
            if mine.hold is not None and yours.hold is not None:
                assert (mine.hold.tokens, mine.hold.is_settled) == (yours.hold.tokens, yours.hold.is_settled)
                if not mine.hold.is_settled:
                    holds.append((mine.hold, yours.hold))
        elif holds:
            settled_here, settled_there = holds.pop(event.pick % len(holds))
            python.settle(settled_here, event.used, now_ms / 1000)
            assert lua.settle(settled_there, event.used) == 1
            assert lua.settle(settled_there, event.used) == 0


LEASE_S = 12.0
HELD = Principal("caller", None, 100, 1)


def leased(client: redis.Redis, prefix: str) -> tuple[ServerClock, InLua]:
    clock = ServerClock(client, prefix)
    clock.set(10**9)
    lua = InLua(client, prefix, clocked(clock), lease_s=LEASE_S)
    return clock, lua


def test_a_lease_ends_on_time_and_what_it_reserved_counts_from_then(client: redis.Redis, prefix: str) -> None:
    clock, lua = leased(client, prefix)
    assert lua.admit(HELD, Cost(60)).hold is not None
    clock.set(10**9 + 11_999)
    assert lua.admit(HELD, Cost(10)).hold is None
    clock.set(10**9 + 12_000)
    decision = lua.admit(HELD, Cost(10))
    assert decision.hold is not None
    assert decision.tokens is not None
    assert decision.tokens.remaining == 30
    assert lua.settle(decision.hold, 0) == 1
    clock.set(10**9 + 72_999)
    assert lua.admit(HELD, Cost(41)).hold is None
    clock.set(10**9 + 73_000)
    assert lua.admit(HELD, Cost(100)).hold is not None


def test_a_lease_found_long_after_its_end_has_been_paid_for(client: redis.Redis, prefix: str) -> None:
    clock, lua = leased(client, prefix)
    assert lua.admit(HELD, Cost(60)).hold is not None
    clock.set(10**9 + 100_000)
    assert lua.admit(HELD, Cost(100)).hold is not None


def test_a_clock_set_back_does_not_prolong_the_lease_of_the_dead(client: redis.Redis, prefix: str) -> None:
    clock, lua = leased(client, prefix)
    assert lua.admit(HELD, Cost(60)).hold is not None
    back_ms = 10**9 - 3_600_000
    clock.set(back_ms)
    assert lua.admit(HELD, Cost(10)).hold is None
    clock.set(back_ms + 11_999)
    assert lua.admit(HELD, Cost(10)).hold is None
    clock.set(back_ms + 12_000)
    assert lua.admit(HELD, Cost(10)).hold is not None


def test_a_clock_set_ahead_takes_the_hold_of_the_living_only_until_it_is_renewed(
    client: redis.Redis, prefix: str
) -> None:
    clock, lua = leased(client, prefix)
    hold = lua.admit(HELD, Cost(60)).hold
    assert hold is not None
    clock.set(10**9 + 3_600_000)
    assert lua.renew([hold]) == 1
    assert lua.admit(HELD, Cost(10)).hold is None
    assert lua.settle(hold, 20) == 1
    assert lua.settle(hold, 20) == 0
    decision = lua.admit(HELD, Cost(80))
    assert decision.hold is not None


@given(amounts=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 30)), max_size=8), limit=st.integers(1, 100))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_spent_elsewhere_counts_from_when_it_was_spent(
    client: redis.Redis, amounts: list[tuple[int, int]], limit: int
) -> None:
    clock, lua = leased(client, f"test-{os.urandom(6).hex()}")
    caller = Principal("caller", limit, limit)
    recent = sum(amount for age_s, amount in amounts if age_s < 61)
    lua.renew([], caller, Spending(amounts, amounts, 0))
    decision = lua.admit(caller, Cost(1))
    assert decision.requests is not None
    assert decision.tokens is not None
    assert decision.requests.allowed == (recent < limit)
    assert decision.tokens.allowed == (recent < limit)
    if decision.hold is None:
        youngest_s = min(age_s for age_s, _ in amounts)
        clock.set(10**9 + 1000 * (61 - youngest_s) - 1)
        assert lua.admit(caller, Cost(limit)).hold is None
        clock.set(10**9 + 1000 * (61 - youngest_s))
        assert lua.admit(caller, Cost(limit)).hold is not None


def test_the_floor_is_raised_once_however_many_processes_knew_of_it(client: redis.Redis, prefix: str) -> None:
    _, lua = leased(client, prefix)
    caller = Principal("caller", 100, 1000)
    for known in ((5, 60, 600), (3, 60, 600), (1, 70, 650), (2, 10, 10), (61, 99, 999)):
        lua.renew([], caller, floors=known)
    decision = lua.admit(caller, Cost(1))
    assert decision.requests is not None
    assert decision.tokens is not None
    assert (decision.requests.remaining, decision.tokens.remaining) == (29, 349)
