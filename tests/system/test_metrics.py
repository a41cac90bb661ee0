"""`GET /metrics` of a whole gateway: who is counted as what, in which format, and that callers add no series."""

import hashlib
import json
import time

import pytest

from tests.support.gateway import KEY, gateway
from tests.support.http_client import CHAT, Caller, chat
from tests.support.metrics import OPENMETRICS, scrape
from tests.support.tokens import CLAIMS, SECRET, token

pytestmark = pytest.mark.anyio

REFUSED = ("invalid_request", "request_timeout", "headers_too_large")
NAMED, OTHER = "the-key-of-a-team", "a-key-without-a-name"


def bearer(subject: str) -> dict[str, str]:
    good = token({**CLAIMS, "sub": subject, "exp": time.time() + 600})
    return {"x-api-key": "", "authorization": f"Bearer {good.decode()}"}


async def test_callers_are_counted_by_name_by_key_and_tokens_together() -> None:
    settings = {
        "API_KEYS": f"{NAMED},{OTHER}",
        "JWT_SECRET": SECRET,
        "API_KEY_POLICIES": json.dumps({NAMED: {"name": "search team"}, "jwt:robot": {"name": "robots"}}),
    }
    async with gateway(settings, upstreams="m=mock://local") as running:
        for headers in ({"x-api-key": NAMED}, {"x-api-key": OTHER}, {"x-api-key": "wrong"}):
            await chat(running.port, headers=headers)
        for subject in ("alice", "bob", "robot"):
            async with Caller(running.port) as caller:
                fields = {"host": "gateway", "content-type": "application/json", **bearer(subject)}
                del fields["x-api-key"]
                body = json.dumps(CHAT).encode()
                lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                head = f"POST /v1/chat/completions HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n"
                await caller.send(head.encode() + body)
                assert (await caller.receive()).status == 200
        await running.idle()
        told = await scrape(running.port)
    by_key = f"key-{hashlib.sha256(OTHER.encode()).hexdigest()[:8]}"
    counted = {"search team": 1, by_key: 1, "none": 1, "jwt": 2, "robots": 1}
    assert told.values("nexus_caller_requests_total", "caller") == set(counted)
    for caller_label, count in counted.items():
        assert told.total("nexus_caller_requests_total", caller=caller_label) == count
    assert told.total("nexus_caller_requests_total", caller="none", status="4xx") == 1
    assert told.total("nexus_caller_tokens_total", caller="jwt") > 0
    assert told.total("nexus_caller_tokens_total", caller="none") == 0


async def test_refusals_are_counted_by_caller_and_limit() -> None:
    policy = {KEY: {"name": "team", "rate_limit_per_minute": 2, "tokens_per_minute": 50}}
    async with gateway({"API_KEY_POLICIES": json.dumps(policy)}, upstreams="m=mock://local") as running:
        greedy = json.dumps({**CHAT, "max_tokens": 1000}).encode()
        assert (await chat(running.port, body=greedy)).status == 429
        modest = json.dumps({**CHAT, "max_tokens": 1}).encode()
        statuses = [(await chat(running.port, body=modest)).status for _ in range(3)]
        await running.idle()
        told = await scrape(running.port)
    assert statuses == [200, 200, 429]
    assert told.total("nexus_caller_refusals_total", caller="team", limit="tokens") == 1
    assert told.total("nexus_caller_refusals_total", caller="team", limit="requests") == 1
    assert told.total("nexus_limiter_decisions_total", decision="admitted") == 2
    assert told.total("nexus_limiter_decisions_total", decision="refused") == 2


async def test_what_was_masked_is_counted_by_type() -> None:
    text = "a@example.com and b@example.com, 010-1234-5678"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    async with gateway({"PII_MASKING_ENABLED": "on"}, upstreams="m=mock://local") as running:
        assert (await chat(running.port, body=body)).status == 200
        await running.idle()
        masked = running.records.last.masked
        told = await scrape(running.port)
    assert masked is not None
    assert masked["EMAIL"] == 2
    for type_, count in masked.items():
        assert told.total("nexus_masked_identifiers_total", type=type_) == count
    assert told.total("nexus_masked_requests_total") == 1


@pytest.mark.parametrize("parameters", [";version=1.0.0", "", ";version=x", ";q=0.5;version=9"])
async def test_openmetrics_is_for_those_who_ask_for_it(parameters: str) -> None:
    async with gateway(upstreams="m=mock://local") as running:
        await chat(running.port, stream=True)
        await running.idle()
        plain = await scrape(running.port)
        asked = await scrape(running.port, f"{OPENMETRICS}{parameters},text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert plain.content_type.startswith("text/plain")
    assert asked.content_type.startswith(f"{OPENMETRICS}; version=1.0.0")
    assert asked.text.endswith("# EOF\n")
    assert asked.text.count("# EOF") == 1
    assert {metric.name for metric in asked.metrics} == {metric.name for metric in plain.metrics}
    assert asked.total("nexus_requests_total") == plain.total("nexus_requests_total") == 1


async def test_callers_add_no_series_whatever_they_send() -> None:
    settings = {"JWT_SECRET": SECRET, "DEFAULT_UPSTREAM": "m"}

    async def hostile(number: int) -> None:
        name = f'evil"{number}\\n{{}}'
        for stream in (False, True):
            body = json.dumps({**CHAT, "model": name, "user": name, "stream": stream, "tools": []}).encode()
            fields = {"user-agent": name, "x-request-id": name, "x-forwarded-for": name, f"x-{number}": name}
            await chat(running.port, body=body, headers=fields)
            await chat(running.port, body=body, headers={**fields, "x-api-key": f"wrong-{number}"})
        await chat(running.port, body=f'{{"model":{number}}}'.encode())

    async with gateway(settings, upstreams="m=mock://local") as running:
        await hostile(0)
        await running.idle()
        before = await scrape(running.port)
        for number in range(1, 20):
            await hostile(number)
        await running.idle()
        after = await scrape(running.port)
    assert "evil" not in after.text
    assert after.series == before.series
    assert after.total("nexus_requests_total") == 20 * before.total("nexus_requests_total")


async def test_what_was_no_request_has_a_count_of_its_own() -> None:
    cut_off = {"HEAD_TIMEOUT_SECONDS": "0.2", "BODY_TIMEOUT_SECONDS": "0.2"}
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
    async with gateway(cut_off) as running:
        for sent in (b"no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nx: " + b"x" * 70_000):
            async with Caller(running.port) as caller:
                await caller.send(sent)
                assert (await caller.receive()).status in (400, 408, 431)
        assert not running.records.begun
        async with Caller(running.port) as caller:  # a request, whose body does not come
            await caller.send(head + b"content-type: application/json\r\ncontent-length: 9\r\n\r\n")
            assert (await caller.receive()).status == 401
        await running.idle()
        told = await scrape(running.port)
    assert {code: told.total("nexus_connections_refused_total", code=code) for code in REFUSED} == dict.fromkeys(
        REFUSED, 1
    )
    assert told.total("nexus_connections_refused_total") == len(REFUSED)
    assert told.total("nexus_requests_total") == 1
