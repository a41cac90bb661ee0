"""How observations are spread: a histogram in plain integers.

For:      counting on the request path, where the library's own histogram would take a lock for every step.
Touches:  nothing.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

SECONDS: Final = tuple(
    map(float, (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600))
)
"""From an answer out of a cache to a stream that lasts as long as it may."""

TOKEN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
"""Per token: people read at about 0.05."""

SHORT_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""What the gateway itself takes; a second of it is an incident."""


class Tally:
    """How many observations fell at or below each bound, and their sum. `counts` has one more, for what lies above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> Sequence[tuple[str, float]]:
        """Cumulative, as the exposition wants them."""
        so_far = 0
        cumulative: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            cumulative.append((bound, so_far))
        return cumulative
