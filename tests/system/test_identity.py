"""Who gets in, who does not, and what either learns of it: over the wire, through a whole gateway."""

import hashlib
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import CHAT, Caller, Received
from tests.support.raw_server import RawServer, answering, plain
from tests.support.tokens import CLAIMS, SECRET, jwk_of, token

pytestmark = pytest.mark.anyio

TOKENS = {"JWT_SECRET": SECRET}


async def ask(
    running: Running, *headers: str, model: str = "mock", path: str = "/v1/chat/completions", method: str = "POST"
) -> Received:
    body = json.dumps({**CHAT, "model": model}) if method == "POST" else ""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", "content-type: application/json", *headers]
    lines.append(f"content-length: {len(body)}")
    async with Caller(running.port) as caller:
        await caller.send("\r\n".join([*lines, "", body]).encode())
        return await caller.receive()


def bearer(value: bytes | str) -> str:
    return f"authorization: Bearer {value if isinstance(value, str) else value.decode()}"


def fresh(**claims: Any) -> bytes:
    """A good token, by the clock of the gateway in this process."""
    return token({**CLAIMS, "exp": time.time() + 600, **claims})


def code_of(answer: Received) -> str:
    code: str = answer.json()["error"]["code"]
    return code


async def test_a_key_and_a_token_let_in_side_by_side() -> None:
    async with gateway(TOKENS) as running:
        assert (await ask(running, f"x-api-key: {KEY}")).status == 200
        assert (await ask(running, bearer(KEY))).status == 200
        for _ in range(2):  # the second time from memory
            assert (await ask(running, bearer(fresh()))).status == 200
            assert running.records.last.key_id is not None
            assert running.records.last.key_id.startswith("jwt:")


async def test_a_token_is_a_bearer_value() -> None:
    async with gateway(TOKENS) as running:
        answer = await ask(running, f"x-api-key: {fresh().decode()}")
        assert (answer.status, code_of(answer)) == (401, "invalid_api_key")


async def test_without_settings_for_tokens_one_is_just_an_unknown_key() -> None:
    async with gateway() as running:
        answer = await ask(running, bearer(fresh()))
        assert (answer.status, code_of(answer)) == (401, "invalid_api_key")


async def test_all_bad_tokens_get_the_same_answer() -> None:
    async with gateway(TOKENS) as running:
        bad = [
            fresh(exp=time.time() - 31),
            fresh(sub=""),
            fresh(nbf=time.time() + 60),
            token({**CLAIMS, "exp": time.time() + 600}, crit=["x"]),
            token({**CLAIMS, "exp": time.time() + 600}, "another-secret-of-more-than-32-bytes"),
            fresh(long="x" * 8192),
            b"a.b.c",
            b"..",
        ]
        answers = [await ask(running, bearer(value)) for value in bad]
    assert {answer.status for answer in answers} == {401}
    assert {answer.body for answer in answers} == {answers[0].body}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert code_of(answers[0]) == "invalid_token"


async def test_unknown_disabled_and_expired_keys_get_the_same_answer() -> None:
    policies = {"off": {"disabled": True}, "old": {"expires_at": "2020-01-01T00:00:00Z"}}
    settings = {"API_KEYS": f"{KEY},off,old", "API_KEY_POLICIES": json.dumps(policies)}
    async with gateway(settings) as running:
        answers = [await ask(running, f"x-api-key: {key}") for key in ("unknown", "off", "old")]
    assert {answer.status for answer in answers} == {401}
    assert {answer.body for answer in answers} == {answers[0].body}


async def test_a_caller_sees_and_uses_its_own_models_only() -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    policies = {f"sha256:{digest}": {"allowed_models": ["chat-*", "small"]}}
    upstreams = "chat-a=mock://local;small=mock://local;secret=mock://local"
    async with gateway({"API_KEY_POLICIES": json.dumps(policies), "DEFAULT_UPSTREAM": "secret"}, upstreams) as running:
        statuses = {
            model: (await ask(running, f"x-api-key: {KEY}", model=model)).status
            for model in ("chat-a", "chat-other", "small", "smaller", "secret", "nobody")
        }
        refusal = (await ask(running, f"x-api-key: {KEY}", model="secret")).json()["error"]
        listing = await ask(running, f"x-api-key: {KEY}", path="/v1/models", method="GET")
        hidden = await ask(running, f"x-api-key: {KEY}", path="/v1/models/secret", method="GET")
        shown = await ask(running, f"x-api-key: {KEY}", path="/v1/models/small", method="GET")
    assert statuses == {"chat-a": 200, "chat-other": 200, "small": 200, "smaller": 403, "secret": 403, "nobody": 403}
    assert (refusal["type"], refusal["code"], refusal["param"]) == ("permission_denied", "model_not_allowed", "model")
    assert [model["id"] for model in listing.json()["data"]] == ["chat-a", "small"]
    assert (hidden.status, shown.status) == (404, 200)


