"""Limits in memory: what a principal may do, what is consumed, what is forgotten."""

import pytest

from nexus_gateway.core.model import Principal
from nexus_gateway.stores.memory import MemoryLimitStore

pytestmark = pytest.mark.anyio


async def test_the_limit_is_admitted_and_no_more() -> None:
    store, caller = MemoryLimitStore(), Principal("key-a", 3)
    verdicts = [await store.admit(caller, 10.25) for _ in range(4)]
    assert [verdict and verdict.allowed for verdict in verdicts] == [True, True, True, False]
    assert [verdict and verdict.remaining for verdict in verdicts] == [2, 1, 0, 0]
    refused = verdicts[-1]
    assert refused is not None
    assert (refused.limit, refused.reset_s, refused.retry_after_s) == (3, 60.75, 60.75)
    again = await store.admit(caller, 10.25 + refused.retry_after_s)
    assert again is not None
    assert again.allowed


async def test_a_look_consumes_nothing_and_knows_who_is_exhausted() -> None:
    store, caller = MemoryLimitStore(), Principal("key-a", 1)
    assert store.look(caller, 10) is None
    await store.admit(caller, 10)
    for _ in range(5):
        seen = store.look(caller, 11)
        assert seen is not None
        assert (seen.allowed, seen.remaining, seen.retry_after_s) == (False, 0, 60)
    rested = store.look(caller, 71)
    assert rested is not None
    assert rested.allowed


async def test_no_limit_is_no_verdict_and_no_memory() -> None:
    store, caller = MemoryLimitStore(), Principal("key-a", None)
    assert await store.admit(caller, 1) is None
    assert store.look(caller, 1) is None
    assert len(store) == 0


async def test_principals_do_not_share() -> None:
    store = MemoryLimitStore()
    for key_id in ("a", "b"):
        verdict = await store.admit(Principal(key_id, 1), 1)
        assert verdict is not None
        assert verdict.allowed


async def test_a_changed_limit_counts_at_once() -> None:
    store = MemoryLimitStore()
    await store.admit(Principal("a", 1), 1)
    raised = await store.admit(Principal("a", 2), 2)
    assert raised is not None
    assert (raised.allowed, raised.limit, raised.remaining) == (True, 2, 0)


async def test_idle_principals_are_forgotten_as_others_arrive() -> None:
    store, at_s = MemoryLimitStore(), 0.0
    for i in range(20_000):
        at_s = i / 10
        await store.admit(Principal(f"key-{i}", 5), at_s)
    assert len(store) <= 2 * 61 * 10
    busy = await store.admit(Principal("key-19999", 5), at_s)
    assert busy is not None
    assert busy.remaining == 3
