"""What operators may ask for, and what nobody else may."""

import asyncio
import hashlib
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import chat
from tests.support.tokens import SECRET, token
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

ADMIN_KEY = "operator-key"
SETTINGS = {"ADMIN_KEY": ADMIN_KEY}
ASKING = b'{"model":"mock","messages":[{"role":"user","content":"hi"}]}'
ROUTES = ("traffic", "upstreams", "keys", "errors")


async def ask(running: Running, path: str, key: str | None = ADMIN_KEY) -> httpx2.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=running.url) as http:
        return await http.get(f"/admin/{path}", headers=headers)


async def told(running: Running, path: str) -> Any:
    answer = await ask(running, path)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("key", [None, "wrong", KEY])
async def test_only_the_admin_key_opens_the_routes(route: str, key: str | None) -> None:
    async with gateway(SETTINGS) as running:
        refused = await ask(running, route, key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("path", ["", *(f"/{route}" for route in ROUTES)])
async def test_without_an_admin_key_there_is_neither_page_nor_route(path: str) -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        answer = await http.get(f"/admin{path}", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")


async def test_the_page_is_static_and_allows_nothing_but_itself() -> None:
    async with gateway(SETTINGS) as running, httpx2.AsyncClient(base_url=running.url) as http:
        page = await http.get("/admin")
        await chat(running.port)
        assert (await http.get("/admin")).content == page.content
        policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert policy["trusted-types"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        for kind in ("style", "script"):
            (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page.text, re.DOTALL)
            digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
        assert not re.search(r"\b(src|href|action|style|on\w+)=|innerHTML|insertAdjacent|document\.write", page.text)
        assert "{{" not in page.text


async def test_the_api_page_knows_that_the_routes_ask_for_a_key() -> None:
    async with gateway(SETTINGS) as running, httpx2.AsyncClient(base_url=running.url) as http:
        document = (await http.get("/openapi.json")).json()
        routes = [
            route for path, methods in document["paths"].items() if "/admin" in path for route in methods.values()
        ]
        assert len(routes) == 6
        for route in routes:
            (asked_for,) = route["security"]
            assert set(asked_for) <= set(document["components"]["securitySchemes"])


async def test_traffic_tells_what_went_through_and_through_whom() -> None:
    upstreams = "good=mock://local;bad=mock://local?status=500"
    async with gateway({**SETTINGS, "RATE_LIMIT_PER_MINUTE": "3"}, upstreams) as running:
        for model in ("good", "bad", "nobody", "good"):
            await chat(
                running.port, body=b'{"model":"%b","messages":[{"role":"user","content":"hi"}]}' % model.encode()
            )
        await running.idle()
        traffic = await told(running, "traffic")
        lately = traffic["lately"]
        assert traffic["scope"] == "this process"
        assert {name: lately[name] for name in ("answered", "refused", "failed", "left")} == {
            "answered": 2, "refused": 1, "failed": 1, "left": 0,
        }  # fmt: skip
        assert lately["prompt_tokens"] > 0
        assert lately["upstreams"]["good"] == {"attempts": 2, "failed": 0}
        assert lately["upstreams"]["bad"]["failed"] == lately["upstreams"]["bad"]["attempts"] > 0
        assert lately["answer_s"]["p50"] > 0


async def test_keys_are_told_with_limits_and_use_and_never_themselves() -> None:
    policies = (
        f'{{"{KEY}": {{"name": "search", "rate_limit_per_minute": 5, "tokens_per_minute": 9000, '
        '"allowed_models": ["mock", "m-*"]}, "sleeping-key": {"disabled": true}}'
    )
    settings = {**SETTINGS, "API_KEYS": f"{KEY},sleeping-key,plain-key", "API_KEY_POLICIES": policies}
    async with gateway(settings) as running:
        for _ in range(2):
            assert (await chat(running.port, body=ASKING)).status == 200
        await running.idle()
        answer = await ask(running, "keys")
        assert not any(key in answer.text for key in (KEY, "sleeping-key", "plain-key"))
        first, second, third = answer.json()["keys"]
        assert (first["name"], first["state"], first["allowed_models"]) == ("search", "active", ["mock", "m-*"])
        assert first["key_id"] == f"key-{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
        assert first["requests_per_minute"] == {"limit": 5, "used": 2}
        assert 0 < first["tokens_per_minute"]["used"] < 9000
        assert first["concurrency"] == {"limit": None, "used": None}
        assert first["lately"]["requests"] == 2
        assert first["lately"]["tokens"] == first["tokens_per_minute"]["used"]
        assert second["state"] == "disabled"
        assert third["requests_per_minute"] == {"limit": None, "used": None}
        assert third["lately"] == {"requests": 0, "tokens": 0}


async def test_rules_of_tokens_are_told_and_use_where_the_caller_is_known() -> None:
    settings = {
        **SETTINGS,
        "JWT_SECRET": SECRET,
        "JWT_ISSUER": "issuer",
        "API_KEY_POLICIES": '{"jwt:alice": {"rate_limit_per_minute": 7}, "jwt:*": {"max_concurrency": 2}}',
    }
    async with gateway(settings) as running:
        bearer = token({"iss": "issuer", "sub": "alice", "exp": time.time() + 600}).decode()
        async with httpx2.AsyncClient(base_url=running.url) as http:
            headers = {"Authorization": f"Bearer {bearer}", "content-type": "application/json"}
            answer = await http.post("/v1/chat/completions", content=ASKING, headers=headers)
        assert answer.status_code == 200, answer.text
        _, alice, others = (await told(running, "keys"))["keys"]
        assert (alice["kind"], alice["subject"], alice["requests_per_minute"]) == (
            "token", "alice", {"limit": 7, "used": 1},
        )  # fmt: skip
        assert (others["subject"], others["key_id"], others["concurrency"]) == ("*", None, {"limit": 2, "used": None})


async def test_many_keys_come_in_pieces() -> None:
    settings = {**SETTINGS, "API_KEYS": ",".join([KEY, *(f"key-number-{number}" for number in range(449))])}
    async with gateway(settings) as running:
        seen: list[str] = []
        while len(seen) < 450:
            piece = await told(running, f"keys?first={len(seen)}")
            assert piece["total"] == 450
            assert 0 < len(piece["keys"]) <= 200
            seen += [key["key_id"] for key in piece["keys"]]
        assert len(set(seen)) == 450
        assert (await told(running, "keys?first=450"))["keys"] == []
        for wrong in ("-1", "x", "", "1" * 400, "٣"):
            assert (await ask(running, f"keys?first={wrong}")).status_code == 400


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


async def until_used(running: Running, basis: str, *used: int | None) -> None:
    """A server that is slow for a moment counts as away: then it is told later what was admitted without it."""
    async with asyncio.timeout(20):
        while True:
            (key,) = (await told(running, "keys"))["keys"]
            if key["requests_per_minute"]["used"] in used and key["basis"] == basis:
                return


async def test_use_of_all_processes_is_told_through_redis_and_asking_uses_nothing(valkey: ValkeyServer) -> None:
    settings = {**SETTINGS, "REDIS_URL": valkey.url, "RATE_LIMIT_PER_MINUTE": "50"}
    async with gateway(settings) as one, gateway(settings) as other:
        for running in (one, other, one):
            await chat(running.port, body=ASKING)
        for running in (one, other, one):
            await until_used(running, "whole", 3)
        valkey.kill()
        await until_used(one, "none", None)  # nobody has called since: it has counted nothing by itself
        await chat(one.port, body=ASKING)
        half = 50 // 2 - 47 // 2 + 1  # of the limit and of what was left, where it has heard of the other already
        await until_used(one, "share", 4, half)


async def test_errors_are_told_without_prompts_or_keys() -> None:
    upstreams = "bad=mock://local?status=500"
    policies = f'{{"{KEY}": {{"name": "search"}}}}'
    async with gateway({**SETTINGS, "API_KEY_POLICIES": policies}, upstreams) as running:
        secret = "a prompt that nobody else may read"
        body = b'{"model":"bad","messages":[{"role":"user","content":"%b"}]}' % secret.encode()
        failed = await chat(running.port, body=body)
        for _ in range(3):
            await chat(running.port, body=body.replace(b'"bad"', b'"<b>nobody</b>"'))
        await running.idle()
        answer = await ask(running, "errors")
        assert secret not in answer.text
        assert KEY not in answer.text
        unknown, bad = answer.json()["errors"]
        assert (unknown["code"], unknown["count"], unknown["model"], unknown["route"]) == (
            "model_not_found", 3, "<b>nobody</b>", None,
        )  # fmt: skip
        assert (bad["status"], bad["code"], bad["upstream"], bad["name"]) == (502, "upstream_error", "bad", "search")
        assert bad["request_id"] == failed.headers["x-request-id"]
        assert {(each["upstream"], each["outcome"], each["status"]) for each in bad["attempts"]} == {
            ("bad", "unavailable", 500)
        }
