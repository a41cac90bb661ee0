"""A real Prometheus scrapes a gateway that has seen everything: each question of the dashboard has an answer.

The load comes twice, the same each time: rates need two looks.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.dashboard import ROOT, Asked, asked
from tests.support.gateway import Running, gateway
from tests.support.http_client import CHAT, Caller, Received
from tests.support.metrics import scrape
from tests.support.prometheus import Prometheus, prometheus
from tests.support.raw_server import RawServer, answering, deaf_port, plain
from tests.support.tokens import CLAIMS, SECRET, token
from tests.support.valkey import ValkeyServer

pytestmark = [pytest.mark.anyio, pytest.mark.packages, pytest.mark.timeout(60)]

TEAM, SMALL, PLAIN = "the-key-of-a-team", "a-key-with-limits", "a-key-without-a-name"
VARIABLES = {"instance": ".*", "__rate_interval": "1m", "__range": "5m"}
SETTINGS = {
    "API_KEYS": f"{TEAM},{SMALL},{PLAIN}",
    "API_KEY_POLICIES": json.dumps(
        {
            TEAM: {"name": "search", "rate_limit_per_minute": 10_000},
            SMALL: {"name": "trial", "rate_limit_per_minute": 2, "tokens_per_minute": 60},
        }
    ),
    "JWT_SECRET": SECRET,
    "FALLBACKS": "down=good",
    "CIRCUIT_BREAKER_MAX_FAILURES": "2",
    "CIRCUIT_BREAKER_RESET_SECONDS": "60",
    "PII_MASKING_ENABLED": "on",
    "SHADOW_ENABLED": "on",
    "SHADOW_PERCENT": "100",
    "SHADOW_TARGET": "candidate",
}
OPENED = {"down", "alone", "cut"}  # upstreams whose breakers the load opens
MODELS = ("good", "cut", "down", "alone", "busy", "unknown")


async def ask(
    port: int, model: str, key: str = TEAM, *, stream: bool = False, path: str = "chat/completions", **more: Any
) -> Received:
    text = "Write to a@example.com, or call 010-1234-5678."
    body = json.dumps(
        {
            "model": model, "messages": [{"role": "user", "content": text}], "prompt": text, "input": text,
            "max_tokens": 9, "stream": stream, **more,
        }
    )  # fmt: skip
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
    async with Caller(port) as caller:
        await caller.send(f"{head}authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        return await caller.receive()


async def leave_a_stream(port: int) -> None:
    async with Caller(port) as caller:
        body = json.dumps({**CHAT, "model": "slow", "stream": True}).encode()
        await caller.ask(body=body, headers={"x-api-key": TEAM})
        await caller.read_until(b"data: ")


async def load(running: Running) -> None:
    """Something of everything."""
    port = running.port
    for model in MODELS:
        for stream in (False, True):
            for _ in range(2):
                await ask(port, model, stream=stream)
    await ask(port, "good", path="embeddings")
    await ask(port, "good", path="completions")
    await ask(port, "good", PLAIN)
    await ask(port, "good", "no key at all")
    await ask(port, "good", token({**CLAIMS, "exp": time.time() + 600}).decode())
    for _ in range(3):
        await ask(port, "good", SMALL)
    await ask(port, "good", SMALL, max_tokens=1000)
    await ask(port, "good", n="many")
    async with Caller(port) as caller:
        await caller.send(b"this is no HTTP\r\n\r\n")
        await caller.receive()
    await leave_a_stream(port)
    await running.idle()


@dataclass(frozen=True)
class Observed:
    running: Running
    prometheus: Prometheus
    requests: int


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def observed() -> AsyncIterator[Observed]:
    """A gateway after two rounds of load, all of it scraped, and its Redis gone for a moment in between."""
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer())
        nobody = stack.enter_context(deaf_port())
        busy = await stack.enter_async_context(RawServer(answering(plain(b"{}", b"retry-after: 1", status=429))))
        upstreams = (
            "good=mock://local;candidate=mock://local?tokens=3;slow=mock://local?chunk_delay_ms=20&tokens=50"
            f";cut=mock://local?fail_after=2;down=http://127.0.0.1:{nobody}?timeout_seconds=0.1"
            f";alone=http://127.0.0.1:{nobody}?timeout_seconds=0.1;busy=http://127.0.0.1:{busy.port}"
        )
        settings = {**SETTINGS, "REDIS_URL": valkey.url}
        running = await stack.enter_async_context(gateway(settings, upstreams))
        server = await stack.enter_async_context(prometheus(running.port))
        await load(running)
        valkey.freeze()
        await ask(running.port, "good")
        await running.idle()
        valkey.thaw()
        await server.until("nexus_requests_total", bool)
        await server.until(
            "nexus_redis_up == 1 and on (instance) count_over_time(nexus_limiter_degraded_total[5m]) >= 2", bool
        )
        await load(running)
        told = await scrape(running.port)
        requests = int(told.total("nexus_requests_total"))
        await server.until("sum(nexus_requests_total)", lambda values: requests in values.values())
        await server.until("sum(nexus_shadow_compared_total) > 0", bool)
        alarm = 'count(ALERTS{alertname="NexusUpstreamOpen"})'
        await server.until(alarm, lambda values: list(values.values()) == [len(OPENED)])
        yield Observed(running, server, requests)


@pytest.mark.parametrize("each", asked(VARIABLES), ids=lambda each: f"{each.section}: {each.panel}: {each.legend}")
async def test_every_expression_of_the_dashboard_returns_data(observed: Observed, each: Asked) -> None:
    assert await observed.prometheus.query(each.expression), each.expression


async def test_prometheus_has_what_the_gateway_has_counted(observed: Observed) -> None:
    assert list((await observed.prometheus.query("sum(nexus_requests_total)")).values()) == [observed.requests]
    answered = observed.running.records.finished_records
    assert observed.requests == len(answered)
    by_code = await observed.prometheus.query("sum by (code) (nexus_requests_total)")
    assert {json.loads(labels)["code"] for labels in by_code} >= {
        "none", "client_gone", "upstream_truncated", "upstream_timeout", "circuit_open", "rate_limit_exceeded",
        "invalid_api_key", "model_not_found", "invalid_request",
    }  # fmt: skip


async def test_the_alerts_are_evaluated_and_see_the_upstreams_that_are_open(observed: Observed) -> None:
    rules = await observed.prometheus.rules()
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    alarmed = {alert["labels"]["upstream"] for alert in rules["NexusUpstreamOpen"]["alerts"]}
    assert alarmed == OPENED
    await observed.prometheus.until("nexus:failed:ratio_rate5m > 0", bool)


async def test_prometheus_takes_all_of_it(observed: Observed) -> None:
    (target,) = (await observed.prometheus.get("targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


async def test_its_linter_finds_nothing_to_say(observed: Observed) -> None:
    exposition = (await scrape(observed.running.port)).text
    assert await promtool("check", "metrics", given=exposition) == (0, "")


async def test_the_configuration_is_valid_and_the_alerts_do_what_their_tests_say() -> None:
    status, told = await promtool("check", "config", str(ROOT / "deploy/prometheus/prometheus.yml"))
    assert (status, "FAILED" in told, "10 rules found" in told) == (0, False, True), told
    status, told = await promtool("test", "rules", str(ROOT / "tests/deploy/alerts.test.yml"))
    assert status == 0, told


async def promtool(*arguments: str, given: str = "") -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *("promtool", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate(given.encode())
    return process.returncode, told.decode()
