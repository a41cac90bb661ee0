"""A token is good or it is not: RFC 7515, 7519 and 8725, case by case, and one answer to all that is wrong."""

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.core.errors import InvalidToken
from nexus_gateway.core.jwt import (
    INVALID_TOKEN,
    LEEWAY_S,
    MAX_TOKEN_BYTES,
    OneKey,
    TokenRules,
    VerifyingKey,
    check,
    key_of_jwk,
    key_of_pem,
    key_of_secret,
)
from tests.support.tokens import CLAIMS, NOW, SECRET, decode, encode, hmac_token, jwk_of, part, pem_of, sign, token

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
SMALL_RSA_KEY = rsa.generate_private_key(65537, 1024)
P256, P384, P521 = (ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1))
ED25519 = ed25519.Ed25519PrivateKey.generate()

HS = OneKey(key_of_secret(SECRET))
RS = OneKey(key_of_pem(pem_of(RSA_KEY)))
ANY_RULES = TokenRules()
STRICT = TokenRules("https://issuer.example", "gateway")


def is_good(value: bytes, keys: OneKey = HS, rules: TokenRules = ANY_RULES, now: float = NOW) -> bool:
    """Whether it is taken; every refusal has the same words."""
    try:
        check(value, keys, rules, now)
    except InvalidToken as exc:
        refusal = exc
    else:
        return True
    assert refusal.message == INVALID_TOKEN
    assert refusal.__cause__ is None
    return False


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


# ---- signatures


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA_KEY, name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")]
    + [(P256, "ES256"), (P384, "ES384"), (P521, "ES512"), (ED25519, "EdDSA")],
)
def test_each_algorithm_that_fits_its_key_is_accepted(key: Any, algorithm: str) -> None:
    value = token(key=key, algorithm=algorithm)
    assert is_good(value, OneKey(key_of_pem(pem_of(key))))
    assert is_good(value, OneKey(key_of_jwk(jwk_of(key, algorithm), [algorithm])))
    assert not is_good(value, HS)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_algorithm_of_secrets_is_accepted_when_it_is_asked_for(algorithm: str) -> None:
    value = token(algorithm=algorithm)
    assert is_good(value, OneKey(key_of_secret(SECRET, [algorithm])))
    assert is_good(value, OneKey(key_of_secret(SECRET, ["HS256"]))) is (algorithm == "HS256")


def test_a_short_secret_works() -> None:
    assert is_good(hmac_token({"alg": "HS256"}, CLAIMS, b"my-secret"), OneKey(key_of_secret("my-secret")))


PAYLOAD_OF_RFC_7515 = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
EXAMPLES: dict[str, tuple[VerifyingKey, str, str, str]] = {
    "RFC 7515, A.1": (
        VerifyingKey(
            frozenset({"HS256"}),
            decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"),
        ),
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
        PAYLOAD_OF_RFC_7515,
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ),
    "RFC 7515, A.3": (
        key_of_jwk(
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            },
            ["ES256"],
        ),
        "eyJhbGciOiJFUzI1NiJ9",
        PAYLOAD_OF_RFC_7515,
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ),
    "RFC 8037, A.4": (
        key_of_jwk({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, ["EdDSA"]),
        "eyJhbGciOiJFZERTQSJ9",
        "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_standards_verify_and_are_no_tokens_for_us(example: str) -> None:
    """They name no subject, or have expired."""
    key, header, payload, signature = EXAMPLES[example]
    (algorithm,) = key.algorithms
    assert key.verifies(algorithm, f"{header}.{payload}".encode(), decode(signature))
    assert not key.verifies(algorithm, f"{header}.{payload}x".encode(), decode(signature))
    assert not is_good(f"{header}.{payload}.{signature}".encode(), OneKey(key), now=1300819000)


def test_a_signature_on_a_curve_is_two_numbers_of_full_length_and_neither_is_zero() -> None:
    """RFC 7515, A.3; the zeros are CVE-2022-21449."""
    keys = OneKey(key_of_pem(pem_of(P256)))
    header, payload, signature = token(key=P256, algorithm="ES256").decode().split(".")
    raw = decode(signature)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    wrong = [
        bytes(64),
        bytes(32) + raw[32:],
        raw[:32] + bytes(32),
        order.to_bytes(32, "big") * 2,
        raw[:-1],
        raw + b"\0",
        encode_dss_signature(r, s),
        b"",
    ]
    assert is_good(f"{header}.{payload}.{encode(raw)}".encode(), keys)
    for other in wrong:
        assert not is_good(f"{header}.{payload}.{encode(other)}".encode(), keys)


def test_what_is_encrypted_or_not_compact_is_refused() -> None:
    header, payload, signature = token().decode().split(".")
    flattened = json.dumps({"protected": header, "payload": payload, "signature": signature})
    general = json.dumps({"payload": payload, "signatures": [{"protected": header, "signature": signature}]})
    encrypted = ".".join([part({"alg": "dir", "enc": "A128GCM"}), "", encode(bytes(12)), payload, signature])
    for value in (flattened, general, encrypted):
        assert not is_good(value.encode())


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 5, ["HS256"], "HS255", "hs256"])
def test_no_signature_and_no_real_algorithm_is_refused(algorithm: Any) -> None:
    header, payload = part({"alg": algorithm}), part(CLAIMS)
    for signature in ("", encode(b"x"), token().decode().rpartition(".")[2]):
        assert not is_good(f"{header}.{payload}.{signature}".encode())
    assert not is_good(f"{part({})}.{payload}.".encode())


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("pem", [pem_of(RSA_KEY), pem_of(RSA_KEY).strip(), pem_of(P256)])
def test_a_public_key_is_no_secret(algorithm: str, pem: str) -> None:
    forged = hmac_token({"alg": algorithm}, CLAIMS, pem.encode())
    assert not is_good(forged, RS)
    assert not is_good(forged, OneKey(key_of_pem(pem)))
    with pytest.raises(ValueError, match="not a secret"):
        key_of_secret(pem)


