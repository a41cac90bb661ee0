"""The last minutes of traffic, from what the metrics have counted anyway.

For:      `GET /admin/traffic`: rates, shares and latencies without a Prometheus at hand.
Touches:  the counts, by reading them every few seconds; nothing on the request path.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from .tally import SECONDS

EVERY_S: Final = 2.0  # between two samples
SAMPLES: Final = 151  # five minutes, and where they began
LATELY_S: Final = 60.0  # what a rate of "just now" is about
CALLERS_EVERY: Final = 5  # samples: there may be many callers, so what they asked for is kept less often
CALLERS_SAMPLES: Final = 7  # a minute, and where it began
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

ENDS: Final = ("answered", "refused", "failed", "left")
"""How a request can end. `refused`: 4xx. `failed`: 5xx, or a stream that broke off. `left`: the caller did."""


class Totals(msgspec.Struct, frozen=True):
    """Counted since the start, but for `in_flight`.

    `first_bytes` of streams and `answers` (of upstreams, plain ones) are observations per bound of SECONDS and, last,
    beyond them. `attempts`: by upstream, all of them and those that failed.
    """

    in_flight: int
    answered: int
    refused: int
    failed: int
    left: int
    prompt_tokens: int
    completion_tokens: int
    first_bytes: tuple[int, ...]
    answers: tuple[int, ...]
    attempts: Mapping[str, tuple[int, int]]


Callers = Mapping[str, tuple[int, int]]  # requests and tokens since the start, by the caller's label

COUNTS: Final = (*ENDS, "prompt_tokens", "completion_tokens")


class Recent:
    """Keeps samples of the totals while `watch` runs; whoever owns tasks owns it."""

    def __init__(
        self, totals: Callable[[], Totals], callers: Callable[[], Callers], clock: Callable[[], float]
    ) -> None:
        self._totals = totals
        self._callers = callers
        self._clock = clock
        self._samples: deque[tuple[float, Totals]] = deque(maxlen=SAMPLES)
        self._callers_samples: deque[tuple[float, Callers]] = deque(maxlen=CALLERS_SAMPLES)
        self._taken = 0
        self.sample()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self.sample()

    def sample(self) -> None:
        now_s = self._clock()
        self._samples.append((now_s, self._totals()))
        if self._taken % CALLERS_EVERY == 0:
            self._callers_samples.append((now_s, self._callers()))
        self._taken += 1

    def tell_callers(self) -> tuple[float, Callers]:
        """What each caller asked for lately, and in how many seconds that was: some 60 to 70, or since the start."""
        began_s, then = self._callers_samples[0]
        counted = {label: _less(counts, then.get(label)) for label, counts in self._callers().items()}
        return self._clock() - began_s, {label: (requests, tokens) for label, (requests, tokens) in counted.items()}

    def tell(self) -> dict[str, Any]:
        """`lately` is the last minute up to now; `series` are the differences between samples, the oldest first."""
        now_s, now = self._clock(), self._totals()
        began_s, then = next((sample for sample in self._samples if sample[0] >= now_s - LATELY_S), self._samples[-1])
        return {
            "in_flight": now.in_flight,
            "lately": {
                "seconds": round(now_s - began_s, 3),
                **_differences(then, now),
                "first_byte_s": quantiles_s(_less(now.first_bytes, then.first_bytes)),
                "answer_s": quantiles_s(_less(now.answers, then.answers)),
                "upstreams": {
                    name: dict(zip(("attempts", "failed"), _less(counts, then.attempts.get(name)), strict=True))
                    for name, counts in now.attempts.items()
                },
            },
            "series": [
                {"age_s": round(now_s - at_s, 3), "seconds": round(at_s - before_s, 3), **_differences(before, after)}
                for (before_s, before), (at_s, after) in pairwise(self._samples)
            ],
        }


def quantiles_s(counts: Sequence[int]) -> dict[str, float | None]:
    return {name: quantile_s(counts, share) for name, share in QUANTILES.items()}


def quantile_s(counts: Sequence[int], share: float) -> float | None:
    """The latency that `share` of the observations stay below, as Prometheus works it out: evenly within a bucket, and
    at most the last bound. None where nothing was observed."""
    total = sum(counts)
    if total == 0:
        return None
    rank, below, lower_s = share * total, 0, 0.0
    for count, upper_s in zip(counts, SECONDS, strict=False):
        if count and below + count >= rank:
            return lower_s + (upper_s - lower_s) * (rank - below) / count
        below += count
        lower_s = upper_s
    return SECONDS[-1]


def _differences(before: Totals, after: Totals) -> dict[str, int]:
    return {name: getattr(after, name) - getattr(before, name) for name in COUNTS}


def _less(after: Sequence[int], before: Sequence[int] | None) -> Sequence[int]:
    return after if before is None else [now - then for now, then in zip(after, before, strict=True)]
