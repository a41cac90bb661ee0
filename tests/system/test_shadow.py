"""Mirrored requests: exactly the share, after the caller, and nothing of it where the caller could see it."""

import asyncio
import json
import time

import pytest

from nexus_gateway.pipeline.shadow import CONCURRENCY, MAX_WAITING
from tests.support.canaries import RawServer, chat, gateway
from tests.support.gateway import Running
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, answering, chunk, plain

pytestmark = pytest.mark.anyio

CALLERS = 1000
OK = plain(b'{"choices":[{"index":0,"message":{"content":"other"},"finish_reason":"stop"}]}')


async def answers_otherwise(peer: Peer) -> None:
    while True:
        request = await peer.receive()
        if json.loads(request.body).get("stream"):
            event = b'data: {"choices":[{"index":0,"delta":{"content":"other"},"finish_reason":"stop"}]}\n\n'
            await peer.send(STREAM_HEAD + chunk(event + b"data: [DONE]\n\n") + LAST_CHUNK)
        else:
            await peer.send(OK)


SENT, COMPARED = '{outcome="sent"}', '{outcome="compared"}'


def shadowing(percent: float = 100, **more: str) -> dict[str, str]:
    return {"SHADOW_ENABLED": "true", "SHADOW_TARGET": "candidate", "SHADOW_PERCENT": str(percent), **more}


async def sample(running: Running, name: str) -> dict[str, float]:
    """The values of a metric by its labels."""
    import httpx2

    async with httpx2.AsyncClient(base_url=running.url) as http:
        text = (await http.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name)]
    return {labels.removeprefix(name): float(value) for labels, value in lines}


async def until_sampled(running: Running, name: str, total: float) -> dict[str, float]:
    async with asyncio.timeout(5):
        while sum((values := await sample(running, name)).values()) < total:
            pass
    return values


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_candidate_gets_exactly_its_share_under_its_own_name_and_key(stream: bool) -> None:
    async with RawServer(answers_otherwise) as candidate:
        upstreams = f"m=mock://local;candidate=http://127.0.0.1:{candidate.port}?forward_headers=x-tenant"
        async with gateway(shadowing(percent=20), upstreams) as running:
            for _ in range(50):
                assert (await chat(running.port, stream=stream)).headers["x-nexus-upstream"] == "m"
            async with asyncio.timeout(5):
                while (counted := await sample(running, "nexus_shadow_requests_total"))[COMPARED] < counted[SENT]:
                    pass
            requests = [request for peer in candidate.peers for request in peer.requests]
            assert len(requests) == counted[SENT]
            assert abs(len(requests) - 10) <= 2
            assert {json.loads(request.body)["model"] for request in requests} == {"candidate"}
            assert not any("x-api-key" in request.headers for request in requests)
            assert len(running.records.finished_records) == 50, "a mirrored request is nobody's request"
            differs = await sample(running, "nexus_shadow_compared_total")
            assert differs['{differs="text"}'] == len(requests)


async def test_the_same_answer_differs_in_nothing() -> None:
    async with gateway(shadowing(), "m=mock://local?model=x;candidate=mock://local?model=x") as running:
        await chat(running.port)
        await chat(running.port, stream=True)
        compared = await until_sampled(running, "nexus_shadow_compared_total", 2)
        assert compared == {'{differs="nothing"}': 2}


@pytest.mark.parametrize("candidate", ["http://127.0.0.1:9", "mock://local?delay_ms=30000", "mock://local?status=500"])
async def test_a_candidate_that_is_dead_or_slow_is_not_felt(candidate: str) -> None:
    async with gateway(shadowing(), f"m=mock://local;candidate={candidate}") as running:
        began_s = time.monotonic()
        for _ in range(50):
            assert (await chat(running.port)).status == 200
        assert time.monotonic() - began_s < 2


async def test_kept_bodies_are_bounded_and_drops_are_counted() -> None:
    settings = shadowing(SHADOW_MAX_BYTES="200")
    async with gateway(settings, "m=mock://local;candidate=mock://local?delay_ms=30000") as running:
        for _ in range(10):
            assert (await chat(running.port)).status == 200
        counted = await sample(running, "nexus_shadow_requests_total")
        assert counted['{outcome="dropped: bytes"}'] >= 7
        assert sum(counted.values()) == 10


