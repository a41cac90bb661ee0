"""Redis missing, killed, frozen, slow, failing over, forgetful: requests go on, and limits resume."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from nexus_gateway.core.model import Principal
from nexus_gateway.stores.base import Basis, Decision, Use
from nexus_gateway.stores.redis import FailureMode, State, Timing
from tests.support.valkey import ValkeyServer

from .shared_limits import QUICK, Running, running, shared, until

pytestmark = pytest.mark.anyio

CALLER = Principal("caller", 100)
SLOW_TO_RETURN = replace(QUICK, probe_s=0.3)  # so that some are back long before others
SLACK_S = 0.25  # for a machine that does other things too


def at_once(decision: Coroutine[Any, Any, Decision]) -> Decision:
    """The result of what must not wait for anything."""
    try:
        decision.send(None)
    except StopIteration as done:
        result: Decision = done.value
        return result
    decision.close()
    pytest.fail("It waited.")


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.mark.parametrize(
    ("mode", "admitted", "basis"),
    [
        (FailureMode.LOCAL, 100, Basis.SHARE),
        (FailureMode.OPEN, 150, Basis.UNCHECKED),
        (FailureMode.CLOSED, 0, Basis.NONE),
    ],
)
async def test_missing_at_start_the_mode_holds_and_nobody_waits(
    server: ValkeyServer, mode: FailureMode, admitted: int, basis: Basis
) -> None:
    server.kill()
    async with running(server.url, mode=mode) as run:
        assert await run.next_change() == (State.LOST, "disconnected")
        assert sum(at_once(run.admit(CALLER)).hold is not None for _ in range(150)) == admitted
        decision = at_once(run.admit(CALLER))
        assert decision.basis is basis
        assert run.store.unchecked == (151 if mode is FailureMode.OPEN else 0)
        seen = run.store.look(CALLER, time.monotonic())
        assert (seen is not None) == (mode is not FailureMode.OPEN)
        alone = Use(100, basis=Basis.SHARE) if mode is FailureMode.LOCAL else Use(basis=Basis.NONE)
        assert await run.store.use([CALLER], time.monotonic()) == [alone]
        assert (await run.admit(Principal("unlimited", None))).hold is not None

        server.start()
        assert await run.next_change(within_s=2) == (State.SHARED, "connected")
        assert (await run.admit(CALLER)).basis is Basis.WHOLE


async def test_frozen_it_costs_the_time_of_one_answer_once(server: ValkeyServer) -> None:
    async with shared(server.url) as run:
        server.freeze()
        started_s = time.monotonic()
        assert await run.admitted(CALLER, 20) == 20
        assert 0.9 * QUICK.answer_s < time.monotonic() - started_s < QUICK.answer_s + SLACK_S
        assert all(at_once(run.admit(CALLER)).hold for _ in range(20))
        assert await run.next_change() == (State.LOST, "timeout")

        server.thaw()
        assert await run.next_change(within_s=2) == (State.SHARED, "connected")
        assert await run.admitted(CALLER, 100) <= 60
        assert len(run.changes) == 3


async def test_callers_that_come_while_it_is_frozen_lose_no_more(server: ValkeyServer) -> None:
    async with shared(server.url) as run:
        server.freeze()
        waits_s: list[float] = []

        async def ask(after_s: float) -> None:
            await asyncio.sleep(after_s)  # an arrival like any other
            started_s = time.monotonic()
            await run.admit(CALLER)
            waits_s.append(time.monotonic() - started_s)

        await asyncio.gather(*(ask(0.05 * i) for i in range(12)))
        assert max(waits_s) < QUICK.answer_s + SLACK_S
        server.thaw()


async def test_killed_and_started_again_it_has_forgotten_nothing_that_counts(server: ValkeyServer) -> None:
    async with shared(server.url) as run:
        assert await run.admitted(CALLER, 60) == 60
        server.kill()
        assert await run.admitted(CALLER, 20) == 20  # 40 were left, and no other process is known
        assert (await run.next_change())[0] is State.LOST
        server.start()
        assert (await run.next_change(within_s=2))[0] is State.SHARED
        assert await run.admitted(CALLER, 100) == 20


async def test_alone_it_takes_its_part_of_what_was_left(server: ValkeyServer) -> None:
    async with shared(server.url) as one, shared(server.url) as other:
        await until(lambda: one.store.processes == other.store.processes == 2)
        assert await one.admitted(CALLER, 30) == 30
        assert await other.admitted(CALLER, 30) == 30
        server.freeze()
        assert await one.admitted(CALLER, 100) == 35  # when it last heard, 70 were left
        assert await other.admitted(CALLER, 100) == 20
        unseen = Principal("unseen", 11, 101, 3)
        assert await one.admitted(unseen, 100, 5) == 1  # a part of three slots for two processes
        server.thaw()
        for run in (one, other):
            assert (await run.next_change())[0] is State.LOST
            assert (await run.next_change(within_s=2))[0] is State.SHARED
        assert await one.admitted(CALLER, 100) + await other.admitted(CALLER, 100) == 0


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_under_load_a_switch_lets_in_one_local_share_more_at_most(
    server: ValkeyServer, fault: str, processes: int
) -> None:
    """However many there are, and whoever of them comes back last."""
    limit = 3000
    caller = Principal("caller", limit)
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(shared(server.url, timing=SLOW_TO_RETURN)) for _ in range(processes)]
        await until(lambda: {run.store.processes for run in runs} == {processes})
        stop = asyncio.Event()
        admitted: list[Basis] = []

        async def ask(run: Running) -> None:
            while not stop.is_set():
                decision = await run.admit(caller)
                if decision.hold is not None:
                    admitted.append(decision.basis)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as clients:
            for i in range(48):
                clients.create_task(ask(runs[i % processes]))
            await until(lambda: len(admitted) > 600)
            server.kill() if fault == "kill" else server.freeze()
            for run in runs:
                assert (await run.next_change())[0] is State.LOST
            await until(lambda: admitted.count(Basis.SHARE) > 100)
            server.start() if fault == "kill" else server.thaw()
            for run in runs:
                assert (await run.next_change(within_s=2))[0] is State.SHARED
            before = len(admitted)
            await until(lambda: len(admitted) >= 0.95 * limit)
            while len(admitted) > before:
                before = len(admitted)
                await asyncio.sleep(0.05)  # until nobody is let in any more
            stop.set()
        assert 0.95 * limit <= len(admitted) <= limit + limit // processes
        assert {len(run.changes) for run in runs} == {3}


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_the_shares_of_those_who_come_back_late_are_left_for_them(server: ValkeyServer, fault: str) -> None:
    early, late = replace(QUICK, caution_s=2.0), replace(QUICK, probe_s=1.5)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(shared(server.url, timing=early))
        others = [await stack.enter_async_context(shared(server.url, timing=late)) for _ in range(3)]
        await until(lambda: {run.store.processes for run in (first, *others)} == {4})
        for asked in (10, 1):  # then all have heard of late what is left
            for run in (first, *others):
                assert await run.admitted(CALLER, asked) == asked
        left = 56
        server.kill() if fault == "kill" else server.freeze()
        for run in (first, *others):  # they notice, and take nothing of their shares yet
            assert (await run.admit(Principal("somebody else", 100))).basis is Basis.SHARE
        server.start() if fault == "kill" else server.thaw()
        await until(lambda: first.store.state is State.SHARED)
        admitted = await first.admitted(CALLER, 100)
        assert all(run.store.state is State.LOST for run in others)
        refused = await first.admit(CALLER)
        assert refused.basis is Basis.SHARE
        assert refused.refusal is not None
        assert 0 < refused.refusal[1].retry_after_s <= early.caution_s
        admitted += sum([await run.admitted(CALLER, 100) for run in others])
        assert admitted == left
        await until(lambda: all(run.store.state is State.SHARED for run in others))
        async with asyncio.timeout(5):
            while (decision := await first.admit(CALLER)).basis is Basis.SHARE:  # noqa: ASYNC110  # no event tells it
                await asyncio.sleep(0.01)
        assert decision.hold is None, "what the others took is known by now"


async def test_caution_holds_for_tokens_and_slots_too_and_outlasts_a_server_that_goes_again(
    server: ValkeyServer,
) -> None:
    tokens, slots = Principal("tokens", None, 1000), Principal("slots", None, None, 8)
    careful = replace(QUICK, caution_s=20.0)  # so that all of this happens within it
    late = replace(careful, probe_s=20.0)
    async with shared(server.url, timing=careful) as first, shared(server.url, timing=late) as other:
        await until(lambda: first.store.processes == other.store.processes == 2)
        for run in (first, other):
            await run.hold(tokens, 100)
            await run.hold(slots)
        for run in (first, other):  # both have heard of late that some 800 tokens are left
            await run.hold(tokens, 1)
        server.freeze()
        for run in (first, other):
            assert (await run.admit(Principal("somebody else", 100))).basis is Basis.SHARE
        server.thaw()
        await until(lambda: first.store.state is State.SHARED)
        assert await first.admitted(tokens, 10, 100) == 3
        held = [await first.hold(slots) for _ in range(3)]
        refused = await first.admit(slots)
        assert (refused.basis, refused.hold) == (Basis.SHARE, None)
        assert other.store.state is State.LOST
        assert await other.admitted(tokens, 10, 100) == 3
        assert await other.admitted(slots, 10) == 3

        server.freeze()
        assert (await first.admit(Principal("somebody else", 100))).basis is Basis.SHARE
        assert first.store.state is State.LOST
        assert await first.admitted(tokens, 10, 100) == 0, "it is the same share still"
        assert await first.admitted(slots, 10) == 0
        first.settle(held[0])
        assert await first.admitted(slots, 10) == 1
        server.thaw()


async def test_a_limit_smaller_than_the_number_of_processes_leaves_each_one(server: ValkeyServer) -> None:
    async with shared(server.url) as one, shared(server.url) as other:
        await until(lambda: one.store.processes == other.store.processes == 2)
        server.freeze()
        for run in (one, other):
            assert await run.admitted(Principal("rare", 1), 5) == 1
        server.thaw()


async def test_what_was_held_when_it_went_is_settled_when_it_is_back(server: ValkeyServer) -> None:
    caller = Principal("caller", None, 1000, 10)
    async with shared(server.url) as run:
        before = [await run.hold(caller, 100) for _ in range(3)]
        server.freeze()
        within = [await run.hold(caller, 100) for _ in range(2)]
        run.settle(before[0], 40)
        run.settle(within[0], 30)
        server.thaw()
        assert (await run.next_change())[0] is State.LOST
        assert (await run.next_change(within_s=2))[0] is State.SHARED
        decision = await run.admit(caller, 1)
        assert decision.tokens is not None
        assert decision.concurrency is not None
        assert (decision.tokens.remaining, decision.concurrency.remaining) == (1000 - 40 - 30 - 300 - 1, 10 - 3 - 1)
        for hold in (*before, *within):
            run.settle(hold, 10)
        decision = await run.admit(caller, 1)
        assert decision.tokens is not None
        assert decision.tokens.remaining == 1000 - 40 - 30 - 30 - 2
        assert run.store.open_holds == 2


async def test_open_holds_survive_a_server_that_forgot_them(server: ValkeyServer) -> None:
    caller = Principal("caller", None, 1000, 3)
    async with shared(server.url) as run:
        holds = [await run.hold(caller, 300) for _ in range(3)]
        server.kill()
        server.start()
        await until(lambda: len(run.changes) == 3)
        refused = await run.admit(caller, 100)
        assert refused.hold is None
        assert refused.concurrency is not None
        assert not refused.concurrency.allowed
        for hold in holds:
            run.settle(hold, 200)
        decision = await run.admit(caller, 100)
        assert decision.tokens is not None
        assert decision.tokens.remaining == 1000 - 600 - 100


async def test_debt_made_while_it_was_away_is_not_forgiven(server: ValkeyServer) -> None:
    caller = Principal("caller", None, 100)
    async with shared(server.url) as run:
        server.freeze()
        run.settle(await run.hold(caller, 50), 10_000)
        server.thaw()
        assert (await run.next_change())[0] is State.LOST
        assert (await run.next_change(within_s=2))[0] is State.SHARED
        refused = (await run.admit(caller, 1)).refusal
        assert refused is not None
        assert refused[1].retry_after_s > 60 * 90


async def test_without_its_scripts_it_is_given_them_again(server: ValkeyServer) -> None:
    async with shared(server.url) as run:
        hold = await run.hold(Principal("holder", None, 100), 60)
        for _ in range(3):
            server.call("SCRIPT", "FLUSH")
            run.settle(hold, 10)
            assert await run.admitted(CALLER, 10) == 10
        assert run.changes == [(State.SHARED, "connected")]
        assert (await run.admit(CALLER)).basis is Basis.WHOLE


async def test_a_replica_that_may_not_write_is_no_store_until_it_may(server: ValkeyServer) -> None:
    async with shared(server.url) as run:
        server.call("REPLICAOF", "127.0.0.1", 1)
        assert await run.admitted(CALLER, 100) == 100
        assert await run.next_change() == (State.LOST, "read_only")
        server.call("REPLICAOF", "NO", "ONE")
        assert (await run.next_change(within_s=2))[0] is State.SHARED


async def test_out_of_memory_it_forgets_nothing_and_resumes(server: ValkeyServer) -> None:
    async with shared(server.url) as run:
        assert await run.admitted(CALLER, 60) == 60
        server.call("CONFIG", "SET", "maxmemory", 1)
        assert (await run.admit(CALLER)).basis is Basis.SHARE
        assert await run.next_change() == (State.LOST, "out_of_memory")
        server.call("CONFIG", "SET", "maxmemory", 0)
        assert (await run.next_change(within_s=2))[0] is State.SHARED
        assert await run.admitted(CALLER, 100) == 39


@pytest.mark.parametrize("junk", [("SET", "junk"), ("SET", "\x95\x01\x02\x03\x04\x05"), ("RPUSH", "a"), ("SADD", "b")])
@pytest.mark.parametrize("part", ["account", "holds"])
async def test_junk_under_our_keys_is_swept_away(server: ValkeyServer, part: str, junk: tuple[str, str]) -> None:
    caller = Principal("caller", 10, 100, 5)
    async with shared(server.url) as run:
        hold = await run.hold(caller, 10)
        key = f"nexus:{{caller}}:{part}"
        server.call("DEL", key)
        server.call(junk[0], key, junk[1])
        server.call("SET", "nexus:{processes}", "junk")
        run.settle(hold, 10)
        assert await run.admitted(caller, 20, 1) in (4, 5)
        assert run.changes == [(State.SHARED, "connected")]


async def test_members_that_are_not_ours_are_reaped_like_any_lease(server: ValkeyServer) -> None:
    caller = Principal("caller", None, 100, 5)
    async with shared(server.url) as run:
        server.call("ZADD", "nexus:{caller}:holds", 5, "junk", 6, "junk:junk", 7, "x:-5")
        decision = await run.admit(caller, 100)
        assert decision.concurrency is not None
        assert decision.concurrency.remaining == 4


async def test_a_stall_of_our_own_loop_is_not_blamed_on_redis(server: ValkeyServer) -> None:
    async with shared(server.url, timing=Timing(answer_s=0.1)) as run:
        for _ in range(3):
            waiting = asyncio.ensure_future(run.admit(CALLER))
            await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251  # the stall
            assert (await waiting).basis is Basis.WHOLE
        assert run.changes == [(State.SHARED, "connected")]


class Answer(asyncio.Protocol):
    """Says the same line to whatever it is told, after a while."""

    def __init__(self, line: bytes, after_s: float) -> None:
        self._line = line
        self._after_s = after_s

        self._ended = asyncio.Event()

    async def aclose(self) -> None:
        self._transport.abort()
        await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._after_s, self._say)

    def _say(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._line * 8)


@asynccontextmanager
async def answering(line: bytes, after_s: float = 0.0) -> AsyncIterator[str]:
    connections: list[Answer] = []

    def connect() -> Answer:
        connections.append(Answer(line, after_s))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            await connection.aclose()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        (b"-NOPERM this user has no permissions\r\n", "not_allowed"),
        (b"-NOAUTH Authentication required.\r\n", "not_allowed"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "redirected"),
        (b"-ASK 3999 127.0.0.1:6381\r\n", "redirected"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "cluster_down"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "no_primary"),
        (b"-ERR unknown command\r\n", "error"),
        (b"HTTP/1.1 400 Bad Request\r\n", "error"),
        (b"+OK\r\n", "error"),
        (b"*2\r\n+OK\r\n+OK\r\n", "error"),
        (b"", "timeout"),
    ],
)
async def test_what_is_no_redis_that_can_serve_is_away(line: bytes, reason: str) -> None:
    async with answering(line) as url, running(url) as run:
        assert await run.next_change() == (State.LOST, reason)
        assert (await run.admit(CALLER)).basis is Basis.SHARE


async def test_a_server_that_is_always_slow_is_away_and_stays_away() -> None:
    """It must not be joined again and again, for each time would cost somebody the wait."""
    async with answering(b"+OK\r\n", after_s=0.4) as url, running(url) as run:
        assert await run.next_change() == (State.LOST, "timeout")
        for _ in range(30):
            at_once(run.admit(CALLER))
            await asyncio.sleep(0.01)  # probes come and go
        assert run.changes == [(State.LOST, "timeout")]


async def test_calls_of_one_turn_share_a_pipeline(server: ValkeyServer) -> None:
    def reads() -> int:
        found: int = server.call("INFO", "stats")["total_reads_processed"]
        return found

    callers = [Principal(f"caller-{i}", 100, 1000, 10) for i in range(64)]
    async with shared(server.url, timing=Timing(answer_s=0.3)) as run:
        before, then = reads(), reads()
        await asyncio.gather(*(run.admit(caller) for caller in callers))
        of_our_question = then - before
        assert reads() - then - of_our_question <= 2  # the pipeline, in a piece or two


async def test_a_process_that_leaves_is_no_longer_counted(server: ValkeyServer) -> None:
    patient = replace(QUICK, answer_s=2.0)  # or a busy machine would take the farewell for lost
    async with shared(server.url) as one:
        async with shared(server.url, timing=patient) as other:
            await until(lambda: one.store.processes == 2)
            holds = [await other.hold(Principal("caller", None, 100), 20) for _ in range(5)]
            for hold in holds:
                other.settle(hold, 1)  # in the same turn as it leaves
        await until(lambda: one.store.processes == 1)
        decision = await one.admit(Principal("caller", None, 100), 1)
        assert decision.tokens is not None
        assert decision.tokens.remaining == 94


@pytest.fixture
async def abandoned(server: ValkeyServer) -> AsyncIterator[Principal]:
    """A caller whose holds were taken by a process that is no more: it did not take leave."""
    caller = Principal("caller", None, 100, 3)
    timing = Timing(answer_s=0.3, renew_s=60, lease_s=0.25, registration_s=0.25)
    async with running(server.url, timing=timing) as run:
        await run.next_change()
        for _ in range(3):
            await run.hold(caller, 30)
        yield caller


async def test_leases_of_a_process_that_is_gone_end(server: ValkeyServer, abandoned: Principal) -> None:
    async with shared(server.url) as run:
        assert (await run.admit(abandoned, 1)).hold is None
        async with asyncio.timeout(2):
            slots_left = 0
            while slots_left < 2:
                decision = await run.admit(abandoned, 1)
                assert decision.concurrency is not None
                slots_left = decision.concurrency.remaining
                if decision.hold is not None:
                    run.settle(decision.hold)
        assert decision.tokens is not None
        assert decision.tokens.remaining == 100 - 90 - 1  # what it had reserved may have been used


async def test_holds_that_are_renewed_outlive_their_lease(server: ValkeyServer) -> None:
    caller = Principal("caller", None, 100, 1)
    timing = Timing(answer_s=0.3, renew_s=0.02, lease_s=0.4)
    async with shared(server.url, timing=timing) as run:
        hold = await run.hold(caller, 60)
        ends = until_ms = int(server.call("ZRANGE", "nexus:{caller}:holds", 0, -1, "WITHSCORES")[0][1])
        while ends < until_ms + 800:
            await asyncio.sleep(0.02)
            ends = int(server.call("ZRANGE", "nexus:{caller}:holds", 0, -1, "WITHSCORES")[0][1])
        assert (await run.admit(caller, 1)).hold is None
        run.settle(hold, 5)
        decision = await run.admit(caller, 1)
        assert decision.tokens is not None
        assert decision.tokens.remaining == 94


def test_by_default_full_limits_are_back_within_two_seconds() -> None:
    assert Timing().probe_s + Timing().caution_s + Timing().answer_s < 2
    assert Timing().caution_s > Timing().probe_s + Timing().answer_s, "the others have looked again by then"


async def test_by_default_it_costs_fifty_milliseconds_and_is_back_within_two_seconds(server: ValkeyServer) -> None:
    assert Timing().answer_s == 0.05
    async with running(server.url, timing=Timing()) as run:
        await until(lambda: run.store.state is State.SHARED)
        server.freeze()
        assert (await run.admit(CALLER)).basis is Basis.SHARE
        assert run.store.state is State.LOST
        server.thaw()
        await until(lambda: run.store.state is State.SHARED, within_s=2)


def test_slots_of_a_killed_process_are_free_within_fifteen_seconds() -> None:
    assert Timing().lease_s <= 15
    assert Timing().renew_s * 3 <= Timing().lease_s
