"""What every store of limits promises, in memory and in Redis alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import inf

import pytest
import redis

from nexus_gateway.core.model import Principal, Verdict
from nexus_gateway.stores.base import Basis, Cost, Decision, Hold, LimitStore, Use
from nexus_gateway.stores.memory import MemoryLimitStore
from nexus_gateway.stores.redis import RedisLimitStore, State, Timing

from .server_clock import ServerClock, clocked

pytestmark = pytest.mark.anyio

START_MS = 10**9 + 250


@dataclass
class World:
    """A store and the one clock that it and its callers go by."""

    store: LimitStore
    server_clock: ServerClock | None
    now_s: float = 0.0

    async def at(self, after_s: float) -> None:
        """Move to `after_s` from the start."""
        await self.store.admit(Principal("barrier", 10**6), Cost(), self.now_s)  # what was asked before is done
        now_ms = START_MS + int(after_s * 1000)
        self.now_s = now_ms / 1000
        if self.server_clock is not None:
            self.server_clock.set(now_ms)

    async def admit(self, caller: Principal, tokens: int = 0, least: int | None = None) -> Decision:
        return await self.store.admit(caller, Cost(tokens, least), self.now_s)

    async def hold(self, caller: Principal, tokens: int = 0, least: int | None = None) -> Hold:
        decision = await self.admit(caller, tokens, least)
        assert decision.hold is not None, decision
        return decision.hold

    async def refusal(self, caller: Principal, tokens: int = 0) -> tuple[str, Verdict]:
        decision = await self.admit(caller, tokens)
        assert decision.hold is None
        assert decision.basis is Basis.WHOLE
        assert decision.refusal is not None
        return decision.refusal

    async def use(self, caller: Principal) -> Use:
        (told,) = await self.store.use([caller], self.now_s)
        return told

    def settle(self, hold: Hold, used: int = 0) -> None:
        self.store.settle(hold, used, self.now_s)


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[World]:
    if request.param == "memory":
        world = World(MemoryLimitStore(), None)
        await world.at(0)
        yield world
        return
    client: redis.Redis = request.getfixturevalue("client")
    clock = ServerClock(client, prefix)
    clock.set(START_MS)
    world = World(MemoryLimitStore(), clock)
    store = RedisLimitStore(
        request.getfixturevalue("redis_url"),
        prefix=prefix,
        scripts=clocked(clock),
        timing=Timing(answer_s=5.0, lease_s=10**6),  # a slow machine is not what is tested here
        clock=lambda: world.now_s,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        await store.started()
        assert store.state is State.SHARED
        world.store = store
        await world.at(0)
        yield world
        await store.aclose()


def requests(limit: int) -> Principal:
    return Principal("caller", limit)


def tokens(limit: int) -> Principal:
    return Principal("caller", None, limit)


def slots(limit: int) -> Principal:
    return Principal("caller", None, None, limit)


async def test_requests_to_the_limit_and_no_further(world: World) -> None:
    decisions = [await world.admit(requests(3)) for _ in range(4)]
    assert [decision.hold is not None for decision in decisions] == [True, True, True, False]
    assert [decision.requests and decision.requests.remaining for decision in decisions] == [2, 1, 0, 0]
    refused = decisions[-1].requests
    assert refused == Verdict(False, 3, 0, 60.75, 60.75)
    await world.at(60.749)
    await world.refusal(requests(3))
    await world.at(60.75)
    await world.hold(requests(3))


async def test_without_limits_there_are_no_verdicts(world: World) -> None:
    decision = await world.admit(Principal("free", None), 10**12)
    assert (decision.requests, decision.tokens, decision.concurrency) == (None, None, None)
    assert decision.refusal is None
    assert decision.hold is not None
    world.settle(decision.hold, 10**12)


async def test_principals_do_not_share(world: World) -> None:
    for key_id in ("one", "other"):
        await world.hold(Principal(key_id, 1, 10, 1), 10)


async def test_a_reservation_counts_until_it_is_settled_and_what_was_used_for_a_minute_after(world: World) -> None:
    hold = await world.hold(tokens(100), 80)
    assert (await world.refusal(tokens(100), 21))[0] == "tokens"
    await world.at(200)  # a long stream: reserved all the while
    assert (await world.refusal(tokens(100), 21))[0] == "tokens"
    world.settle(hold, 50)
    assert (await world.hold(tokens(100), 50)).tokens == 50
    await world.at(260.749)
    await world.refusal(tokens(100), 1)
    await world.at(260.75)
    await world.hold(tokens(100), 50)


async def test_a_hold_is_settled_once(world: World) -> None:
    hold = await world.hold(tokens(100), 60)
    for _ in range(3):
        world.settle(hold, 40)
    decision = await world.admit(tokens(100), 60)
    assert decision.tokens is not None
    assert (decision.tokens.allowed, decision.tokens.remaining) == (True, 0)


async def test_use_beyond_the_reservation_is_paid_before_anything_else(world: World) -> None:
    world.settle(await world.hold(tokens(100), 10), 350)
    resource, verdict = await world.refusal(tokens(100), 1)
    assert (resource, verdict.remaining) == ("tokens", 0)
    assert verdict.retry_after_s == 60.75 + 2 * 61  # two whole limits more are paid, then half of one
    assert verdict.reset_s == 60.75 + 3 * 61
    assert (await world.refusal(tokens(100), 51))[1].retry_after_s == 60.75 + 3 * 61
    await world.at(verdict.retry_after_s - 0.001)
    await world.refusal(tokens(100), 1)
    await world.at(verdict.retry_after_s)
    await world.refusal(tokens(100), 51)
    await world.hold(tokens(100), 50)


async def test_debt_that_ends_within_a_minute_leaves_the_rest_free(world: World) -> None:
    world.settle(await world.hold(tokens(100), 10), 130)
    assert (await world.refusal(tokens(100), 70))[1].retry_after_s == 60.75
    await world.at(60.75)
    await world.refusal(tokens(100), 71)
    await world.hold(tokens(100), 70)


async def test_more_than_the_whole_limit_never_fits(world: World) -> None:
    resource, verdict = await world.refusal(tokens(100), 101)
    assert (resource, verdict.limit, verdict.retry_after_s) == ("tokens", 100, inf)
    assert verdict.remaining == 100


async def test_whoever_is_content_with_less_gets_what_is_left(world: World) -> None:
    assert (await world.hold(tokens(100), 70)).tokens == 70
    assert (await world.hold(tokens(100), 70, 20)).tokens == 30
    decision = await world.admit(tokens(100), 70, 20)
    assert decision.hold is None
    assert (await world.hold(tokens(100), 70, 0)).tokens == 0


async def test_slots_come_back_when_holds_are_settled(world: World) -> None:
    first = await world.hold(slots(2))
    second = await world.hold(slots(2))
    resource, verdict = await world.refusal(slots(2))
    assert (resource, verdict.limit, verdict.remaining, verdict.retry_after_s) == ("concurrency", 2, 0, 1.0)
    world.settle(first)
    world.settle(first)
    third = await world.hold(slots(2))
    await world.refusal(slots(2))
    for hold in (second, third):
        world.settle(hold)
    assert (await world.hold(slots(2))).tokens is None


@pytest.mark.parametrize("lacking", ["requests", "tokens", "concurrency"])
async def test_a_refusal_consumes_nothing_of_the_other_limits(world: World, lacking: str) -> None:
    wide = {"requests": Principal("caller", 4, 1000, 9), "tokens": Principal("caller", 9, 40, 9)}
    caller = wide.get(lacking, Principal("caller", 9, 1000, 4))
    holds = [await world.hold(caller, 10) for _ in range(4)]
    for _ in range(3):
        assert (await world.refusal(caller, 10))[0] == lacking
    for hold in holds:
        world.settle(hold, 0)
    decision = await world.admit(Principal("caller", 9, 1000, 9), 10)
    assert decision.requests is not None
    assert decision.tokens is not None
    assert decision.concurrency is not None
    assert (decision.requests.remaining, decision.tokens.remaining, decision.concurrency.remaining) == (4, 990, 8)


async def test_the_refusal_names_the_longest_wait(world: World) -> None:
    caller = Principal("caller", 1, 100, 1)
    await world.hold(caller, 10)
    resource, verdict = await world.refusal(caller, 10)
    assert (resource, verdict.retry_after_s) == ("requests", 60.75)
    assert (await world.refusal(caller, 101))[0] == "tokens"


async def test_a_changed_limit_counts_at_once(world: World) -> None:
    await world.hold(requests(1))
    await world.refusal(requests(1))
    raised = await world.admit(requests(2))
    assert raised.requests == Verdict(True, 2, 0, 60.75, 0.0)
    lowered = await world.refusal(requests(1))
    assert lowered[1].remaining == 0


async def test_a_look_consumes_nothing_and_knows_who_is_out_of_requests(world: World) -> None:
    assert world.store.look(requests(1), world.now_s) is None
    await world.hold(requests(1))
    await world.refusal(requests(1))
    for _ in range(3):
        seen = world.store.look(requests(1), world.now_s + 10)
        assert seen is not None
        assert seen.refusal == ("requests", Verdict(False, 1, 0, 50.75, 50.75))
    assert world.store.look(requests(2), world.now_s + 10) is None
    await world.at(60.75)
    assert world.store.look(requests(1), world.now_s) is None
    await world.hold(requests(1))


async def test_a_clock_that_leaps_locks_nobody_out_and_lets_through_one_window_at_most(world: World) -> None:
    caller = Principal("caller", 2, 100, 5)
    for after_s in (0.0, 3600.0, 0.0, -3600.0):
        await world.at(after_s)
        admitted = [(await world.admit(caller, 50)).hold for _ in range(4)]
        assert sum(hold is not None for hold in admitted) <= 2
        for hold in admitted:
            if hold is not None:
                world.settle(hold, 50)
        await world.at(after_s + 62)
        again = await world.hold(caller, 50)
        world.settle(again, 0)


async def test_a_cancelled_caller_leaves_nothing_reserved(world: World) -> None:
    caller = Principal("caller", None, 100, 1)
    for _ in range(20):
        waiting = asyncio.ensure_future(world.admit(caller, 100))
        await asyncio.sleep(0)
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome, Decision) and outcome.hold is not None:
            world.settle(outcome.hold)
    await world.at(0)  # whatever was asked has been answered, and so undone
    await world.hold(caller, 100)


async def test_what_is_used_is_told_and_telling_consumes_nothing(world: World) -> None:
    caller = Principal("caller", 5, 100, 3)
    first = await world.hold(caller, 30)
    await world.hold(caller, 20)
    for _ in range(3):
        assert await world.use(caller) == Use(2, 50, 2)
    world.settle(first, 10)
    assert await world.use(caller) == Use(2, 30, 1)
    await world.at(60.75)
    assert await world.use(caller) == Use(0, 20, 1)


async def test_debt_counts_as_used(world: World) -> None:
    world.settle(await world.hold(tokens(100), 10), 350)
    assert await world.use(tokens(100)) == Use(tokens=350)
    await world.at(60.75)
    assert await world.use(tokens(100)) == Use(tokens=250)


async def test_only_limits_are_told_and_of_strangers_nothing_is_used(world: World) -> None:
    await world.hold(requests(5))
    assert await world.use(requests(5)) == Use(requests=1)
    assert await world.use(Principal("free", None)) == Use()
    many = [Principal(f"stranger-{number}", number + 1, 9, 9) for number in range(100)]
    assert await world.store.use(many, world.now_s) == [Use(0, 0, 0)] * 100
