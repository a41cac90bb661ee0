"""Two gateways, one Redis: what one learns of an upstream the other knows; without Redis each is on its own."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.support.gateway import Running, gateway
from tests.support.http_client import Received, chat
from tests.support.raw_server import Peer, RawServer, plain
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

SETTINGS = {"FALLBACKS": "m=good", "ADMIN_KEY": "operator-key", "CIRCUIT_BREAKER_MAX_FAILURES": "1"}
WITHIN_S = 1.0
OWN, SHARED = "this process", "all processes through Redis"


class Sick:
    """An upstream that fails until it is told to hold its answers; then until it is released."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_ill = True
        self.holding = asyncio.Event()  # a request is there whose answer is held
        self.released = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.receive()
            self.asked += 1
            if self.is_ill:
                await peer.send(plain(b"{}", status=500))
            else:
                self.holding.set()
                await self.released.wait()
                choice = {"index": 0, "message": {"role": "assistant", "content": "m"}, "finish_reason": "stop"}
                await peer.send(plain(json.dumps({"id": "m", "choices": [choice]}).encode()))


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@asynccontextmanager
async def two_gateways(server: ValkeyServer, sick: Sick, reset_s: float = 60) -> AsyncIterator[tuple[Running, Running]]:
    settings = {**SETTINGS, "REDIS_URL": server.url, "CIRCUIT_BREAKER_RESET_SECONDS": f"{reset_s}"}
    async with RawServer(sick) as upstream:
        upstreams = f"m=http://127.0.0.1:{upstream.port};good=mock://local"
        async with gateway(settings, upstreams) as one, gateway(settings, upstreams) as other:
            for each in (one, other):
                await until_scope(each, SHARED)  # before anything is promised: however long it takes
            yield one, other


def who(answer: Received) -> str:
    return answer.headers.get("x-nexus-upstream", "nobody")


async def admin(running: Running, method: str, path: str) -> Any:
    async with httpx2.AsyncClient(base_url=running.url) as http:
        return (await http.request(method, path, headers={"Authorization": "Bearer operator-key"})).json()


async def scope(running: Running) -> str:
    told: str = (await admin(running, "GET", "/admin/upstreams"))["scope"]
    return told


async def until_told(running: Running, within_s: float = WITHIN_S, **expected: object) -> None:
    """Until an operator is told that of upstream `m`. `breaker`: its state."""
    async with asyncio.timeout(within_s):
        while True:
            (m, _) = (await admin(running, "GET", "/admin/upstreams"))["upstreams"]
            told = {**m, "breaker": m["breaker"]["state"]}
            if all(told[name] == value for name, value in expected.items()):
                return


async def until_scope(running: Running, expected: str, within_s: float | None = None) -> None:
    async with asyncio.timeout(within_s):
        while await scope(running) != expected:
            pass


async def test_what_one_finds_down_the_other_skips_within_a_second(server: ValkeyServer) -> None:
    sick = Sick()
    async with two_gateways(server, sick) as (one, other):
        assert who(await chat(one.port)) == "good"
        await until_told(other, breaker="open", available=False)
        for _ in range(5):
            assert who(await chat(other.port)) == "good"
        assert sick.asked == 1


async def test_a_gateway_that_starts_knows_what_the_others_know(server: ValkeyServer) -> None:
    sick = Sick()
    async with two_gateways(server, sick) as (one, _):
        await chat(one.port)
        await admin(one, "POST", "/admin/upstreams/good/isolate")
        async with gateway({**SETTINGS, "REDIS_URL": server.url}, "m=mock://local;good=mock://local") as late:
            await until_told(late, breaker="open")
            assert (await chat(late.port)).status == 503, "the one is down, the other isolated"


async def test_one_probe_reaches_it_from_both_and_its_success_is_heard_by_both(server: ValkeyServer) -> None:
    sick = Sick()
    async with two_gateways(server, sick, reset_s=0.5) as (one, other):
        await chat(one.port)
        sick.is_ill = False
        for each in (one, other):
            await until_told(each, within_s=0.5 + WITHIN_S, breaker="half-open")
        callers = [asyncio.ensure_future(chat(each.port)) for each in (one, other) * 20]
        async with asyncio.timeout(5):
            await sick.holding.wait()
            while sum(caller.done() for caller in callers) < len(callers) - 1:
                await asyncio.wait([caller for caller in callers if not caller.done()], return_when="FIRST_COMPLETED")
        assert sick.asked == 2, "the request that found it down, and the probe"
        sick.released.set()
        answers = Counter([who(answer) for answer in await asyncio.gather(*callers)])
        assert answers == {"m": 1, "good": len(callers) - 1}
        for each in (one, other):
            await until_told(each, breaker="closed", available=True)


async def test_an_operator_is_heard_by_both(server: ValkeyServer) -> None:
    sick = Sick()
    async with two_gateways(server, sick) as (one, other):
        await admin(one, "POST", "/admin/upstreams/m/isolate")
        await until_told(other, isolated=True, available=False)
        assert who(await chat(other.port)) == "good"
        await admin(other, "POST", "/admin/upstreams/m/restore")
        await until_told(one, isolated=False, available=True)
        assert sick.asked == 0


async def test_without_redis_each_is_on_its_own_and_says_so(server: ValkeyServer) -> None:
    sick = Sick()
    async with two_gateways(server, sick) as (one, other):
        server.kill()
        for each in (one, other):
            await until_scope(each, OWN, within_s=WITHIN_S)
        await admin(one, "POST", "/admin/upstreams/m/isolate")
        assert [who(await chat(each.port)) for each in (one, other)] == ["good", "good"]
        assert sick.asked == 1, "the other had to find out for itself"
        server.start()
        for each in (one, other):
            await until_scope(each, SHARED, within_s=2 * WITHIN_S)
        await until_told(other, isolated=True)
        await until_told(one, breaker="open")
