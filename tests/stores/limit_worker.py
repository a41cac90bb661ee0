"""A process that shares limits with others, as a gateway does: many clients, some of which leave before they are told.

Run as `python -m tests.stores.limit_worker URL PREFIX CLIENTS SECONDS`. On stdout, a line for each admission and each
settlement, written at once, so that they outlive a kill: `+ id principal reserved instant` when it was told,
`- id used instant` before it settles. Instants are on the machine's monotonic clock.
"""

import asyncio
import contextlib
import os
import random
import sys
import time

import uvloop

from nexus_gateway.stores.base import Cost
from nexus_gateway.stores.redis import RedisLimitStore, State

from .shared_limits import QUICK_LEASES
from .worker_limits import CALLERS


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def be_a_client(store: RedisLimitStore, name: str, until_s: float) -> None:
    dice = random.Random(name)
    number = 0
    while time.monotonic() < until_s:
        number += 1
        call, caller, reserved = f"{name}.{number}", dice.choice(CALLERS), dice.randint(10, 200)
        asking = asyncio.ensure_future(store.admit(caller, Cost(reserved), time.monotonic()))
        if dice.random() < 0.1:
            await asyncio.sleep(dice.choice((0, 0.0005)))
            asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            decision = await asking
            if decision.hold is None:
                await asyncio.sleep(0.002)
                continue
            tell("+", call, caller.key_id, reserved, time.monotonic())
            await asyncio.sleep(dice.random() * 0.02)
            used = dice.randint(0, reserved)
            tell("-", call, used, time.monotonic())
            store.settle(decision.hold, used, time.monotonic())


async def work(url: str, prefix: str, clients: int, seconds: float) -> None:
    states: list[State] = []
    store = RedisLimitStore(
        url, prefix=prefix, timing=QUICK_LEASES, on_change=lambda state, reason: states.append(state)
    )
    running = asyncio.ensure_future(store.run())
    await store.started()
    tell("ready", time.monotonic())
    until_s = time.monotonic() + seconds
    await asyncio.gather(*(be_a_client(store, f"{os.getpid()}.{i}", until_s) for i in range(clients)))
    left = store.open_holds
    await store.aclose()
    await running
    tell("end", left, *(state.name for state in states))


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