async def test_a_caller_who_did_not_get_its_answer_is_not_mirrored() -> None:
    async def breaks(peer: Peer) -> None:
        await peer.receive()

    async with RawServer(breaks) as broken, RawServer(answering(OK)) as candidate:
        upstreams = f"m=http://127.0.0.1:{broken.port};candidate=http://127.0.0.1:{candidate.port}"
        async with gateway(shadowing(), upstreams) as running:
            assert (await chat(running.port)).status == 502
            assert not candidate.peers


async def test_mirrors_take_nothing_from_callers_of_the_candidate() -> None:
    """Their failures do not open its breaker, their 429s do not cool it, and they do not fill its room."""

    async def refuses_mirrors(peer: Peer) -> None:
        while True:
            request = await peer.receive()
            await peer.send(OK if b"direct" in request.body else plain(b"{}", status=429))

    async with RawServer(refuses_mirrors) as candidate:
        upstreams = f"m=mock://local;candidate=http://127.0.0.1:{candidate.port}?max_concurrency=1"
        async with gateway(shadowing(CIRCUIT_BREAKER_MAX_FAILURES="1"), upstreams) as running:
            for _ in range(5):
                await chat(running.port)
            await (await candidate.peer(0)).received.wait()
            body = json.dumps({"model": "candidate", "messages": [{"role": "user", "content": "direct"}]}).encode()
            assert (await chat(running.port, body=body)).status == 200


@pytest.mark.timeout(60)  # a thousand of anything take long on a busy machine
async def test_beside_a_thousand_waiting_callers_mirrors_are_bounded_and_nobody_waits_for_them() -> None:
    everybody = asyncio.Event()
    waiting = 0

    async def answers_when_all_are_there(peer: Peer) -> None:
        nonlocal waiting
        while True:
            await peer.receive()
            waiting += 1
            if waiting >= CALLERS:
                everybody.set()
            await everybody.wait()
            await peer.send(OK)

    async def hangs(peer: Peer) -> None:
        await peer.receive()
        await peer.closed.wait()

    async with RawServer(answers_when_all_are_there) as primary, RawServer(hangs) as candidate:
        upstreams = f"m=http://127.0.0.1:{primary.port};candidate=http://127.0.0.1:{candidate.port}"
        async with gateway(shadowing(REQUEST_TIMEOUT_SECONDS="50", CONNECT_TIMEOUT_SECONDS="50"), upstreams) as running:
            answers = await asyncio.gather(*(chat(running.port) for _ in range(CALLERS)))
            assert {answer.status for answer in answers} == {200}
            counted = await sample(running, "nexus_shadow_requests_total")
            assert counted == {SENT: CONCURRENCY, '{outcome="dropped: queue"}': CALLERS - CONCURRENCY - MAX_WAITING}
            assert len(candidate.peers) <= CONCURRENCY


@pytest.mark.parametrize("candidate", ["http://127.0.0.1:9", "mock://local?delay_ms=30000"], ids=["dead", "slow"])
async def test_the_slowest_callers_are_no_slower_beside_a_candidate_in_trouble(candidate: str) -> None:
    """Against the same requests without a shadow, in turns; by the best of a few rounds, for a busy machine."""

    async def took_s(running: Running) -> float:
        began_s = time.monotonic()
        assert (await chat(running.port)).status == 200
        return time.monotonic() - began_s

    async with (
        gateway({}, "m=mock://local") as usual,
        gateway(shadowing(), f"m=mock://local;candidate={candidate}") as shadowed,
    ):
        differences_s = []
        for _ in range(5):
            pairs = [(await took_s(usual), await took_s(shadowed)) for _ in range(100)]
            slowest_s, slowest_beside_s = (sorted(times_s)[98] for times_s in zip(*pairs, strict=True))
            differences_s.append(slowest_beside_s - slowest_s)
        assert min(differences_s) < 0.005
