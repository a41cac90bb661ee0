"""A real server in cluster mode: it refuses scripts that touch what they did not declare, or keys of two slots."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from redis.crc import key_slot

from nexus_gateway.core.breaker import State as BreakerState
from nexus_gateway.core.health import Fleet
from nexus_gateway.core.model import Principal
from nexus_gateway.stores.base import Basis
from nexus_gateway.stores.redis import State
from nexus_gateway.stores.redis_health import RedisHealth
from tests.support.valkey import ValkeyServer, free_port

from .shared_limits import running, shared, until

pytestmark = pytest.mark.anyio

CALLER = Principal("jwt:9f2c", 100, 1000, 5)
ALL_SLOTS = (0, 16383)


@contextmanager
def node(*slots: int) -> Iterator[ValkeyServer]:
    """A node of a cluster that has these slots, from and to; none of it if none are given."""
    with ValkeyServer("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        if slots:
            serve(server, *slots)
        yield server


def serve(server: ValkeyServer, first: int, last: int) -> None:
    server.call("CLUSTER", "ADDSLOTSRANGE", first, last)
    while "cluster_state:ok" not in str(server.call("CLUSTER", "INFO")):
        time.sleep(0.05)  # nobody tells when it is


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with node(*ALL_SLOTS) as server:
        yield server


async def test_every_script_keeps_to_its_keys_and_those_of_a_caller_are_in_one_slot(server: ValkeyServer) -> None:
    async with shared(server.url) as one, shared(server.url) as other:
        await until(lambda: one.store.processes == other.store.processes == 2)
        held = await one.hold(CALLER, 300)
        one.settle(held, 200)
        await other.hold(CALLER, 300)
        decision = await one.admit(CALLER, 600)
        assert decision.hold is None
        assert decision.tokens is not None
        assert decision.tokens.remaining == 500
        (use,) = await one.store.use([CALLER], 0.0)
        assert (use.requests, use.tokens, use.in_flight) == (2, 500, 1)
        await renewed(server)
        assert [run.changes for run in (one, other)] == [[(State.SHARED, "connected")]] * 2
        keys = [key.decode() for key in server.call("KEYS", "nexus:*")]
        assert len({key_slot(key.encode()) for key in keys if CALLER.key_id in key}) == 1
        assert len([key for key in keys if CALLER.key_id in key]) == 2


async def renewed(server: ValkeyServer) -> None:
    """Until the upkeep has renewed the lease of a hold."""

    def lease_end() -> float:
        return float(server.call("ZRANGE", f"nexus:{{{CALLER.key_id}}}:holds", 0, -1, "WITHSCORES")[0][1])

    before = lease_end()
    await until(lambda: lease_end() > before)


async def test_breakers_are_shared_in_a_cluster_too(server: ValkeyServer) -> None:
    fleets = []
    async with asyncio.TaskGroup() as tasks:
        sharings = []
        for _ in range(2):
            told: list[RedisHealth] = []
            fleet = Fleet(["a"], 1, 60.0, lambda: 0.0, partial(_changed, told))
            sharing = RedisHealth(server.url, fleet, longest_s=60.0)
            told.append(sharing)
            sharings.append(sharing)
            fleets.append(fleet)
            tasks.create_task(sharing.run())
            await sharing.started()
        one, other = fleets
        one["a"].isolate()
        sharings[0].isolation_changed("a")
        await until(lambda: other["a"].is_isolated)
        assert all(sharing.is_shared for sharing in sharings)
        for sharing in sharings:
            await sharing.aclose()


def _changed(told: list[RedisHealth], upstream: str, before: BreakerState, after: BreakerState) -> None:
    told[0].breaker_changed(upstream, before, after)


async def test_a_node_without_slots_is_away_until_it_has_them() -> None:
    with node() as server:
        async with running(server.url) as run:
            assert await run.next_change() == (State.LOST, "cluster_down")
            assert (await run.admit(CALLER)).basis is Basis.SHARE
            await asyncio.to_thread(serve, server, *ALL_SLOTS)
            assert await run.next_change(within_s=2) == (State.SHARED, "connected")
            assert (await run.admit(CALLER)).basis is Basis.WHOLE
