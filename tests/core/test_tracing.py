"""Laws of what is taken from a caller's trace, and of what is told of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.tracing import SAMPLED, TRACEPARENT, TRACESTATE, Place, Sampling, place_of, take_trace

PLACES = st.builds(Place, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = st.sampled_from([b"traceparent", b"tracestate", b"accept", b"x-tenant"])
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([GOOD, b"a=1", b"b=2", b"nonsense"])), max_size=8)


@given(place=PLACES)
def test_what_is_told_is_what_is_read(place: Place) -> None:
    name, value = place.header()
    assert name == TRACEPARENT
    assert place_of(value) == place


@given(value=st.binary(max_size=70))
def test_whatever_is_sent_is_read_or_refused(value: bytes) -> None:
    place_of(value)


@given(place=PLACES, at=st.integers(0, 54), byte=st.integers(0, 255))
def test_a_slip_anywhere_never_leads_to_an_id_of_another_length(place: Place, at: int, byte: int) -> None:
    value = bytearray(place.header()[1])
    value[at] = byte
    found = place_of(bytes(value))
    assert found is None or b"%032x-%016x-%02x" % (found.trace_id, found.span_id, found.flags) == value[3:]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD[:-1],
        GOOD + b"0",
        GOOD + b"-more",  # version 00 has no more
        GOOD.upper(),
        b"ff" + GOOD[2:],
        b"00-" + b"0" * 32 + GOOD[35:],
        GOOD[:36] + b"0" * 16 + GOOD[52:],
        GOOD.replace(b"-", b"_"),
        GOOD + b"\n",
    ],
)
def test_what_the_standard_calls_invalid_is_nobodys_trace(value: bytes) -> None:
    assert place_of(value) is None


def test_a_later_version_may_say_more() -> None:
    assert place_of(b"01" + GOOD[2:] + b"-more") == place_of(GOOD) == place_of(b"cc" + GOOD[2:])


@given(headers=FIELDS)
def test_all_else_passes_in_its_order_and_a_state_only_with_its_parent(headers: list[tuple[bytes, bytes]]) -> None:
    rest, parent = take_trace(headers)
    parents = [value for name, value in headers if name == TRACEPARENT]
    assert (parent is not None) == (parents == [GOOD])
    assert [field for field in rest if field[0] != TRACESTATE] == [
        field for field in headers if field[0] not in (TRACEPARENT, TRACESTATE)
    ]
    states = [field for field in rest if field[0] == TRACESTATE]
    assert states == ([] if parent is None else [field for field in headers if field[0] == TRACESTATE])


@given(trace_id=st.integers(1, 2**128 - 1), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_share_takes_all_that_a_smaller_one_takes(trace_id: int, shares: tuple[float, float]) -> None:
    smaller, larger = (Sampling(share).takes(trace_id, None) for share in sorted(shares))
    assert larger or not smaller


@given(trace_id=st.integers(1, 2**128 - 1), parent=PLACES)
def test_all_is_all_and_nothing_is_nothing(trace_id: int, parent: Place) -> None:
    for whose in (None, parent):
        assert Sampling(1.0, heeds_parent=False).takes(trace_id, whose)
        assert not Sampling(0.0, heeds_parent=False).takes(trace_id, whose)


@given(trace_id=st.integers(1, 2**128 - 1), parent=PLACES, share=st.floats(0, 1))
def test_a_caller_who_has_decided_is_followed(trace_id: int, parent: Place, share: float) -> None:
    assert Sampling(share).takes(trace_id, parent) == bool(parent.flags & SAMPLED)


def test_the_share_is_the_share_of_evenly_spread_ids() -> None:
    taken = sum(Sampling(0.25).takes((at << 64) | (at * 2**64 // 1000), None) for at in range(1000))
    assert taken == 250
