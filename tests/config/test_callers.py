"""Keys are known by their digests alone, and what lets nobody in, or the wrong ones, is refused."""

import hashlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.core.access import CallerPolicy, ModelList

from .samples import GOOD, LONG_SECRET, PUBLIC_KEY

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1).filter(
    lambda key: not key.startswith("sha256:")
)
PAIR = {"GATEWAY_JWT_SECRET": LONG_SECRET, "GATEWAY_JWT_PUBLIC_KEY": PUBLIC_KEY}


def problems_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationProblems) as refusal:
        load(environ)
    return [str(problem) for problem in refusal.value.problems]


@given(keys=st.lists(KEYS, min_size=1, max_size=5, unique=True), data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_key_and_its_digest_let_the_same_caller_in(keys: list[str], data: st.DataObject) -> None:
    digests = [hashlib.sha256(key.encode()) for key in keys]
    written = [
        data.draw(st.sampled_from([f" {key} ", f"sha256:{digest.hexdigest()}", f"sha256:{digest.hexdigest().upper()}"]))
        for key, digest in zip(keys, digests, strict=True)
    ]
    runtime = load({"GATEWAY_API_KEYS": ",".join(written)}).runtime
    assert runtime.api_key_digests == tuple(digest.digest() for digest in digests)


@pytest.mark.parametrize("name", ["GATEWAY_METRICS_KEY", "GATEWAY_ADMIN_KEY"])
def test_a_key_that_stands_alone_may_be_a_digest_too(name: str) -> None:
    digest = hashlib.sha256(b"secret")
    plain, hashed = (load({name: key}).runtime for key in ("secret", f"sha256:{digest.hexdigest()}"))
    assert plain == hashed
    assert digest.digest() in (plain.metrics_key_digest, plain.admin_key_digest)


@pytest.mark.parametrize("again", ["one", f"sha256:{hashlib.sha256(b'one').hexdigest()}"])
def test_the_same_key_twice_is_refused_by_its_position(again: str) -> None:
    (problem,) = problems_of({"GATEWAY_API_KEYS": f"one,two,{again}"})
    assert problem.startswith("GATEWAY_API_KEYS[3]: This is key 1 again.")


def test_operators_have_a_key_of_their_own() -> None:
    digest = hashlib.sha256(b"one").hexdigest()
    (problem,) = problems_of({"GATEWAY_API_KEYS": "one", "GATEWAY_ADMIN_KEY": f"sha256:{digest}"})
    assert problem.startswith("GATEWAY_ADMIN_KEY: ")


def test_an_empty_list_is_refused_while_tokens_let_nobody_in() -> None:
    assert "nobody could call" in problems_of({"GATEWAY_API_KEYS": ""})[0]
    assert not load({"GATEWAY_API_KEYS": "", **GOOD["jwt_secret"]}).runtime.accepts_dev_key


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('{"two": {}}', "[1]: This rule is for a key that is in no list"),
        ('{"one": {}, "sha256:0": {}}', "[2]: What follows sha256: is not a digest"),
        ('{"jwt:*": {}}', "for tokens"),
        ('{"one": {"rate_limit_per_minute": 0}}', "[1].rate_limit_per_minute"),
        ('{"one": {"allowed_models": 5}}', "[1].allowed_models"),
        ('{"one": {"allowed_model": ["a"]}}', "Did you mean allowed_models?"),
        ('{"one": {"allowed_models": []}}', "no model may be used"),
        ('{"one": {"max_concurrency": 0}}', "[1].max_concurrency"),
        ('{"one": {"tokens_per_minute": -1}}', "[1].tokens_per_minute"),
        ('{"one": {"expires_at": "tomorrow"}}', "is not an instant"),
        ('{"one": {"expires_at": "2027-01-31"}}', "tells no time zone"),
        ('{"one": {"disabled": "perhaps"}}', "[1].disabled"),
        (f'{{"one": {{}}, "sha256:{hashlib.sha256(b"one").hexdigest()}": {{}}}}', "[2]: This key has rule 1 already"),
    ],
)
def test_a_rule_for_nobody_or_without_sense_is_refused(rules: str, why: str) -> None:
    (problem,) = problems_of({"GATEWAY_API_KEYS": "one", "GATEWAY_API_KEY_POLICIES": rules})
    assert why in problem