def test_an_algorithm_of_the_same_family_with_another_key_is_refused() -> None:
    assert not is_good(token(key=OTHER_RSA_KEY, algorithm="RS256"), RS)
    assert not is_good(token(key=P256, algorithm="ES256"), RS)
    assert not is_good(token(key=RSA_KEY, algorithm="RS256"), OneKey(key_of_pem(pem_of(RSA_KEY), ["PS256"])))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk_of(OTHER_RSA_KEY, "RS256")},
        {"jku": "http://127.0.0.1:1/jwks"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"x5c": ["MIIB"]},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1 --"},
    ],
)
def test_a_token_brings_no_key_of_its_own(header: dict[str, Any]) -> None:
    assert not is_good(token(key=OTHER_RSA_KEY, algorithm="RS256", **header), RS)
    assert is_good(token(key=RSA_KEY, algorithm="RS256", **header), RS)


@pytest.mark.parametrize("header", [{"kid": 5}, {"kid": ["a"]}, {"kid": {}}])
def test_the_name_of_a_key_is_text(header: dict[str, Any]) -> None:
    assert not is_good(token(**header))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": NOW},
        {"crit": []},
        {"crit": None},
        {"crit": ["b64"], "b64": True},
        {"b64": False},
        {"crit": ["b64"], "b64": False},
    ],
)
def test_extensions_are_not_understood(header: dict[str, Any]) -> None:
    assert not is_good(token(**header))


@pytest.mark.parametrize(
    "header", [{"typ": "at+jwt"}, {"typ": None}, {"typ": "text/plain"}, {"cty": "x"}, {"zip": "DEF"}]
)
def test_other_headers_change_nothing(header: dict[str, Any]) -> None:
    assert is_good(token(**header))


@given(at=st.integers(0, 10_000), to=st.binary(min_size=1, max_size=1))
@settings(max_examples=300)
def test_no_byte_of_a_token_can_change(at: int, to: bytes) -> None:
    value = token()
    at %= len(value)
    changed = value[:at] + to + value[at + 1 :]
    assert is_good(changed) is (changed == value)


@given(junk=st.one_of(st.binary(max_size=200), st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(b".".join)))
def test_junk_is_refused_and_nothing_else_is_raised(junk: bytes) -> None:
    assert not is_good(junk)


@given(parts=st.lists(st.recursive(st.none() | st.text() | st.integers(), st.lists), min_size=2, max_size=2))
def test_signed_junk_is_refused_too(parts: list[Any]) -> None:
    assert not is_good(sign(part(parts[0]), part(parts[1]), SECRET, "HS256"))
    assert not is_good(token(parts[1]))


