"""Two gateway processes, one Valkey: to a caller they are one, whoever leaves, and whoever is killed."""

import asyncio
import hashlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import pytest
import redis

from nexus_gateway.core.body import parse_call
from nexus_gateway.core.credentials import key_id_of
from nexus_gateway.core.model import Operation
from nexus_gateway.core.tokens import Estimator
from tests.stores.shared_limits import until
from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import Caller, chat
from tests.support.metrics import scrape
from tests.support.process import Process, served
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, chunk, plain
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

CLIENTS = 50
LEASE_S = 12.0
POLICIES: Mapping[str, Mapping[str, int]] = {  # by key; one for each kind of limit, and one that has them all
    "key-with-requests": {"rate_limit_per_minute": 150},
    "key-with-tokens": {"tokens_per_minute": 16_000},
    "key-with-slots": {"max_concurrency": 7},
    "key-with-all": {"rate_limit_per_minute": 130, "tokens_per_minute": 14_000, "max_concurrency": 9},
}
MAX_TOKENS = 500
LIMIT = 600
STRUCK = ("key-of-the-freeze", "key-of-the-kill")
SLACK_S = 0.25
"""For a machine that does other things too."""


def body_of(key: str, *, stream: bool = False) -> bytes:
    asked = {"model": "m", "messages": [{"role": "user", "content": "x" * 270}], "max_tokens": MAX_TOKENS, "user": key}
    return json.dumps({**asked, "stream": stream}).encode()


def _estimate() -> int:
    bodies = [body_of(key, stream=stream) for key in POLICIES for stream in (False, True)]
    (prompt,) = {Estimator().estimate(parse_call(Operation.CHAT, body)).prompt for body in bodies}
    return prompt


USED = _estimate()
"""Of each request: what the upstream tells is what is counted where the caller left before it was told."""
RESERVED = USED + MAX_TOKENS
USAGE = {"prompt_tokens": USED - 1, "completion_tokens": 1}


@dataclass
class Asked:
    """A request as the upstream saw it: certainly admitted before `began_s`, and not settled before `ended_s`."""

    key: str
    began_s: float
    ended_s: float | None = None  # None: it was cut, and when it was settled is not to be known here


@dataclass
class Meter:
    """An upstream that takes a few milliseconds, tells usage, and notes when it was asked and when it answered."""

    asked: list[Asked] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = json.loads((await peer.receive()).body)
            asked = Asked(request["user"], time.monotonic())
            self.asked.append(asked)
            try:
                async with asyncio.timeout(0.002 + self.dice.random() * 0.03):
                    await peer.closed.wait()
            except TimeoutError:
                asked.ended_s = time.monotonic()
                await peer.send(_stream() if request["stream"] else _plain())
            else:
                return

    def check_law(self, alone: int) -> None:
        """All within one minute: at every instant, what was certainly settled and what was certainly reserved.

        `alone`: how many decisions a gateway made by itself, because the server did not answer in time.
        """
        for key, limits in POLICIES.items():
            seen = [asked for asked in self.asked if asked.key == key]
            changes: list[tuple[float, int, int]] = []
            for asked in seen:
                if asked.ended_s is None:
                    changes.append((asked.began_s, 0, USED))
                else:
                    changes += [(asked.began_s, 1, RESERVED), (asked.ended_s, -1, USED - RESERVED)]
            tokens = slots = 0
            for _, opened, counted in sorted(changes):
                tokens += counted
                slots += opened
                assert tokens <= limits.get("tokens_per_minute", inf) + alone * RESERVED
                assert slots <= limits.get("max_concurrency", inf) + alone
            assert len(seen) <= limits.get("rate_limit_per_minute", inf) + alone


def _plain() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return plain(json.dumps({"id": "x", "choices": [choice], "usage": USAGE}).encode())


def _stream() -> bytes:
    event = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}], "usage": USAGE}
    return STREAM_HEAD + chunk(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(event).encode()) + LAST_CHUNK


_LOOK = """
local packed = redis.call('GET', KEYS[1])
if not packed then return {0, 0, 0, 0} end
local account = cmsgpack.unpack(packed)
return {account[2] and account[2][3] or 0, account[3] and account[3][3] or 0, account[4], redis.call('ZCARD', KEYS[2])}
"""


