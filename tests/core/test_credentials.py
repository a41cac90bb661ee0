"""One credential per request, from any of three headers, known by digest only."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.credentials import KeyRing, key_id_of, read_credential
from nexus_gateway.core.errors import Unauthenticated
from nexus_gateway.core.model import Principal

keys = st.binary(min_size=1, max_size=40).filter(lambda key: key == key.strip())


def headers_of(key: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key), (b"x-api-key", key), (b"api-key", key)]


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
    ring = KeyRing({digest: Principal(key_id_of(digest), None)})
    if tried == known:
        assert ring.find(tried).key_id == f"key-{digest.hex()[:8]}"
    else:
        with pytest.raises(Unauthenticated):
            ring.find(tried)
