"""Several upstreams behind one name: shares, stand-ins, breakers, cooldowns, over real loopback servers."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from tests.support.canaries import Caller, RawServer, chat, gateway
from tests.support.gateway import Running
from tests.support.http_client import Received
from tests.support.raw_server import STREAM_HEAD, Peer, Script, answering, chunk, plain

pytestmark = pytest.mark.anyio

FAST = {"REQUEST_TIMEOUT_SECONDS": "0.2", "CONNECT_TIMEOUT_SECONDS": "0.2", "STREAM_IDLE_TIMEOUT_SECONDS": "0.2"}
DEAD = "http://127.0.0.1:9"  # nobody listens on the port of the discard protocol
DONE = b"data: [DONE]\n\n"


def says(name: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": name}, "finish_reason": "stop"}
    return plain(json.dumps({"id": name, "choices": [choice]}).encode())


def streams(name: str) -> bytes:
    event = {"id": name, "choices": [{"index": 0, "delta": {"content": name}, "finish_reason": "stop"}]}
    return STREAM_HEAD + chunk(b"data: %b\n\n" % json.dumps(event).encode() + DONE) + b"0\r\n\r\n"


def who(answer: Received) -> str:
    return answer.headers.get("x-nexus-upstream", "nobody")


def answers_well(name: str) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.receive()
            await peer.send(streams(name) if json.loads(request.body).get("stream") else says(name))

    return script


async def hangs(peer: Peer) -> None:
    await peer.receive()
    await peer.closed.wait()


@asynccontextmanager
async def servers(**scripts: Script) -> AsyncIterator[tuple[dict[str, RawServer], str]]:
    """Running servers by name, and the setting that names them."""
    async with AsyncExitStack() as stack:
        running = {name: await stack.enter_async_context(RawServer(script)) for name, script in scripts.items()}
        yield running, ";".join(f"{name}=http://127.0.0.1:{server.port}" for name, server in running.items())


def policy(**fields: Any) -> dict[str, str]:
    return {"ROUTE_POLICIES": json.dumps({"m": fields})}


def weighted(**weights: float) -> dict[str, str]:
    targets = [{"name": name, "weight": weight} for name, weight in weights.items()]
    return policy(strategy="weighted", targets=targets)


async def ask(running: Running, times: int, **options: Any) -> Counter[str]:
    return Counter([who(await chat(running.port, **options)) for _ in range(times)])


async def test_shares_are_exact_and_weight_0_is_never() -> None:
    upstreams = "a=mock://local;b=mock://local;c=mock://local"
    async with gateway(weighted(a=90, b=10, c=0), upstreams) as running:
        asked = await ask(running, 200)
        assert set(asked) == {"a", "b"}
        assert abs(asked["b"] - 20) <= 2, "not as luck has it: independent dice would be off by 4"


@pytest.mark.parametrize(("percent", "canary"), [(0, 0), (5, 5), (100, 100)])
async def test_a_canary_gets_its_percentage(percent: float, canary: int) -> None:
    rule = policy(strategy="canary", primary="a", canary="b", percent=percent)
    async with gateway(rule, "a=mock://local;b=mock://local") as running:
        asked = (await ask(running, 100))["b"]
        assert abs(asked - canary) <= (0 if percent in (0, 100) else 2)


async def test_a_sticky_caller_stays_on_its_side() -> None:
    rule = policy(
        strategy="weighted", sticky="header:x-session", targets=[{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]
    )
    async with gateway(rule, "a=mock://local;b=mock://local") as running:
        sides = [await ask(running, 3, headers={"x-session": f"s{number}"}) for number in range(12)]
        assert all(len(side) == 1 for side in sides)
        assert {name for side in sides for name in side} == {"a", "b"}


FAULTS: dict[str, Script] = {
    "refuses": answering(plain(b"{}", status=500)),
    "hangs": hangs,
    "is rate limited": answering(plain(b"{}", b"retry-after: 9", status=429)),
    "wants another key": answering(plain(b"{}", status=401)),
    "speaks html": answering(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_before_the_first_byte_is_invisible(fault: str, stream: bool) -> None:
    async with (
        servers(bad=FAULTS[fault], good=answers_well("good")) as (up, upstreams),
        gateway({**FAST, "FALLBACKS": "bad=good"}, upstreams) as running,
    ):
        body = json.dumps({"model": "bad", "messages": [], "stream": stream}).encode()
        answer = await chat(running.port, body=body)
        assert (answer.status, who(answer), answer.headers["x-nexus-attempts"]) == (200, "good", "2")
        (request,) = up["good"].peers[0].requests
        assert json.loads(request.body)["model"] == "good", "a stand-in is sent its own name"
        assert [attempt.upstream for attempt in running.records.last.attempts] == ["bad", "good"]


async def test_a_refused_connection_moves_on_within_50_ms() -> None:
    async with (
        servers(good=answers_well("good")) as (_, upstreams),
        gateway({"FALLBACKS": "m=good"}, f"m={DEAD};{upstreams}") as running,
    ):
        began_s = time.monotonic()
        assert who(await chat(running.port)) == "good"
        assert time.monotonic() - began_s < 0.05


async def test_the_callers_own_error_is_not_tried_elsewhere() -> None:
    wrong = answering(plain(b'{"error":{"message":"too long"}}', status=400))
    async with (
        servers(m=wrong, good=answers_well("good")) as (up, upstreams),
        gateway({"FALLBACKS": "m=good"}, upstreams) as running,
    ):
        answer = await chat(running.port)
        assert (answer.status, answer.json()["error"]["message"]) == (400, "too long")
        assert not up["good"].peers


async def test_after_failures_in_a_row_nobody_is_asked_and_the_wait_is_told() -> None:
    settings = {"CIRCUIT_BREAKER_MAX_FAILURES": "3", "CIRCUIT_BREAKER_RESET_SECONDS": "20"}
    async with servers(m=FAULTS["refuses"]) as (up, upstreams), gateway(settings, upstreams) as running:
        while (answer := await chat(running.port)).status == 502:
            pass
        asked = sum(len(peer.requests) for peer in up["m"].peers)
        began_s = time.monotonic()
        answer = await chat(running.port)
        assert time.monotonic() - began_s < 0.05
        assert (answer.status, answer.json()["error"]["code"]) == (503, "circuit_open")
        assert 15 <= int(answer.headers["retry-after"]) <= 20
        assert asked == 3
        assert sum(len(peer.requests) for peer in up["m"].peers) == asked


async def test_at_the_end_of_the_open_period_exactly_one_of_many_gets_through() -> None:
    """500 callers at once: one probe reaches the upstream while it is out, whatever the others do."""
    probes = 0
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal probes
        await peer.receive()
        if not opened.is_set():
            await peer.send(plain(b"{}", status=500))
            return
        probes += 1
        await release.wait()
        await peer.send(says("m"))
        await peer.receive()

    opened = asyncio.Event()
    settings = {"CIRCUIT_BREAKER_MAX_FAILURES": "1", "CIRCUIT_BREAKER_RESET_SECONDS": "0.2"}
    async with servers(m=script) as (_, upstreams), gateway(settings, upstreams) as running:
        assert (await chat(running.port)).status == 502
        opened.set()
        async with asyncio.timeout(20):
            while not probes:
                callers = [asyncio.create_task(chat(running.port)) for _ in range(500)]
                done, waiting = await asyncio.wait(callers, timeout=1)
                while len(waiting) > 1:
                    done, waiting = await asyncio.wait(callers, timeout=1)
            assert probes == 1
            assert len(done) == 499
            release.set()
            statuses = Counter([answer.status for answer in await asyncio.gather(*callers)])
        assert statuses == {200: 1, 503: 499}


@pytest.mark.parametrize("ending", ["its client leaves", "it hangs"])
async def test_a_probe_that_brings_no_answer_keeps_nobody_out_for_long(ending: str) -> None:
    """The permit of one whose client left is free at once; one that hangs ends by its own deadline, with no help."""
    probing = asyncio.Event()
    held = 0

    async def script(peer: Peer) -> None:
        nonlocal held
        while True:
            await peer.receive()
            if not opened.is_set():
                await peer.send(plain(b"{}", status=500))
            elif held == 0:
                held += 1
                probing.set()
                await peer.closed.wait()
            else:
                await peer.send(says("m"))

    opened = asyncio.Event()
    timeout_s, reset_s = (20.0, 0.2) if ending == "its client leaves" else (0.3, 0.2)
    settings = {
        "CIRCUIT_BREAKER_MAX_FAILURES": "1",
        "CIRCUIT_BREAKER_RESET_SECONDS": f"{reset_s}",
        "REQUEST_TIMEOUT_SECONDS": f"{timeout_s}",
    }
    async with servers(m=script) as (up, upstreams), gateway(settings, upstreams) as running, asyncio.timeout(10):
        assert (await chat(running.port)).status == 502
        opened.set()
        while not probing.is_set():
            async with Caller(running.port) as prober:
                await prober.ask()
                if ending == "its client leaves":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await probing.wait()
                else:
                    await prober.receive()
        freed_s = time.monotonic()
        await (await up["m"].peer(len(up["m"].peers) - 1)).closed.wait()
        while (await chat(running.port)).status != 200:
            pass
        assert time.monotonic() - freed_s < reset_s + 0.25


async def test_a_rate_limited_upstream_is_left_alone_and_is_not_broken() -> None:
    async with (
        servers(m=FAULTS["is rate limited"], good=answers_well("good")) as (up, upstreams),
        gateway({"FALLBACKS": "m=good", "ADMIN_KEY": "operator-key"}, upstreams) as running,
    ):
        began_s = time.monotonic()
        assert await ask(running, 5) == {"good": 5}
        assert len(up["m"].peers[0].requests) == 1
        state = await admin(running, "GET", "/admin/upstreams")
        (m, _) = state["upstreams"]
        assert m["breaker"]["state"] == "closed"
        assert 9 - (time.monotonic() - began_s) <= m["cooling_s"] <= 9


async def test_repetitions_are_within_the_budget() -> None:
    """One that fails always sees at most 1.2 x its offered load and the floor of 10 per second."""
    async with (
        servers(m=FAULTS["refuses"]) as (up, upstreams),
        gateway({"CIRCUIT_BREAKER_MAX_FAILURES": "1000000"}, upstreams) as running,
    ):
        began_s = time.monotonic()
        offered = 200
        await asyncio.gather(*(chat(running.port) for _ in range(offered)))
        seen = sum(len(peer.requests) for peer in up["m"].peers)
        assert offered < seen <= 1.2 * offered + 10 * (time.monotonic() - began_s) + 10 + 1


async def test_a_flapping_upstream_is_never_seen_and_comes_back() -> None:
    healthy = asyncio.Event()
    healthy.set()

    async def flapping(peer: Peer) -> None:
        while True:
            await peer.receive()
            await peer.send(says("m") if healthy.is_set() else plain(b"{}", status=503))

    settings = {"FALLBACKS": "m=good", "CIRCUIT_BREAKER_MAX_FAILURES": "2", "CIRCUIT_BREAKER_RESET_SECONDS": "0.2"}
    async with (
        servers(m=flapping, good=answers_well("good")) as (_, upstreams),
        gateway(settings, upstreams) as running,
    ):
        for _ in range(3):
            assert await ask(running, 3) == {"m": 3}
            healthy.clear()
            assert await ask(running, 6) == {"good": 6}
            healthy.set()
            healed_s = time.monotonic()
            async with asyncio.timeout(5):
                while who(await chat(running.port)) != "m":
                    pass
            assert time.monotonic() - healed_s < 0.2 + 0.2, "back within the reset time after it healed"
            async with asyncio.timeout(5):  # the ramp: traffic comes back little by little
                while (await ask(running, 20)).get("m") != 20:
                    pass
        assert {record.status for record in running.records.finished_records} == {200}


@pytest.mark.timeout(60)  # a thousand of anything take long on a busy machine
async def test_with_a_thousand_waiting_an_upstream_that_heals_is_found_by_one_and_not_flooded_by_the_rest() -> None:
    """The others stay with who can take them; traffic comes back little by little, within the reset time."""
    healthy, probing, probed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            if not healthy.is_set():
                await peer.send(plain(b"{}", status=503))
                continue
            probing.set()
            await probed.wait()
            await peer.send(says("m"))

    reset_s = 2.0
    settings = {
        "FALLBACKS": "m=good",
        "CIRCUIT_BREAKER_MAX_FAILURES": "1",
        "CIRCUIT_BREAKER_RESET_SECONDS": f"{reset_s}",
        "REQUEST_TIMEOUT_SECONDS": "50",
        "CONNECT_TIMEOUT_SECONDS": "50",
    }
    async with (
        servers(m=script, good=answers_well("good")) as (up, upstreams),
        gateway(settings, upstreams) as running,
    ):
        assert who(await chat(running.port)) == "good"
        healthy.set()
        probed_for = asyncio.create_task(probing.wait())
        while not probed_for.done():  # one of those who come finds that the open period is over
            asking = asyncio.create_task(chat(running.port))
            await asyncio.wait([asking, probed_for], return_when=asyncio.FIRST_COMPLETED)
        waiting = await asyncio.gather(*(chat(running.port) for _ in range(1000)))
        assert Counter([who(answer) for answer in waiting]) == {"good": 1000}
        probed.set()
        probed_s = time.monotonic()
        assert who(await asking) == "m"
        at_first = await ask(running, 10)
        assert at_first["good"] >= 3, "a tenth at first, and more with the time"
        assert sum(len(peer.requests) for peer in up["m"].peers) == 2 + at_first["m"]
        while (await ask(running, 20))["m"] < 20:
            pass
        assert time.monotonic() - probed_s < reset_s
        assert {record.status for record in running.records.finished_records} == {200}


async def test_one_clients_bad_requests_never_open_a_breaker_nor_keep_others_out_of_one_that_heals() -> None:
    healthy = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.receive()
            if not healthy.is_set():
                await peer.send(plain(b"{}", status=500))
            elif b"bad" in request.body:
                await peer.send(plain(b'{"error":{"message":"no"}}', status=400))
            else:
                await peer.send(says("m"))

    bad = json.dumps({"model": "m", "messages": ["bad"]}).encode()
    settings = {"CIRCUIT_BREAKER_MAX_FAILURES": "2", "CIRCUIT_BREAKER_RESET_SECONDS": "0.2"}
    async with servers(m=script) as (_, upstreams), gateway(settings, upstreams) as running, asyncio.timeout(10):
        while (await chat(running.port)).status != 503:
            pass
        healthy.set()
        while (answer := await chat(running.port, body=bad)).status != 400:
            assert answer.status == 503
        both = await asyncio.gather(*(chat(running.port, body=body) for body in [bad, None] * 30))
        assert [answer.status for answer in both] == [400, 200] * 30


async def test_slow_plain_answers_do_not_open_the_breaker_of_a_server_that_answers_others() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.receive()
            if b"slow" in request.body:
                await peer.closed.wait()
            await peer.send(says("m"))

    slow = json.dumps({"model": "m", "messages": ["slow"]}).encode()
    settings = {**FAST, "CIRCUIT_BREAKER_MAX_FAILURES": "2", "DEADLINE_SECONDS": "0.2"}
    async with servers(m=script) as (_, upstreams), gateway(settings, upstreams) as running:
        for _ in range(3):
            waiting = [asyncio.create_task(chat(running.port, body=slow)) for _ in range(3)]
            while not all(task.done() for task in waiting):
                assert (await chat(running.port)).status == 200
            assert {task.result().status for task in waiting} == {504}


async def test_a_route_has_its_own_times_and_an_error_names_them() -> None:
    rule = policy(strategy="failover", targets=["slow"], timeout_seconds=0.1, max_attempts=1)
    async with servers(slow=hangs) as (_, upstreams), gateway(rule, upstreams) as running:
        answer = await chat(running.port)
        assert answer.status == 504
        assert "timeout_seconds of route 'm'" in answer.json()["error"]["message"]


async def test_an_operator_takes_an_upstream_out_and_back() -> None:
    upstreams = "m=mock://local;good=mock://local"
    async with gateway({"FALLBACKS": "m=good", "ADMIN_KEY": "operator-key"}, upstreams) as running:
        assert (await admin(running, "POST", "/admin/upstreams/m/isolate"))["isolated"] is True
        assert await ask(running, 3) == {"good": 3}
        assert (await admin(running, "POST", "/admin/upstreams/m/restore"))["isolated"] is False
        assert await ask(running, 3) == {"m": 3}
        assert (await admin(running, "POST", "/admin/upstreams/nobody/isolate"))["error"][
            "code"
        ] == "upstream_not_found"
        assert (await admin(running, "GET", "/admin/upstreams", key="wrong"))["error"]["code"] == "invalid_api_key"


async def test_without_an_admin_key_there_are_no_admin_routes() -> None:
    async with gateway() as running:
        assert (await admin(running, "GET", "/admin/upstreams"))["error"]["code"] == "unsupported_endpoint"


async def test_an_upstream_that_fails_its_checks_is_skipped_until_it_passes() -> None:
    well = asyncio.Event()
    checked = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.receive()
            if request.method == "GET":
                assert request.target == "/health"
                checked.set()
                await peer.send(plain(b"{}", status=200 if well.is_set() else 503))
            else:
                await peer.send(says("m"))

    settings = {"FALLBACKS": "m=good", "HEALTH_CHECK_SECONDS": "0.05"}
    async with (
        servers(m=script) as (_, upstreams),
        gateway(settings, f"{upstreams}?health=/health;good=mock://local") as running,
        asyncio.timeout(10),
    ):
        await checked.wait()
        while (await ask(running, 1))["m"]:
            pass
        assert await ask(running, 3) == {"good": 3}
        well.set()
        while not (await ask(running, 1))["m"]:
            pass


async def test_routing_headers_can_be_hidden() -> None:
    async with gateway({"ROUTING_HEADERS": "false"}, "m=mock://local") as running:
        answer = await chat(running.port)
        assert not [name for name in answer.headers if name.startswith("x-nexus")]


async def admin(running: Running, method: str, path: str, key: str = "operator-key") -> Any:
    import httpx2

    async with httpx2.AsyncClient(base_url=running.url) as http:
        return (await http.request(method, path, headers={"Authorization": f"Bearer {key}"})).json()


async def test_a_short_limit_of_the_first_upstream_is_not_that_of_its_stand_in() -> None:
    upstreams = "a=mock://local?delay_ms=5000&timeout_seconds=0.05;b=mock://local?delay_ms=300"
    async with gateway({"FALLBACKS": "a=b", "REQUEST_TIMEOUT_SECONDS": "20"}, upstreams) as running:
        assert who(await chat(running.port, body=asking("a"))) == "b"


async def test_what_a_request_had_left_says_nothing_about_the_upstream() -> None:
    upstreams = "a=mock://local?delay_ms=5000&timeout_seconds=0.15;b=mock://local?delay_ms=150"
    settings = {"FALLBACKS": "a=b", "DEADLINE_SECONDS": "0.2", "CIRCUIT_BREAKER_MAX_FAILURES": "1"}
    async with gateway(settings, upstreams) as running:
        assert (await chat(running.port, body=asking("a"))).status == 504
        assert who(await chat(running.port, body=asking("b"))) == "b"


async def test_a_stream_that_we_end_does_not_open_the_breaker() -> None:
    upstreams = "m=mock://local?chunk_delay_ms=20&tokens=1000"
    settings = {"STREAM_MAX_SECONDS": "0.1", "CIRCUIT_BREAKER_MAX_FAILURES": "1"}
    async with gateway(settings, upstreams) as running:
        for _ in range(2):
            assert (await chat(running.port, stream=True)).events()[-1]["error"]["code"] == "stream_too_long"


async def test_answers_that_stall_after_their_head_open_the_breaker() -> None:
    async def stalls(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await peer.closed.wait()

    settings = {"REQUEST_TIMEOUT_SECONDS": "0.05", "CIRCUIT_BREAKER_MAX_FAILURES": "2"}
    async with servers(m=stalls) as (_, upstreams), gateway(settings, upstreams) as running:
        assert [(await chat(running.port)).status for _ in range(3)] == [504, 504, 503]


async def test_a_timeout_is_not_repeated_on_the_same_upstream() -> None:
    async with servers(m=hangs) as (up, upstreams), gateway(FAST, upstreams) as running:
        assert (await chat(running.port)).status == 504
        assert sum(len(peer.requests) for peer in up["m"].peers) == 1


async def test_a_target_without_weight_has_no_say_in_what_a_caller_is_told() -> None:
    async with (
        servers(a=FAULTS["is rate limited"]) as (_, upstreams),
        gateway(weighted(old=0, a=1), f"old=mock://local;{upstreams}") as running,
    ):
        assert [(await chat(running.port)).status for _ in range(2)] == [429, 429]


def asking(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
