"""One credential per request, from any of three headers, known by digest only."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.access import CallerPolicy, ModelList
from nexus_gateway.core.credentials import KeyRing, is_token, key_id_of, read_credential
from nexus_gateway.core.errors import Unauthenticated

keys = st.binary(min_size=1, max_size=40).filter(lambda key: key == key.strip())


def headers_of(key: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key), (b"x-api-key", key), (b"api-key", key)]


def no_clock() -> float:
    raise AssertionError("a key that never expires is found without a clock")


def read(headers: list[tuple[bytes, bytes]]) -> bytes:
    return read_credential(headers, dict(headers))


@given(key=keys, which=st.sets(st.integers(0, 2), min_size=1))
def test_every_header_and_every_combination_that_agrees_is_the_same_credential(key: bytes, which: set[int]) -> None:
    assert read([headers_of(key)[i] for i in which]) == key


@given(one=keys, other=keys, first=st.integers(0, 2), second=st.integers(0, 2))
def test_two_that_differ_are_refused(one: bytes, other: bytes, first: int, second: int) -> None:
    if one != other:
        with pytest.raises(Unauthenticated):
            read([headers_of(one)[first], headers_of(other)[second]])


@pytest.mark.parametrize("scheme", [b"bearer ", b"BEARER ", b"Bearer   "])
def test_the_scheme_is_read_in_any_case(scheme: bytes) -> None:
    assert read([(b"authorization", scheme + b"k")]) == b"k"


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Basic k")], [(b"x-api-key", b"")], [(b"cookie", b"k")]])
def test_no_credential_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated):
        read(headers)


@given(known=keys, tried=keys)
def test_only_the_exact_key_opens(known: bytes, tried: bytes) -> None:
    digest = hashlib.sha256(known).digest()
    ring = KeyRing({digest: CallerPolicy(requests_per_minute=None)})
    found = ring.find(tried, no_clock)
    if tried == known:
        assert found is not None
        assert found.key_id == key_id_of(digest) == f"key-{digest.hex()[:8]}"
    else:
        assert found is None


@given(expires_at=st.floats(0, 1e10), now_s=st.floats(0, 1e10), disabled=st.booleans())
def test_a_key_opens_until_it_expires_and_never_while_it_is_disabled(
    expires_at: float, now_s: float, disabled: bool
) -> None:
    policy = CallerPolicy(None, expires_at=expires_at, disabled=disabled)
    ring = KeyRing({hashlib.sha256(b"key").digest(): policy})
    assert (ring.find(b"key", lambda: now_s) is not None) == (not disabled and now_s < expires_at)


def test_the_rules_of_a_key_go_with_its_principal() -> None:
    models = ModelList(["small-*"])
    policy = CallerPolicy(1, 2, 3, True, "search", models)
    found = KeyRing({hashlib.sha256(b"key").digest(): policy}).find(b"key", no_clock)
    assert found is not None
    assert (found.requests_per_minute, found.tokens_per_minute, found.max_concurrency) == (1, 2, 3)
    assert (found.clamps_output, found.name, found.allowed_models) == (True, "search", models)


@pytest.mark.parametrize(
    ("headers", "is_one"),
    [
        ([(b"authorization", b"Bearer a.b.c")], True),
        ([(b"authorization", b"Basic x"), (b"authorization", b"Bearer a.b.c")], True),
        ([(b"x-api-key", b"a.b.c")], False),
        ([(b"authorization", b"Bearer a.b")], False),
        ([(b"authorization", b"Bearer a.b.c.d")], False),
    ],
)
def test_a_bearer_value_with_two_dots_may_be_a_token(headers: list[tuple[bytes, bytes]], is_one: bool) -> None:
    assert is_token(read(headers), headers) is is_one
