"""Tokens that were good are remembered, never past their end, and never too many."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.model import Principal
from nexus_gateway.core.verified import VerifiedTokens

ALICE = Principal("jwt:alice", None)
DIGESTS = st.sampled_from([bytes([n]) * 32 for n in range(8)])
STEPS = st.lists(st.tuples(DIGESTS, st.floats(0, 50), st.floats(0, 5)), max_size=60)


@given(steps=STEPS, capacity=st.integers(1, 4))
def test_none_outlives_its_end_and_memory_is_bounded(steps: list[tuple[bytes, float, float]], capacity: int) -> None:
    tokens, ends, now = VerifiedTokens(capacity), dict[bytes, float](), 0.0
    for digest, until, passed in steps:
        now += passed
        assert tokens.find(digest, now) is None or now < ends[digest]
        tokens.keep(digest, ALICE, until, now)
        if now < until:
            ends[digest] = until
            assert tokens.find(digest, now) is ALICE
        assert len(tokens) <= capacity
    assert all(tokens.find(digest, max(ends.values(), default=0)) is None for digest in ends)


def test_the_ones_in_use_stay() -> None:
    tokens = VerifiedTokens(2)
    tokens.keep(b"a", ALICE, 10, 0)
    tokens.keep(b"b", ALICE, 10, 0)
    assert tokens.find(b"a", 1)
    tokens.keep(b"c", ALICE, 10, 1)
    assert tokens.find(b"a", 1)
    assert tokens.find(b"b", 1) is None


def test_when_keys_change_all_are_forgotten() -> None:
    tokens = VerifiedTokens()
    tokens.keep(b"a", ALICE, 10, 0)
    tokens.clear()
    assert tokens.find(b"a", 0) is None
