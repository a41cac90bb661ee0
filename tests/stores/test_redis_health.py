"""How upstreams stand, shared: openings, one probe in all, recovery, isolation; and each alone without the server."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import redis

from nexus_gateway.core.breaker import Outcome, Permit, State
from nexus_gateway.core.health import Fleet, UpstreamHealth
from nexus_gateway.stores.redis_health import DEFAULT_TIMING, RedisHealth
from nexus_gateway.stores.redis_line import Timing
from tests.support.valkey import ValkeyServer

from .shared_limits import until

pytestmark = pytest.mark.anyio

# Answers may take longer than in earnest: where the machine is busy, a server that is well must not seem away.
QUICK = Timing(answer_s=0.3, probe_s=0.05, renew_s=0.02)
LONG_S = 60.0  # an open period that no test sees the end of
SHORT_S = 0.15
PROBE_S = 30.0


@dataclass(frozen=True, slots=True)
class Process:
    """One gateway process' view of the upstreams `a` and `b`."""

    sharing: RedisHealth
    fleet: Fleet

    @property
    def a(self) -> UpstreamHealth:
        return self.fleet["a"]

    @property
    def state(self) -> State:
        return self.a.breaker.snapshot(time.monotonic()).state

    @property
    def wait_s(self) -> float:
        return self.a.wait_s(time.monotonic())

    def take(self, for_s: float = PROBE_S) -> Permit | None:
        now_s = time.monotonic()
        return self.a.acquire(now_s, now_s + for_s)

    def end(self, permit: Permit, outcome: Outcome) -> None:
        self.a.settle(permit, outcome, time.monotonic())

    def trip(self) -> None:
        permit = self.take()
        assert permit is not None
        self.end(permit, Outcome.FAILURE)

    async def probe(self, for_s: float = PROBE_S) -> Permit | None:
        """A permit with which the probe may go out."""
        permit = self.take(for_s)
        if permit is None or not permit.is_probe:
            return None
        return permit if await self.sharing.claim("a", permit) else None


@asynccontextmanager
async def process(url: str, prefix: str, reset_s: float = LONG_S, timing: Timing = QUICK) -> AsyncIterator[Process]:
    told: list[RedisHealth] = []

    def changed(upstream: str, before: State, after: State) -> None:
        told[0].breaker_changed(upstream, before, after)

    fleet = Fleet(["a", "b"], 1, reset_s, lambda: 0.0, changed)
    sharing = RedisHealth(url, fleet, longest_s=reset_s, timing=timing, prefix=prefix)
    told.append(sharing)
    task = asyncio.ensure_future(sharing.run())
    await sharing.started()
    try:
        yield Process(sharing, fleet)
    finally:
        await sharing.aclose()
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def processes(
    number: int, url: str, prefix: str, reset_s: float = LONG_S, timing: Timing = QUICK
) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(process(url, prefix, reset_s, timing)) for _ in range(number)]


async def half_open(among: list[Process]) -> None:
    """The first finds the upstream down; all wait for the end of the period."""
    among[0].trip()
    await until(lambda: all(each.state is State.OPEN for each in among))
    await until(lambda: all(each.state is State.HALF_OPEN for each in among))


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


async def test_an_opening_reaches_all_within_a_second_and_ends_at_one_instant(redis_url: str, prefix: str) -> None:
    timing = Timing(answer_s=0.3, renew_s=DEFAULT_TIMING.renew_s)
    async with processes(3, redis_url, prefix, timing=timing) as among:
        among[1].trip()
        await until(lambda: all(each.state is State.OPEN for each in among), within_s=1.0)
        assert all(each.take() is None for each in among)
        waits_s = [each.wait_s for each in among]
        assert max(waits_s) - min(waits_s) < timing.answer_s
        assert max(waits_s) < LONG_S + timing.answer_s
        assert all(each.fleet["b"].is_at_rest(time.monotonic()) for each in among)