@dataclass(frozen=True)
class Standing:
    """One caller's account at the server."""

    requests: int
    settled: int
    reserved: int
    open_holds: int


def has_room(limits: Mapping[str, int], standing: Standing) -> bool:
    """For another request, if there is a slot for it."""
    requests_fit = standing.requests < limits.get("rate_limit_per_minute", inf)
    return requests_fit and standing.settled + standing.reserved + RESERVED <= limits.get("tokens_per_minute", inf)


class Ledger:
    """Looks at the accounts as often as it can."""

    def __init__(self, server: ValkeyServer) -> None:
        self._client = redis.Redis.from_url(server.url)
        names = {key: key_id_of(hashlib.sha256(key.encode()).digest()) for key in POLICIES}
        self._keys = {key: [f"nexus:{{{name}}}:{part}" for part in ("account", "holds")] for key, name in names.items()}
        self._seen: list[tuple[str, Standing]] = []

    def close(self) -> None:
        self._client.close()

    def look(self, key: str) -> Standing:
        found: Any = self._client.eval(_LOOK, 2, *self._keys[key])
        standing = Standing(*found)
        self._seen.append((key, standing))
        return standing

    def check_law(self, alone: int) -> None:
        """At every instant at which it looked."""
        assert len(self._seen) > 100
        for key, standing in self._seen:
            limits = POLICIES[key]
            spent = standing.settled + standing.reserved
            assert spent <= limits.get("tokens_per_minute", inf) + alone * RESERVED
            assert standing.requests <= limits.get("rate_limit_per_minute", inf) + alone
            assert standing.open_holds <= limits.get("max_concurrency", inf) + alone

    def most_slots(self) -> int:
        return max(standing.open_holds for key, standing in self._seen if key == "key-with-slots")

    def holds(self) -> dict[str, float]:
        """All open holds, by name, and when their lease ends: by the clock that server and test share."""
        held: list[Any] = [self._client.zrange(holds, 0, -1, withscores=True) for _, holds in self._keys.values()]
        return {name.decode(): score / 1000 for found in held for name, score in found}

    def holders(self) -> int:
        """How many processes hold something."""
        return len({name.partition("-")[0] for name in self.holds()})

    def is_free(self, key: str) -> bool:
        standing = self.look(key)
        return (standing.reserved, standing.open_holds) == (0, 0)

    def used(self, key: str) -> float:
        """The part of the tightest limit that was settled."""
        standing, limits = self.look(key), POLICIES[key]
        of_requests = standing.requests / limits.get("rate_limit_per_minute", inf)
        return max(of_requests, standing.settled / limits.get("tokens_per_minute", inf))

    def is_saturated(self) -> bool:
        """Every limit was used as far as it can be: less is left than a request needs."""
        standings = {key: self.look(key) for key in POLICIES}
        return self.most_slots() == POLICIES["key-with-slots"]["max_concurrency"] and not any(
            has_room(POLICIES[key], standing) for key, standing in standings.items() if key != "key-with-slots"
        )


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """One loop for the module, whose tests share what takes long to start."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@dataclass(frozen=True)
class World:
    """Two gateways on one server before one upstream. The last test that uses it may kill one of them."""

    gateways: list[Process]
    server: ValkeyServer
    meter: Meter


@pytest.fixture(scope="module")
async def world(server: ValkeyServer) -> AsyncIterator[World]:
    meter = Meter()
    policies = {**POLICIES, **{key: {"rate_limit_per_minute": LIMIT} for key in STRUCK}}
    async with RawServer(meter) as upstream, AsyncExitStack() as stack:
        settings = {
            "upstreams": f"m=http://127.0.0.1:{upstream.port}",
            "api_keys": ",".join(policies),
            "api_key_policies": json.dumps(policies),
            "rate_limit_per_minute": "unlimited",
            "redis_url": server.url,
            "pii_masking_enabled": "off",
            "log_level": "error",
        }
        starting = [stack.enter_async_context(served(**settings)) for _ in range(2)]
        yield World(await asyncio.gather(*starting), server, meter)


@pytest.fixture
def ledger(server: ValkeyServer) -> Iterator[Ledger]:
    ledger = Ledger(server)
    yield ledger
    ledger.close()


async def decisions_alone(process: Process) -> int:
    """Where the machine is busy, a server that is well may be late once: then a gateway goes by its share."""
    return int((await scrape(process.port)).total("nexus_limiter_degraded_total"))


async def be_a_client(number: int, gateways: list[Process], statuses: list[int], over: asyncio.Event) -> None:
    """Asks on and on, any gateway and with any key, and sometimes leaves before the answer."""
    dice = random.Random(number)
    while not over.is_set():
        key = dice.choice(list(POLICIES))
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # of a gateway that was killed
            async with Caller(dice.choice(gateways).port) as caller:
                await caller.ask(body=body_of(key, stream=dice.random() < 0.5), headers={"x-api-key": key})
                if dice.random() < 0.15:
                    await asyncio.sleep(dice.random() * 0.02)  # as long as it had patience for
                else:
                    statuses.append((await caller.receive()).status)


async def use_up(process: Process, key: str) -> None:
    """Take one after the other what is left, however little; nothing to take of slots."""
    body, headers = body_of(key), {"x-api-key": key}
    while (await chat(process.port, body=body, headers=headers)).status == 200 and key != "key-with-slots":
        pass


@dataclass
class Traffic:
    """What callers with one key were told, while it went on: by whom, on what basis, and how long each waited."""

    key: str
    admitted: int = 0
    waits_s: list[float] = field(default_factory=list)
    limits: dict[int, int] = field(default_factory=dict)  # that each gateway went by last
    refused_in_a_row: int = 0

    async def ask_on(self, process: Process, over: asyncio.Event) -> None:
        async with Caller(process.port) as caller:
            while not over.is_set():
                began_s = time.monotonic()
                await caller.ask(body=body_of(self.key), headers={"x-api-key": self.key})
                answer = await caller.receive()
                self.waits_s.append(time.monotonic() - began_s)
                assert answer.status in (200, 429)
                self.admitted += answer.status == 200
                self.refused_in_a_row = 0 if answer.status == 200 else self.refused_in_a_row + 1
                self.limits[process.port] = int(answer.headers["x-ratelimit-limit-requests"])

    def all_go_by(self, limit: int) -> bool:
        return list(self.limits.values()) == [limit, limit]


async def until_all_know_of_all(gateways: list[Process]) -> None:
    """Each hears with its next registration how many there are."""
    for each in gateways:
        while (await scrape(each.port)).total("nexus_redis_processes") < len(gateways):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # nobody else tells it


async def be_struck(
    gateways: list[Process], traffic: Traffic, strike: Callable[[], None], heal: Callable[[], None]
) -> None:
    over = asyncio.Event()
    asking = asyncio.gather(*(traffic.ask_on(gateways[i % 2], over) for i in range(10)))
    await until(lambda: traffic.all_go_by(LIMIT) and traffic.admitted > LIMIT / 5, 20)
    await asyncio.to_thread(strike)  # which waits for a process: callers who share our loop would seem to wait too
    await until(lambda: traffic.all_go_by(LIMIT // 2), 20)
    told = len(traffic.waits_s)
    await until(lambda: len(traffic.waits_s) > told + 50, 20)
    await asyncio.to_thread(heal)
    await until(lambda: traffic.all_go_by(LIMIT), within_s=2)
    await until(lambda: traffic.refused_in_a_row > 40, 20)
    over.set()
    await asking


@pytest.mark.timeout(60)
async def test_a_valkey_that_is_frozen_or_killed_under_load_costs_a_moment_once_and_one_share_at_most(
    world: World,
) -> None:
    """By what callers see: a gateway that goes by its share tells that for its limit."""
    frozen, killed = (Traffic(key) for key in STRUCK)
    await until_all_know_of_all(world.gateways)
    await be_struck(world.gateways, frozen, world.server.freeze, world.server.thaw)
    await be_struck(world.gateways, killed, world.server.kill, world.server.start)
    for traffic in (frozen, killed):
        assert 0.95 * LIMIT <= traffic.admitted <= LIMIT + LIMIT // 2
        assert max(traffic.waits_s) < 0.05 + SLACK_S


@pytest.mark.timeout(60)  # a lease is waited for in earnest
async def test_fifty_clients_of_two_gateways_get_the_limit_and_no_more_also_when_one_is_killed(
    world: World, ledger: Ledger
) -> None:
    one, other = gateways = list(world.gateways)
    alone = -sum([await decisions_alone(each) for each in gateways])
    statuses, over = list[int](), asyncio.Event()
    asking = asyncio.gather(*(be_a_client(number, gateways, statuses, over) for number in range(CLIENTS)))
    await until(lambda: ledger.look("key-with-tokens").settled > 5000 and ledger.holders() == 2, 20)
    alone += await decisions_alone(one)
    one.process.kill()
    killed_s = time.time()
    gateways.remove(one)
    await until(ledger.is_saturated, 20)
    told = len(statuses)
    await until(lambda: ledger.is_saturated() and len(statuses) > told + 200, 20)  # they ask on, in vain
    over.set()
    await asking
    alone += await decisions_alone(other)
    world.meter.check_law(alone)
    ledger.check_law(alone)
    assert set(statuses) == {200, 429}

    await until(lambda: ledger.holders() == 1, 20)  # the living settled what they held
    left_behind_s = max(ledger.holds().values())
    assert left_behind_s <= killed_s + LEASE_S
    await until(lambda: time.time() > left_behind_s, LEASE_S)
    for key in POLICIES:
        await use_up(other, key)
        await until(partial(ledger.is_free, key))
        assert key == "key-with-slots" or ledger.used(key) >= 0.95


# ---- one gateway, whose store is away or in trouble

FEW = 3


@asynccontextmanager
async def alone(url: str, mode: str = "local") -> AsyncIterator[Running]:
    policies = json.dumps({KEY: {"rate_limit_per_minute": FEW}})
    settings = {"REDIS_URL": url, "REDIS_FAILURE_MODE": mode, "API_KEY_POLICIES": policies, "LOG_LEVEL": "warning"}
    async with gateway(settings, "m=mock://local") as running:
        yield running


@pytest.mark.parametrize(
    ("mode", "statuses", "basis"),
    [
        ("local", [200] * FEW + [429] * 2, "share"),
        ("open", [200] * (FEW + 2), "unchecked"),
        ("closed", [503] * (FEW + 2), "none"),
    ],
)
async def test_without_its_store_a_gateway_starts_and_goes_by_the_configured_mode(
    mode: str, statuses: list[int], basis: str
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can have it
        async with alone(f"redis://127.0.0.1:{deaf.getsockname()[1]}", mode) as running:
            answers = [await chat(running.port) for _ in statuses]
            assert [answer.status for answer in answers] == statuses
            assert {record.limit_basis for record in running.records.finished_records} == {basis}
            if mode == "closed":
                assert answers[0].json()["error"]["code"] == "limits_unavailable"


@pytest.fixture
def own_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


TROUBLES: Mapping[str, tuple[list[str | int], list[str | int], str]] = {
    "out_of_memory": (["CONFIG", "SET", "maxmemory", 1], ["CONFIG", "SET", "maxmemory", 0], "share"),
    "read_only": (["REPLICAOF", "127.0.0.1", 1], ["REPLICAOF", "NO", "ONE"], "share"),
    "without scripts": (["SCRIPT", "FLUSH"], ["PING"], "whole"),
}
"""How it begins and ends, by the word that the log has for it where the server is away; what decisions rest on then."""


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_server_in_trouble_costs_a_moment_and_is_relied_on_again_when_it_is_well(
    own_server: ValkeyServer, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each change of state is one line of the log and one step of the gauge."""
    strike, heal, basis = TROUBLES[trouble]
    async with alone(own_server.url) as running:
        assert (await chat(running.port)).status == 200
        own_server.call(*strike)
        began_s = time.monotonic()
        assert (await chat(running.port)).status == 200
        assert time.monotonic() - began_s < 0.05 + SLACK_S
        assert running.records.last.limit_basis == basis
        assert (await scrape(running.port)).total("nexus_redis_up") == (basis == "whole")
        own_server.call(*heal)
        async with asyncio.timeout(2):
            while (await chat(running.port)).status == 200 or running.records.last.limit_basis != "whole":
                pass
        assert (await scrape(running.port)).total("nexus_redis_up") == 1
        assert sum(record.status == 200 for record in running.records.finished_records) == FEW
    lines = [vars(record) for record in caplog.records if record.msg == "redis_changed"]
    changes = [("shared", "connected"), ("lost", trouble), ("shared", "connected")]
    assert [(line["state"], line["reason"]) for line in lines] == (changes if basis == "share" else changes[:1])
