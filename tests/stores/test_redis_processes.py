"""Two processes and one server: together they never admit more than the limit, whoever is cancelled or killed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import cast

import pytest
import redis

from nexus_gateway.core.model import Principal

from .shared_limits import QUICK_LEASES, shared, until
from .worker_limits import CALLERS

pytestmark = pytest.mark.anyio

CLIENTS = 25  # of each process
SECONDS = 2.0


@dataclass
class Made:
    """A call that was admitted. It certainly counts as reserved from `told_s` to `settled_s`, and as `used` after."""

    caller: str
    reserved: int
    told_s: float
    settled_s: float = inf
    used: int = 0


class Worker:
    """Writes to a file: a pipe that nobody reads would stop it, and its leases would end."""

    def __init__(self, url: str, prefix: str, output: Path) -> None:
        self._output = output
        command = [sys.executable, "-m", "tests.stores.limit_worker", url, prefix, str(CLIENTS), str(SECONDS)]
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(command, stdout=stdout)

    def said(self) -> list[str]:
        return self._output.read_text().splitlines()

    def finish(self) -> list[str]:
        assert self._process.wait(timeout=20) == 0
        return self.said()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def read_calls(*outputs: list[str]) -> list[Made]:
    calls: dict[str, Made] = {}
    for line in (line for output in outputs for line in output):
        match line.split():
            case ["+", call, caller, reserved, told_s]:
                calls[call] = Made(caller, int(reserved), float(told_s))
            case ["-", call, used, settled_s]:
                calls[call].used, calls[call].settled_s = int(used), float(settled_s)
    return list(calls.values())


def check_law(calls: list[Made], principal: Principal) -> None:
    """All within one minute: at every instant, what was settled and what is reserved together are within the limit."""
    made = [call for call in calls if call.caller == principal.key_id]
    changes = sorted(
        [(call.told_s, 1, call.reserved) for call in made]
        + [(call.settled_s, -1, call.used - call.reserved) for call in made if call.settled_s < inf]
    )
    tokens = slots = 0
    for _, opened, reserved in changes:
        tokens += reserved
        slots += opened
        if principal.tokens_per_minute is not None:
            assert tokens <= principal.tokens_per_minute
        if principal.max_concurrency is not None:
            assert slots <= principal.max_concurrency
    if principal.requests_per_minute is not None:
        assert len(made) <= principal.requests_per_minute


def server_s(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


def lease_ends_s(client: redis.Redis, key: str) -> list[float]:
    scored = cast(list[tuple[bytes, float]], client.zrange(key, 0, -1, withscores=True))
    return [end_ms / 1000 for _, end_ms in scored]


@pytest.fixture
def workers(redis_url: str, prefix: str, tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    both = Worker(redis_url, prefix, tmp_path / "one"), Worker(redis_url, prefix, tmp_path / "other")
    try:
        yield both
    finally:
        for worker in both:
            worker.kill()


async def test_fifty_clients_of_two_processes_get_the_limit_and_no_more(
    workers: tuple[Worker, Worker], redis_url: str, prefix: str
) -> None:
    outputs = [worker.finish() for worker in workers]
    assert [output[-1] for output in outputs] == ["end 0 SHARED"] * 2
    calls = read_calls(*outputs)
    for principal in CALLERS:
        check_law(calls, principal)
    async with shared(redis_url, prefix=prefix, timing=QUICK_LEASES) as run:
        for principal in CALLERS:
            spent = sum(call.used for call in calls if call.caller == principal.key_id)
            decision = await run.admit(principal, 1)
            kept = decision.hold is not None
            if principal.tokens_per_minute is not None:
                assert decision.tokens is not None
                assert decision.tokens.remaining == principal.tokens_per_minute - spent - kept
            if principal.max_concurrency is not None:
                assert decision.concurrency is not None
                assert decision.concurrency.remaining == principal.max_concurrency - kept
            if principal.key_id == "requests":
                assert decision.requests is not None
                assert decision.requests.remaining <= 0.05 * decision.requests.limit
            if principal.key_id == "tokens":
                assert decision.tokens is not None
                assert decision.tokens.remaining <= 0.05 * decision.tokens.limit


async def test_what_a_killed_process_held_is_free_when_its_lease_ends(
    workers: tuple[Worker, Worker], redis_url: str, prefix: str, client: redis.Redis
) -> None:
    killed, survivor = workers
    await until(lambda: len(killed.said()) > 400, within_s=20)
    killed.kill()
    killed_s, killed_at_s = time.monotonic(), server_s(client)
    outputs = [killed.said(), survivor.finish()]
    assert outputs[1][-1] == "end 0 SHARED"
    calls = read_calls(*outputs)
    cut = [call for call in calls if call.settled_s == inf]
    assert cut
    for call in cut:
        call.used, call.settled_s = call.reserved, killed_s  # nobody knows how much of it was used
    for principal in CALLERS:
        check_law(calls, principal)
    async with shared(redis_url, prefix=prefix, timing=QUICK_LEASES) as run:
        keys = [f"{prefix}:{{{principal.key_id}}}:holds" for principal in CALLERS]
        last_s = max([0.0, *(end_s for key in keys for end_s in lease_ends_s(client, key))])
        assert last_s <= killed_at_s + QUICK_LEASES.lease_s
        await until(lambda: server_s(client) > last_s)
        await until(lambda: run.store.processes == 1)
        for principal in CALLERS:
            decision = await run.admit(principal, 1)
            kept = decision.hold is not None
            if principal.max_concurrency is not None:
                assert decision.concurrency is not None
                assert decision.concurrency.remaining == principal.max_concurrency - kept
            if principal.tokens_per_minute is not None:
                made = [call for call in calls if call.caller == principal.key_id]
                spent = sum(call.used for call in made)
                assert decision.tokens is not None
                assert decision.tokens.remaining <= principal.tokens_per_minute - spent - kept
