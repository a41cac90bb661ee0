"""Exact shares: who gets which part of the requests, or of the callers.

For:      splitting traffic as the configuration says, not as luck has it.
Touches:  nothing.

Requests are split by a low-discrepancy sequence: `roll_of(0), roll_of(1), …` fills [0, 1) so evenly that of any 10,000
successive values an interval gets its share, give or take two, and is off by a few at most after any number of them.
Independent dice would be off by 30. Every route counts for itself, so that routes that are called in turns do not take
each other's values.

Callers are split by weighted rendezvous hashing: each target scores -weight / ln(h) with its own hash h of the caller,
and the highest score wins. Shares hold over many callers; a caller moves only to a target whose weight has grown
against its own, or away from one that is not there.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import log
from typing import Final

import msgspec

CYCLE: Final = 10_000  # rolls after which every 1/10,000 of [0, 1) has had exactly one
_STEP: Final = 6181  # next to CYCLE / golden ratio and coprime to CYCLE: the steps of a golden rotation
_GOLDEN: Final = 0.6180339887498949  # places each cycle's rolls elsewhere within their cells

_MASK: Final = (1 << 64) - 1
_HASHES: Final = float(1 << 52)  # as many as a float tells apart, halves included


def roll_of(count: int) -> float:
    """The `count`-th value (from 0 or any other start) of the sequence, in [0, 1).

    A rotation by a fraction near the golden ratio: three-distance theorem (V. T. Sós, 1958). Being a rotation, also
    every second or tenth value is spread evenly: two clients that take turns both see the shares.
    """
    cycle, place = divmod(count, CYCLE)
    return (place * _STEP % CYCLE + (0.5 + cycle * _GOLDEN) % 1.0) / CYCLE


class Shares(msgspec.Struct, frozen=True):
    """Who may be drawn, and in what proportion. `ends` are the running sums of `weights`, all above 0."""

    members: Sequence[int]
    weights: Sequence[float]
    ends: Sequence[float]

    @classmethod
    def of(cls, weights: Sequence[float]) -> "Shares":
        """Members are the positions of the weights; 0 means never."""
        members = [member for member, weight in enumerate(weights) if weight > 0]
        kept = [float(weights[member]) for member in members]
        return cls(members, kept, list(accumulate(kept)))

    def without(self, absent: Collection[int]) -> "Shares":
        """The proportions of the rest stay as they are."""
        rest = [
            (member, weight) for member, weight in zip(self.members, self.weights, strict=True) if member not in absent
        ]
        weights = [weight for _, weight in rest]
        return Shares([member for member, _ in rest], weights, list(accumulate(weights)))

    def draw(self, roll: float) -> tuple[int, int]:
        """Two different members (the same one twice if there is no other), each as likely as its weight says.

        Where the roll falls within the interval of the first is a roll of its own: it draws the second.
        """
        ends, members = self.ends, self.members
        last = len(ends) - 1
        if last == 0:
            return members[0], members[0]
        at = roll * ends[last]
        first = min(bisect_right(ends, at), last)
        weight = self.weights[first]
        begin = ends[first] - weight
        at = (at - begin) / weight * (ends[last] - weight)
        second = min(bisect_right(ends, at if at < begin else at + weight), last)
        if second == first:  # the rounding of floats
            second = first - 1 if first else 1
        return members[first], members[second]


class Rendezvous:
    """Ranks targets by caller. `salt` keeps the rankings of different routes apart.

    Source: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates", 1998; with weights:
    J. Resch, "New hashing algorithms for data storage", 2015.
    """

    __slots__ = ("_seeds",)

    def __init__(self, salt: str, names: Sequence[str]) -> None:
        self._seeds = tuple(_halves(f"{salt}\0{name}") for name in names)

    def draw(self, shares: Shares, key: str) -> tuple[int, int]:
        """The caller's own member and the one that stands in for it (the same one twice if there is no other)."""
        high, low = _halves(key)
        seeds = self._seeds
        first = second = shares.members[0]
        best = runner_up = 0.0
        for member, weight in zip(shares.members, shares.weights, strict=True):
            seed_high, seed_low = seeds[member]
            product = (high ^ seed_high) * (low ^ seed_low)  # folded below: the mixing step of wyhash
            score = -weight / log(((((product ^ product >> 64) & _MASK) >> 12) + 0.5) / _HASHES)
            if score > best:
                second, runner_up = first, best
                first, best = member, score
            elif score > runner_up:
                second, runner_up = member, score
        return first, second


def _halves(text: str) -> tuple[int, int]:
    """128 bits of a hash that is the same in every process and release."""
    digest = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")
    return digest >> 64, digest & _MASK