# ---- form


def signed_text(header: str, payload: str) -> bytes:
    return sign(encode(header.encode()), encode(payload.encode()), SECRET, "HS256")


GOOD_HEADER = '{"alg":"HS256"}'
GOOD_PAYLOAD = json.dumps(CLAIMS)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ('{"alg":"none","alg":"HS256"}', GOOD_PAYLOAD),
        ('{"alg":"HS256","alg":"HS256"}', GOOD_PAYLOAD),
        (GOOD_HEADER, GOOD_PAYLOAD.replace('"sub"', '"sub": "root", "sub"')),
        (GOOD_HEADER, GOOD_PAYLOAD.replace('"sub"', '"a": {"b": 1, "b": 2}, "sub"')),
        (GOOD_HEADER, "[" * 3000 + "]" * 3000),
        (GOOD_HEADER, '{"exp": ' + "9" * 5000 + ', "sub": "a"}'),
        (GOOD_HEADER, '{"exp": 1e999, "sub": "a"}'),
        (GOOD_HEADER, '{"exp": NaN, "sub": "a"}'),
        (GOOD_HEADER, '{"exp": Infinity, "sub": "a"}'),
        (GOOD_HEADER, GOOD_PAYLOAD + "x"),
        (GOOD_HEADER, ""),
        (GOOD_HEADER + "\x00", GOOD_PAYLOAD),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(header: str, payload: str) -> None:
    assert is_good(signed_text(GOOD_HEADER, GOOD_PAYLOAD))
    assert not is_good(signed_text(header, payload))


def test_the_encoding_has_one_form_only() -> None:
    header, payload, signature = token().decode().split(".")
    assert is_good(f"{header}.{payload}.{signature}".encode())
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(signature[-1])
    same_bytes = signature[:-1] + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]
    for bad in (signature + "=", signature + "==", signature + "\n", signature + " ", "", same_bytes, signature + "A"):
        assert not is_good(f"{header}.{payload}.{bad}".encode())
    for bad in (f".{payload}.{signature}", f"{header}..{signature}", f"{header}.{payload}", f"{header}.{payload}.x.y"):
        assert not is_good(bad.encode())


def test_a_token_in_a_token_is_refused() -> None:
    nested = sign(part({"alg": "HS256", "cty": "JWT"}), encode(token()), SECRET, "HS256")
    assert not is_good(nested)


def test_a_token_has_a_largest_size() -> None:
    fits, over = (token({**CLAIMS, "groups": "g" * size}) for size in (5900, 6100))
    assert len(fits) <= MAX_TOKEN_BYTES < len(over)
    assert is_good(fits)
    assert not is_good(over)


