"""What only the store in memory promises: it forgets who is idle, and nobody else."""

import pytest

from nexus_gateway.core.model import Principal
from nexus_gateway.stores.base import Cost
from nexus_gateway.stores.memory import MemoryLimitStore

pytestmark = pytest.mark.anyio


async def test_without_limits_nothing_is_remembered() -> None:
    store, caller = MemoryLimitStore(), Principal("key-a", None)
    decision = await store.admit(caller, Cost(10**9), 1)
    assert decision.hold is not None
    store.settle(decision.hold, 10, 2)
    assert store.look(caller, 3) is None
    assert len(store) == 0


async def test_idle_principals_are_forgotten_as_others_arrive() -> None:
    store, at_s = MemoryLimitStore(), 0.0
    for i in range(20_000):
        at_s = i / 10
        await store.admit(Principal(f"key-{i}", 5), Cost(), at_s)
    assert len(store) <= 2 * 61 * 10
    busy = await store.admit(Principal("key-19999", 5), Cost(), at_s)
    assert busy.requests is not None
    assert busy.requests.remaining == 3


async def test_whoever_holds_or_owes_is_not_forgotten() -> None:
    store = MemoryLimitStore()
    holding, owing = Principal("holding", None, 100), Principal("owing", None, 100)
    held, spent = await store.admit(holding, Cost(60), 0), await store.admit(owing, Cost(60), 0)
    assert held.hold is not None
    assert spent.hold is not None
    store.settle(spent.hold, 10_000, 1)
    for i in range(2_000):
        await store.admit(Principal(f"key-{i}", 5), Cost(), 100 + i)
    assert (await store.admit(holding, Cost(41), 2200)).hold is None
    assert (await store.admit(owing, Cost(1), 2200)).hold is None
    store.settle(held.hold, 0, 2200)
    assert (await store.admit(holding, Cost(100), 2200)).hold is not None
