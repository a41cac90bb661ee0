"""A store of shared limits that runs for a test, and what it told of its state."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nexus_gateway.core.model import Principal
from nexus_gateway.stores.base import Cost, Decision, Hold
from nexus_gateway.stores.redis import FailureMode, RedisLimitStore, State, Timing
from nexus_gateway.stores.redis_commands import Scripts

# Answers may take longer than in earnest: where the machine is busy, a server that is well must not seem away.
QUICK = Timing(answer_s=0.3, probe_s=0.05, renew_s=0.05, lease_s=12.0)
QUICK_LEASES = Timing(answer_s=1.0, probe_s=0.05, renew_s=0.1, lease_s=0.8, registration_s=0.5)


@dataclass
class Running:
    """`changes` is the history; `next_change` waits for one that was not waited for yet."""

    store: RedisLimitStore
    changes: list[tuple[State, str]] = field(default_factory=list)
    _seen: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, state: State, reason: str) -> None:
        self.changes.append((state, reason))
        self._changed.set()

    async def next_change(self, within_s: float = 5.0) -> tuple[State, str]:
        async with asyncio.timeout(within_s):
            while len(self.changes) <= self._seen:
                self._changed.clear()
                await self._changed.wait()
        self._seen += 1
        return self.changes[self._seen - 1]

    async def admit(self, caller: Principal, tokens: int = 0) -> Decision:
        return await self.store.admit(caller, Cost(tokens), time.monotonic())

    async def hold(self, caller: Principal, tokens: int = 0) -> Hold:
        decision = await self.admit(caller, tokens)
        assert decision.hold is not None, decision
        return decision.hold

    async def admitted(self, caller: Principal, asked: int, tokens: int = 0) -> int:
        """How many of so many that ask at once are let in."""
        decisions = await asyncio.gather(*(self.admit(caller, tokens) for _ in range(asked)))
        return sum(decision.hold is not None for decision in decisions)

    def settle(self, hold: Hold, used: int = 0) -> None:
        self.store.settle(hold, used, time.monotonic())


@asynccontextmanager
async def running(
    url: str,
    *,
    prefix: str = "nexus",
    mode: FailureMode = FailureMode.LOCAL,
    timing: Timing = QUICK,
    scripts: Scripts | None = None,
) -> AsyncIterator[Running]:
    """Leaves in an orderly way at the end."""
    told: list[Running] = []
    store = RedisLimitStore(
        url,
        prefix=prefix,
        mode=mode,
        timing=timing,
        scripts=scripts,
        on_change=lambda state, reason: told[0].note(state, reason),
    )
    run = Running(store)
    told.append(run)
    task = asyncio.ensure_future(store.run())
    try:
        yield run
    finally:
        await store.aclose()
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def shared(url: str, *, prefix: str = "nexus", timing: Timing = QUICK) -> AsyncIterator[Running]:
    """One that has reached its server."""
    async with running(url, prefix=prefix, timing=timing) as run:
        assert await run.next_change() == (State.SHARED, "connected")
        yield run


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait for what another process does and tells nobody."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.005)
