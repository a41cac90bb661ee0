"""The share of errors is the one asked for, in every stretch of requests."""

import math

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.mock.faults import ErrorShare


@given(rate=st.floats(0, 1), seed=st.integers(0, 2**62), skipped=st.integers(0, 500), count=st.integers(1, 1000))
def test_every_stretch_has_its_share(rate: float, seed: int, skipped: int, count: int) -> None:
    share = ErrorShare(rate, seed)
    for _ in range(skipped):
        share.draw()
    errors = sum(share.draw() for _ in range(count))
    assert abs(errors - rate * count) <= 3 + math.log2(count)


@given(seed=st.integers(0, 2**62))
def test_none_and_all_are_exact_and_a_seed_repeats_itself(seed: int) -> None:
    def draws(rate: float) -> list[bool]:
        share = ErrorShare(rate, seed)
        return [share.draw() for _ in range(200)]

    assert not any(draws(0.0))
    assert all(draws(1.0))
    assert draws(0.3) == draws(0.3)


def test_seeds_differ() -> None:
    assert len({tuple(share.draw() for _ in range(20)) for share in (ErrorShare(0.5, seed) for seed in range(9))}) > 4