async def test_openings_found_at_once_are_one_and_whoever_comes_later_knows_it(redis_url: str, prefix: str) -> None:
    async with processes(2, redis_url, prefix, SHORT_S) as among:
        for each in among:
            each.trip()
        async with process(redis_url, prefix, SHORT_S) as late:
            assert not late.a.breaker.is_closed
            among.append(late)
            await until(lambda: all(each.state is State.HALF_OPEN for each in among))
            probes = await asyncio.gather(*(each.probe() for each in among))
            assert sum(probe is not None for probe in probes) == 1


async def test_of_all_processes_one_sends_the_probe_and_its_success_closes_all(redis_url: str, prefix: str) -> None:
    async with processes(4, redis_url, prefix, SHORT_S) as among:
        await half_open(among)
        permits = await asyncio.gather(*(each.probe() for each in among for _ in range(5)))
        probes = [permit for permit in permits if permit is not None]
        assert len(probes) == 1
        await until(lambda: all(each.wait_s > 0 for each in among))
        assert all(each.take() is None for each in among), "the others need not ask: they know of it"
        (holder,) = (each for at, each in enumerate(among) if any(permits[at * 5 : at * 5 + 5]))
        holder.end(probes[0], Outcome.SUCCESS)
        await until(lambda: all(each.state is State.CLOSED for each in among), within_s=1.0)


async def test_its_failure_opens_all_anew(redis_url: str, prefix: str) -> None:
    async with processes(3, redis_url, prefix, SHORT_S) as among:
        await half_open(among)
        for _ in range(3):
            probe = await among[2].probe()
            assert probe is not None
            among[2].end(probe, Outcome.FAILURE)
            await until(lambda: all(each.state is State.OPEN for each in among), within_s=1.0)
            await until(lambda: all(each.state is State.HALF_OPEN for each in among))
            await until(lambda: all(each.wait_s == 0 for each in among))


async def test_a_probe_without_a_result_gives_its_place_to_any_process(redis_url: str, prefix: str) -> None:
    async with processes(2, redis_url, prefix, SHORT_S) as (one, other):
        await half_open([one, other])
        probe = await one.probe()
        assert probe is not None
        assert await other.probe() is None
        one.end(probe, Outcome.NEUTRAL)
        await until(lambda: other.wait_s == 0)
        assert await other.probe() is not None
        assert await one.probe() is None


async def test_the_lease_of_a_process_that_is_gone_ends_with_its_probe(redis_url: str, prefix: str) -> None:
    async with process(redis_url, prefix, SHORT_S) as other:
        async with process(redis_url, prefix, SHORT_S) as gone:
            await half_open([gone, other])
            assert await gone.probe(for_s=0.3) is not None  # and nobody will ever say what became of it
        assert await other.probe() is None
        async with asyncio.timeout(3):
            while await other.probe() is None:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)  # until it ends


async def test_a_caller_who_leaves_while_it_asks_keeps_nobody_from_probing(redis_url: str, prefix: str) -> None:
    async with processes(2, redis_url, prefix, SHORT_S) as (one, other):
        await half_open([one, other])
        permit = one.take()
        assert permit is not None
        asking = asyncio.ensure_future(one.sharing.claim("a", permit))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        one.end(permit, Outcome.NEUTRAL)
        async with asyncio.timeout(2):
            while await other.probe() is None:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)  # until the lease that it got has come back


async def test_an_operators_word_is_heard_by_all_also_by_those_who_come_later(redis_url: str, prefix: str) -> None:
    async with processes(2, redis_url, prefix) as (one, other):
        one.a.isolate()
        one.sharing.isolation_changed("a")
        await until(lambda: other.a.is_isolated, within_s=1.0)
        async with process(redis_url, prefix) as third:
            assert third.a.is_isolated
            assert not third.fleet["b"].is_isolated
            third.a.restore()
            third.sharing.isolation_changed("a")
            await until(lambda: not one.a.is_isolated and not other.a.is_isolated, within_s=1.0)