def filled(begin: str, piece: str, end: str) -> bytes:
    """A well-signed token with as much of `piece` in its claims as fits."""
    room = MAX_TOKEN_BYTES * 3 // 4 - 100
    return signed_text(GOOD_HEADER, begin + piece * ((room - len(begin) - len(end)) // len(piece)) + end)


@pytest.mark.parametrize(
    "value",
    [
        filled('{"exp":', "9", "}"),
        filled('{"a":', "[", ""),
        filled('{"a":', '{"a":', ""),
        filled('{"a":"', "\\\\", '"}'),
        filled('{"a":"', "\\ud83d", '"}'),
        filled("{", '"a":1,', '"b":1}'),
        b"." * MAX_TOKEN_BYTES,
        b"." * (64 << 10),
        f"{part({'alg': 'RS256'})}.{part(CLAIMS)}.{'A' * 8000}".encode(),
    ],
    ids=["digits", "arrays", "objects", "escapes", "halves", "names", "dots", "dots beyond the size", "signature"],
)
def test_the_worst_token_takes_little_time(value: bytes) -> None:
    """The best of a few, for a busy machine; quadratic work on 8 KiB would take ten times as long."""
    times_s = []
    for _ in range(5):
        began_s = time.process_time()
        assert not is_good(value, RS)
        assert not is_good(value, HS)
        times_s.append(time.process_time() - began_s)
    assert min(times_s) < 0.02


# ---- claims


@pytest.mark.parametrize("exp", [None, "1800000600", True, [], {}, -1, 0, NOW - LEEWAY_S])
def test_it_must_expire_in_the_future(exp: Any) -> None:
    assert not is_good(token({**CLAIMS, "exp": exp}))
    assert not is_good(token(without("exp")))


@given(exp=st.floats(0, 2 * NOW), now=st.floats(0, 2 * NOW))
def test_it_is_good_until_it_expires_and_the_leeway_is_over(exp: float, now: float) -> None:
    assert is_good(token({**CLAIMS, "exp": exp}), now=now) is (now < exp + LEEWAY_S)


@given(nbf=st.floats(0, 2 * NOW), now=st.floats(0, NOW))
def test_it_is_good_from_its_beginning_on_give_or_take_the_leeway(nbf: float, now: float) -> None:
    assert is_good(token({**CLAIMS, "nbf": nbf}), now=now) is (now >= nbf - LEEWAY_S)


@pytest.mark.parametrize("nbf", ["0", None, True, []])
def test_a_beginning_is_a_number(nbf: Any) -> None:
    assert not is_good(token({**CLAIMS, "nbf": nbf}))


@pytest.mark.parametrize("sub", [None, "", 5, ["alice"], {}])
def test_it_must_speak_of_somebody(sub: Any) -> None:
    assert not is_good(token({**CLAIMS, "sub": sub}))
    assert not is_good(token(without("sub")))


@pytest.mark.parametrize(
    "iss", [None, "", "https://issuer.example/", "HTTPS://issuer.example", 5, ["https://issuer.example"]]
)
def test_the_issuer_is_the_expected_one_to_the_letter(iss: Any) -> None:
    rules = TokenRules(issuer="https://issuer.example")
    assert is_good(token(), rules=rules)
    assert not is_good(token({**CLAIMS, "iss": iss}), rules=rules)
    assert not is_good(token(without("iss")), rules=rules)


@pytest.mark.parametrize(
    ("aud", "is_for_us"),
    [
        ("gateway", True),
        (["other", "gateway"], True),
        ("other", False),
        ("gateway2", False),
        (["other"], False),
        ([], False),
        ({"gateway": 1}, False),
        (None, False),
        ([["gateway"]], False),
    ],
)
def test_the_audience_is_checked_when_one_is_expected(aud: Any, is_for_us: bool) -> None:
    value = token({**CLAIMS, "aud": aud})
    assert is_good(value, rules=STRICT) is is_for_us
    assert is_good(value)
    assert not is_good(token(), rules=STRICT)


@given(one=st.tuples(st.text(), st.text(min_size=1)), other=st.tuples(st.text(), st.text(min_size=1)))
def test_a_caller_is_its_issuer_and_its_subject_together(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = (
        check(token({**CLAIMS, "iss": issuer, "sub": subject}), HS, ANY_RULES, NOW).key_id
        for issuer, subject in (one, other)
    )
    assert (first == second) is (one == other)
    assert first.isascii()
    assert first.isprintable()
    assert len(first) == len("jwt:") + 16


def test_half_a_character_in_a_subject_is_only_a_strange_name() -> None:
    assert check(signed_text(GOOD_HEADER, GOOD_PAYLOAD.replace("alice", "\\ud800")), HS, ANY_RULES, NOW).key_id


# ---- keys


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "secp256k1", "x": "A" * 43, "y": "A" * 43},
        {"kty": ["RSA"]},
        jwk_of(SMALL_RSA_KEY, "RS256"),
        jwk_of(RSA_KEY, "RS256", use="enc"),
        jwk_of(RSA_KEY, "RS256", key_ops=["encrypt"]),
        jwk_of(RSA_KEY, "RS256", key_ops=5),
        jwk_of(RSA_KEY, "RS256", alg="HS256"),
        jwk_of(RSA_KEY, "RS256", alg="ES256"),
        jwk_of(RSA_KEY, "RS256", d="AQAB"),
        jwk_of(RSA_KEY, "RS256", n=5),
    ],
)
def test_only_strong_public_keys_for_signatures_count(jwk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        key_of_jwk(jwk, ["RS256", "ES256", "HS256", "EdDSA"])


def test_weak_and_private_keys_are_refused_in_pem_too() -> None:
    for pem in (pem_of(SMALL_RSA_KEY), "", "nonsense", pem_of(RSA_KEY).replace("PUBLIC", "PRIVATE")):
        with pytest.raises(ValueError, match=r"."):
            key_of_pem(pem)