def test_rules_may_name_digests_and_tokens() -> None:
    rules = (
        f'{{"sha256:{hashlib.sha256(b"one").hexdigest()}": {{}}, "jwt:*": {{"rate_limit_per_minute": "unlimited"}}}}'
    )
    assert load({"GATEWAY_API_KEYS": "one", "GATEWAY_API_KEY_POLICIES": rules, **GOOD["jwt_secret"]})


def test_rules_become_what_holds_for_each_caller() -> None:
    digest = hashlib.sha256(b"one").digest()
    rules = {
        f"sha256:{digest.hex()}": {
            "name": "search",
            "allowed_models": ["chat", "small-*"],
            "rate_limit_per_minute": "unlimited",
            "tokens_per_minute": 5000,
            "max_concurrency": "4",
            "clamp": True,
            "expires_at": "2027-01-31T01:00:00+01:00",
        },
        "jwt:alice": {"disabled": True},
        "jwt:*": {"rate_limit_per_minute": 7},
    }
    environ = {"GATEWAY_API_KEYS": "one", "GATEWAY_API_KEY_POLICIES": json.dumps(rules), **GOOD["jwt_secret"]}
    runtime = load({**environ, "GATEWAY_RATE_LIMIT_PER_MINUTE": "9"}).runtime
    expires_at = datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    models = ModelList(["chat", "small-*"])
    assert runtime.key_policies == {digest: CallerPolicy(None, 5000, 4, True, "search", models, expires_at)}
    assert runtime.token_policies == {"alice": CallerPolicy(9, disabled=True), "*": CallerPolicy(7)}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        (PAIR, "GATEWAY_JWT_PUBLIC_KEY"),
        ({**GOOD["jwt_jwks_url"], "GATEWAY_JWT_SECRET": LONG_SECRET}, "GATEWAY_JWT_JWKS_URL"),
        ({**GOOD["jwt_jwks_url"], "GATEWAY_JWT_ISSUER": ""}, "GATEWAY_JWT_JWKS_URL"),
        ({**GOOD["jwt_jwks_url"], "GATEWAY_JWT_AUDIENCE": ""}, "GATEWAY_JWT_JWKS_URL"),
        ({**GOOD["jwt_jwks_url"], "GATEWAY_JWT_ALGORITHMS": "HS256"}, "GATEWAY_JWT_ALGORITHMS"),
        ({"GATEWAY_JWT_PUBLIC_KEY": PUBLIC_KEY, "GATEWAY_JWT_ALGORITHMS": "RS256"}, "GATEWAY_JWT_PUBLIC_KEY"),
        ({"GATEWAY_JWT_SECRET": LONG_SECRET, "GATEWAY_JWT_ALGORITHMS": "HS256,RS256"}, "GATEWAY_JWT_ALGORITHMS"),
        ({"GATEWAY_JWT_PUBLIC_KEY": PUBLIC_KEY, "GATEWAY_JWT_ALGORITHMS": "HS256"}, "GATEWAY_JWT_ALGORITHMS"),
        ({"GATEWAY_JWT_ISSUER": "me"}, "GATEWAY_JWT_ISSUER"),
    ],
)
def test_settings_of_tokens_that_do_not_fit_together_are_refused(environ: dict[str, str], place: str) -> None:
    (problem,) = problems_of(environ)
    assert problem.startswith(f"{place}: ")


@pytest.mark.parametrize("line_end", ["\n", "\\n", "\r\n", "\\r\\n"])
def test_a_public_key_may_have_its_newlines_written_out(line_end: str) -> None:
    tokens = load({"GATEWAY_JWT_PUBLIC_KEY": PUBLIC_KEY.replace("\n", line_end)}).runtime.tokens
    assert tokens is not None
    assert tokens.algorithms == {"ES256"}


def test_a_secret_is_for_hs256_unless_told_otherwise() -> None:
    usual, wider = (load(GOOD[name]).runtime.tokens for name in ("jwt_secret", "jwt_algorithms"))
    assert usual is not None
    assert wider is not None
    assert (sorted(usual.algorithms), sorted(wider.algorithms)) == (["HS256"], ["HS256", "HS512"])


def test_a_short_secret_works_with_one_warning() -> None:
    (warning,) = load({"GATEWAY_JWT_SECRET": "my-secret"}).warnings
    assert warning.place == "GATEWAY_JWT_SECRET"
    assert "my-secret" not in str(warning)
