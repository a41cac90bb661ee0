"""Which of two replicas is less busy: requests in flight and the time to the first token.

For:      the strategy `balanced`.
Touches:  nothing. The caller brings the clock; the dice drew the two.

Of two replicas drawn at random the better one gets the request: nearly as even as asking all, without the herd that
follows when everybody finds the same best one (M. Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing", IEEE TPDS 12:10, 2001). Better is the smaller cost: (in flight + 1) x time to the first token / weight. The
time is a peak-sensitive moving average as in Finagle's `PeakEwma` and tower's `load::peak_ewma`: a slower answer
counts in full at once, a faster one little by little.

Those let an estimate decay to nothing while no answers come, and give a new replica a fixed one. Then, after a quiet
hour, the replica that has been idle for longest looks free and is flooded; and what is fixed is wrong for models a
hundred times slower or faster. Here it is confidence that decays: an estimate that nobody has renewed moves towards
the other replica's, and one that never was is the other's. So a new or forgotten replica gets what its requests in
flight allow: neither nothing nor everything.
"""

from dataclasses import dataclass
from math import exp
from typing import Final

DECAY_S: Final = 10.0  # after which an observation counts for 1/e
LEAST_S: Final = 0.001  # below it, differences are the network's
_NOTHING: Final = 1e-9  # confidence after more than three minutes of silence
TIE: Final = 1.1  # costs within 10 % are equal: the first one drawn wins, which is as good as a coin


@dataclass(slots=True)
class Load:
    """What is under way at one replica, and how long a first token takes there."""

    in_flight: int = 0
    first_token_s: float | None = None  # None: not seen yet
    seen_at_s: float = 0.0

    def observe(self, first_token_s: float, now_s: float) -> None:
        """An answer began after `first_token_s`. Failures do not count: refusing is fast."""
        seen_s = max(first_token_s, LEAST_S)
        if self.first_token_s is not None and seen_s < self.first_token_s:
            kept = exp(-max(now_s - self.seen_at_s, 0.0) / DECAY_S)
            seen_s += (self.first_token_s - seen_s) * kept
        self.first_token_s = seen_s
        self.seen_at_s = now_s

    def confidence(self, now_s: float) -> float:
        """1 just after an observation, then ever less; 0 before the first."""
        if self.first_token_s is None:
            return 0.0
        return exp(-max(now_s - self.seen_at_s, 0.0) / DECAY_S)


def prefers_first(
    first: Load, second: Load, now_s: float, first_weight: float = 1.0, second_weight: float = 1.0
) -> bool:
    """Whether the first of two replicas should get the next request. A weight is what a replica can take at once."""
    first_s, second_s = _estimates(first, second, now_s)
    first_cost = (first.in_flight + 1) * first_s * second_weight
    return first_cost <= (second.in_flight + 1) * second_s * first_weight * TIE


def _estimates(first: Load, second: Load, now_s: float) -> tuple[float, float]:
    """Times to the first token, each as far as it is known and for the rest what is known of both."""
    trust, other_trust = first.confidence(now_s), second.confidence(now_s)
    known = trust + other_trust
    if known < _NOTHING:
        return 1.0, 1.0
    first_s, second_s = first.first_token_s or 0.0, second.first_token_s or 0.0
    common_s = (trust * first_s + other_trust * second_s) / known
    return common_s + trust * (first_s - common_s), common_s + other_trust * (second_s - common_s)
