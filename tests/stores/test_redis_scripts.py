"""Python and Lua must say the same: equal verdicts on equal traces, whatever the clock does."""

import os
from dataclasses import dataclass
from math import inf

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_gateway.core.account import Account, Cost, Decision, Hold
from nexus_gateway.core.model import Principal, Verdict
from nexus_gateway.stores.redis_commands import Commands, Scripts, read_decision
from nexus_gateway.stores.redis_link import Command

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

    def __init__(self, client: redis.Redis, prefix: str, scripts: Scripts) -> None:
        self._client = client
        self._commands = Commands(scripts, prefix, FOREVER_S)
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


def same(one: Verdict | None, other: Verdict | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.allowed, one.limit, one.remaining) == (other.allowed, other.limit, other.remaining) and all(
        mine == yours or abs(mine - yours) < 0.002 if mine != inf else yours == inf
        for mine, yours in ((one.reset_s, other.reset_s), (one.retry_after_s, other.retry_after_s))
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