async def test_without_the_server_each_is_on_its_own_and_what_happened_is_told_later(
    server: ValkeyServer, prefix: str
) -> None:
    async with processes(2, server.url, prefix, SHORT_S) as (one, other):
        await half_open([one, other])
        assert await one.probe() is not None
        await until(lambda: other.wait_s > 0)
        server.kill()
        await until(lambda: not one.sharing.is_shared and not other.sharing.is_shared)
        assert other.wait_s == 0, "the probe of the other is no concern of ours any more"
        own = await other.probe()
        assert own is not None
        other.end(own, Outcome.SUCCESS)
        assert (one.state, other.state) == (State.HALF_OPEN, State.CLOSED)
        one.a.isolate()
        one.sharing.isolation_changed("a")

        server.start()
        await until(lambda: other.a.is_isolated and one.state is State.CLOSED)


async def test_a_server_that_lost_its_memory_is_told_again(server: ValkeyServer, prefix: str) -> None:
    async with process(server.url, prefix) as one:
        one.trip()
        one.a.isolate()
        one.sharing.isolation_changed("a")
        await until(lambda: server.call("EXISTS", f"{prefix}:{{upstreams}}:isolated"))
        server.call("FLUSHALL")
        await until(
            lambda: server.call("EXISTS", *(f"{prefix}:{{upstreams}}:{key}" for key in ("isolated", "breakers"))) == 2
        )
        async with process(server.url, prefix) as other:
            assert other.a.is_isolated
            assert other.state is State.OPEN


async def test_frozen_it_costs_a_probe_the_time_of_one_answer_and_the_local_permit_rules(
    server: ValkeyServer, prefix: str
) -> None:
    calm = Timing(answer_s=0.3, renew_s=60)
    async with process(server.url, prefix, SHORT_S, calm) as one:
        await half_open([one])
        server.freeze()
        started_s = time.monotonic()
        assert await one.probe() is not None
        assert time.monotonic() - started_s < calm.answer_s + 0.25
        server.thaw()


def test_a_probe_waits_fifty_milliseconds_at_most_and_news_travel_four_times_a_second() -> None:
    assert DEFAULT_TIMING.answer_s <= 0.05
    assert DEFAULT_TIMING.renew_s <= 0.25


FAR = 10**17

JUNK: dict[str, Callable[[redis.Redis, str], object]] = {
    "another type": lambda client, key: (client.delete(key), client.rpush(key, "junk")),
    "a string": lambda client, key: (client.delete(key), client.set(key, "junk")),
    "words": lambda client, key: client.hset(key, mapping={"a": "junk", "b": "\xff\x00", "zzz": "1"}),
    "bytes": lambda client, key: client.hset(key, "a", b"\x96\xa1\xff\x00"),
    "a name too long": lambda client, key: client.hset(key, "a", "x" * 9999 + " open 1 - 0 0"),
    "a state of its own": lambda client, key: client.hset(key, "a", "x ajar 1 - 0 0"),
}


@pytest.mark.parametrize("key", ["breakers", "isolated"])
@pytest.mark.parametrize("junk", JUNK)
async def test_junk_under_our_keys_is_as_good_as_absent(
    redis_url: str, prefix: str, client: redis.Redis, junk: str, key: str
) -> None:
    JUNK[junk](client, f"{prefix}:{{upstreams}}:{key}")
    async with processes(2, redis_url, prefix) as (one, other):
        assert one.sharing.is_shared
        assert one.state is State.CLOSED
        assert not one.a.is_isolated
        one.trip()
        one.a.isolate()
        one.sharing.isolation_changed("a")
        await until(lambda: other.state is State.OPEN and other.a.is_isolated)


@pytest.mark.parametrize("junk", [f"x open {FAR} - 0 0", f"x open 0 somebody {FAR} 100", f"x open {'9' * 100} - 0 0"])
async def test_no_end_is_further_away_than_a_period_or_a_probe(
    redis_url: str, prefix: str, client: redis.Redis, junk: str
) -> None:
    """As junk has it, or a clock that leapt back."""
    client.hset(f"{prefix}:{{upstreams}}:breakers", "a", junk)
    async with process(redis_url, prefix, SHORT_S) as one:
        assert not one.a.breaker.is_closed
        async with asyncio.timeout(3):
            while (probe := await one.probe()) is None:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)  # until that end
        one.end(probe, Outcome.SUCCESS)
        assert one.state is State.CLOSED
