"""Failures are counted per address, in bounded memory; what is behind a proxy is read from its trusted end only."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.forwarded import CAPACITY, HEADER, MAX_HOPS, MAX_REMEMBERED_BYTES, Clients, client_of
from nexus_gateway.core.guessing import MAX_ADDRESS, Guesses, source_of

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
ADDRESSES = st.ip_addresses().map(str)


@given(gaps_s=st.lists(st.floats(0, 40), max_size=60), limit=st.integers(1, 10))
def test_no_rolling_minute_holds_more_failures_than_the_limit(gaps_s: list[float], limit: int) -> None:
    guesses, now_s, counted_s = Guesses(limit), 1000.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        wait_s = guesses.fail("192.0.2.1", now_s)
        if wait_s == 0:
            counted_s.append(now_s)
        else:
            assert guesses.fail("192.0.2.1", now_s) == wait_s, "what was refused costs nothing"
    for i, start_s in enumerate(counted_s):
        assert sum(1 for at_s in counted_s[i:] if at_s - start_s < 60) <= limit


@given(failures=st.integers(1, 200), limit=st.integers(1, 60))
def test_the_wait_is_true(failures: int, limit: int) -> None:
    guesses = Guesses(limit)
    waits_s = [guesses.fail("192.0.2.1", 1000.0) for _ in range(failures)]
    assert all(wait_s == 0 for wait_s in waits_s[:limit])
    for wait_s in waits_s[limit:]:
        assert 60 <= wait_s <= 61
    if failures > limit:
        assert guesses.fail("192.0.2.1", 1000.0 + waits_s[-1]) == 0


@given(addresses=st.lists(st.one_of(ADDRESSES, st.text(), st.none()), max_size=200), capacity=st.integers(1, 20))
def test_memory_is_bounded_whoever_fails(addresses: list[str | None], capacity: int) -> None:
    guesses = Guesses(capacity=capacity)
    for at_s, address in enumerate(addresses):
        guesses.fail(address, at_s)
        assert len(guesses) <= capacity


def test_who_keeps_failing_is_not_forgotten_before_others() -> None:
    guesses = Guesses(limit=1, capacity=3)
    for n in range(50):
        guesses.fail("192.0.2.1", 1000.0)
        guesses.fail(f"198.51.100.{n}", 1000.0)
    assert guesses.fail("192.0.2.1", 1000.0) > 0


@given(network=st.integers(0, 2**64 - 1), one=st.integers(0, 2**64 - 1), other=st.integers(0, 2**64 - 1))
def test_a_64_is_one_guesser(network: int, one: int, other: int) -> None:
    first, second = (str(IPv6Address(network << 64 | host)) for host in (one, other))
    if IPv6Address(first).ipv4_mapped is None and IPv6Address(second).ipv4_mapped is None:
        assert source_of(first) == source_of(second)
        assert source_of(first) != source_of(str(IPv6Address(((network + 1) % 2**64) << 64)))


@given(number=st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_the_same_in_either_writing(number: int) -> None:
    address = IPv4Address(number)
    assert source_of(str(address)) == source_of(f"::ffff:{address}") == str(address)


@pytest.mark.parametrize(("address", "source"), [(None, ""), ("testclient", "testclient"), ("fe80::1%eth0", "fe80::")])
def test_what_is_no_address_is_a_guesser_too(address: str | None, source: str) -> None:
    assert source_of(address) == source
    assert len(source_of("x" * 1000)) == MAX_ADDRESS


# ---- behind proxies


def client(peer: str | None, *values: str) -> str | None:
    return Clients(TRUSTED).find(peer, [(HEADER, value.encode()) for value in values])


@pytest.mark.parametrize(
    ("peer", "values", "found"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("192.0.2.1", ["203.0.113.7"], "192.0.2.1"),
        ("testclient", ["203.0.113.7"], "testclient"),
        (None, ["203.0.113.7"], None),
    ],
)
def test_the_rightmost_hop_that_is_not_trusted(peer: str | None, values: list[str], found: str | None) -> None:
    assert client(peer, *values) == found


@given(invented=st.text(st.characters(codec="latin-1"), max_size=200))
def test_what_a_caller_writes_before_its_proxy_changes_nothing(invented: str) -> None:
    values = [(HEADER, invented.encode("latin-1")), (HEADER, b"203.0.113.7")]
    assert Clients(TRUSTED).find("10.0.0.1", values) == "203.0.113.7"


@given(value=st.binary(max_size=300))
def test_any_header_is_read(value: bytes) -> None:
    assert client_of("10.0.0.1", value, TRUSTED)


def test_hops_beyond_reason_are_not_read() -> None:
    assert client("10.0.0.1", ",".join(["203.0.113.7"] + ["10.0.0.2"] * (MAX_HOPS - 1))) == "203.0.113.7"
    assert client("10.0.0.1", ",".join(["203.0.113.7"] + ["10.0.0.2"] * MAX_HOPS)) == "10.0.0.2"


def test_without_trusted_proxies_the_header_is_not_looked_at() -> None:
    assert Clients(()).find("10.0.0.1", [(HEADER, b"203.0.113.7")]) == "10.0.0.1"


HOPS = st.lists(st.sampled_from([b"10.0.0.2", b"203.0.113.7", b"2001:db8::7", b"x"]), max_size=4).map(b", ".join)


@given(asked=st.lists(st.tuples(st.sampled_from(["10.0.0.1", "192.0.2.1", "x"]), HOPS), max_size=20))
def test_what_is_remembered_is_what_would_be_read(asked: list[tuple[str, bytes]]) -> None:
    clients = Clients(TRUSTED)
    for peer, hops in asked * 2:
        assert clients.find(peer, [(b"host", b"h"), (HEADER, hops)]) == client_of(peer, hops, TRUSTED)


def test_not_too_much_is_remembered() -> None:
    clients = Clients(TRUSTED)
    for n in range(CAPACITY + 10):
        clients.find("10.0.0.1", [(HEADER, b"203.0.113.7, %d" % n)])
        clients.find("10.0.0.1", [(HEADER, b"203.0.113.7" + b" " * MAX_REMEMBERED_BYTES + b"%d" % n)])
        assert len(clients) <= CAPACITY