async def test_a_fallback_needs_no_listing() -> None:
    policies = {KEY: {"allowed_models": ["main"]}}
    settings = {"API_KEY_POLICIES": json.dumps(policies), "FALLBACKS": "main=spare"}
    async with gateway(settings, "main=mock://local?status=500;spare=mock://local") as running:
        answer = await ask(running, f"x-api-key: {KEY}", model="main")
    assert (answer.status, answer.headers["x-nexus-upstream"]) == (200, "spare")


async def test_rules_for_tokens_are_by_subject_or_for_all() -> None:
    policies = {
        "jwt:bob": {"disabled": True},
        "jwt:carol": {"rate_limit_per_minute": 1},
        "jwt:*": {"allowed_models": ["other"]},
    }
    async with gateway({**TOKENS, "API_KEY_POLICIES": json.dumps(policies)}) as running:
        assert (await ask(running, bearer(fresh(sub="alice")))).status == 403
        assert code_of(await ask(running, bearer(fresh(sub="bob")))) == "invalid_token"
        statuses = [(await ask(running, bearer(fresh(sub="carol", jti=n)))).status for n in range(3)]
        assert statuses == [200, 429, 429], "all tokens of one subject share its limit"
        assert (await ask(running, bearer(fresh(sub="carol", iss="another")))).status == 200, "another caller"


async def test_keys_may_be_published() -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    published = json.dumps({"keys": [jwk_of(key, "ES256", kid="k1")]}).encode()
    async with RawServer(answering(plain(published))) as issuer:
        settings = {
            "JWT_JWKS_URL": f"http://127.0.0.1:{issuer.port}/jwks",
            "JWT_ISSUER": CLAIMS["iss"],
            "JWT_AUDIENCE": "gateway",
        }
        claims = {**CLAIMS, "exp": time.time() + 600, "aud": "gateway"}
        async with gateway(settings) as running:
            good = token(claims, key, "ES256", kid="k1")
            assert (await ask(running, bearer(good))).status == 200
            bad = [
                token(claims, other, "ES256", kid="k1"),
                token(claims, other, "ES256", kid="k2"),
                token(claims, json.dumps(jwk_of(key, "ES256")), "HS256", kid="k1"),
                token({**claims, "aud": "another"}, key, "ES256", kid="k1"),
                token({**claims, "iss": "another"}, key, "ES256", kid="k1"),
            ]
            answers = [await ask(running, bearer(value)) for value in bad]
        assert [(answer.status, code_of(answer)) for answer in answers] == [(401, "invalid_token")] * len(bad)
    assert len(issuer.peers) == 1, "made-up names of keys cost the issuer nothing"


async def test_without_the_issuer_keys_let_in_and_tokens_do_not() -> None:
    settings = {"JWT_JWKS_URL": "http://127.0.0.1:1/jwks", "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}
    async with gateway(settings) as running:
        assert code_of(await ask(running, bearer(fresh()))) == "invalid_token"
        assert (await ask(running, bearer(KEY))).status == 200


async def test_each_caller_has_the_capacity_that_its_rules_give() -> None:
    policies = {
        KEY: {"max_concurrency": 1},
        "small": {"tokens_per_minute": 10},
        "clamped": {"tokens_per_minute": 100, "clamp": True},
    }
    settings = {"API_KEYS": f"{KEY},small,clamped", "API_KEY_POLICIES": json.dumps(policies)}
    async with gateway(settings) as running:
        one_by_one = [(await ask(running, f"x-api-key: {KEY}")).status for _ in range(3)]
        too_large = await ask(running, "x-api-key: small")
        clamped = await ask(running, "x-api-key: clamped")
    assert one_by_one == [200] * 3
    assert (too_large.status, too_large.json()["error"]["type"]) == (429, "tokens")
    assert clamped.status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
async def test_whoever_guesses_is_slowed_down_and_nobody_else(path: str) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    async with gateway() as running:
        statuses = [(await ask(running, f"x-api-key: wrong-{n}", path=path, method=method)).status for n in range(63)]
        slowed = await ask(running, "x-api-key: wrong", path=path, method=method)
        good = await ask(running, f"x-api-key: {KEY}", path=path, method=method)
    assert statuses == [401] * 60 + [429] * 3
    assert 0 < int(slowed.headers["retry-after"]) <= 61
    assert code_of(slowed) == "rate_limit_exceeded"
    assert good.status == 200


async def test_only_a_trusted_proxy_tells_who_is_behind_it() -> None:
    async def statuses(**settings: str) -> set[int]:
        async with gateway(settings) as running:
            return {
                (await ask(running, "x-api-key: wrong", f"x-forwarded-for: 203.0.113.{n}")).status for n in range(70)
            }

    assert await statuses() == {401, 429}
    assert await statuses(TRUSTED_PROXIES="127.0.0.0/8") == {401}
    assert await statuses(TRUSTED_PROXIES="10.0.0.0/8") == {401, 429}
