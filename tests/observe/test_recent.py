"""Rates and latencies of the last minutes, worked out of counts that only ever grow."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.observe.recent import SAMPLES, Recent, Totals, quantile_s
from nexus_gateway.observe.tally import SECONDS

NOTHING = (0,) * (len(SECONDS) + 1)
SLOW, FAST = SECONDS.index(10.0), SECONDS.index(0.1)


class Counted:
    """A gateway's counts, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.answered = self.failed = 0
        self.answers = list(NOTHING)

    def totals(self) -> Totals:
        return Totals(
            in_flight=3,
            answered=self.answered,
            refused=0,
            failed=self.failed,
            left=0,
            prompt_tokens=10 * self.answered,
            completion_tokens=20 * self.answered,
            first_bytes=NOTHING,
            answers=tuple(self.answers),
            attempts={"m": (self.answered + self.failed, self.failed)},
        )

    def callers(self) -> dict[str, tuple[int, int]]:
        return {"team": (self.answered, 30 * self.answered)} if self.answered else {}

    def answer(self, count: int, bucket: int = FAST) -> None:
        self.answered += count
        self.answers[bucket] += count


def begun() -> tuple[Counted, Recent]:
    counted = Counted()
    return counted, Recent(counted.totals, counted.callers, lambda: counted.now_s)


def test_what_has_just_happened_is_told_before_the_next_sample() -> None:
    counted, recent = begun()
    counted.now_s += 1
    counted.answer(3)
    counted.failed += 1
    lately = recent.tell()["lately"]
    assert (lately["seconds"], lately["answered"], lately["failed"]) == (1, 3, 1)
    assert (lately["prompt_tokens"], lately["completion_tokens"]) == (30, 60)
    assert lately["upstreams"] == {"m": {"attempts": 4, "failed": 1}}
    assert lately["first_byte_s"] == {"p50": None, "p95": None, "p99": None}


def test_only_the_last_minute_counts_as_lately() -> None:
    counted, recent = begun()
    counted.answer(1000, bucket=SLOW)
    for _ in range(60):
        counted.now_s += 2
        recent.sample()
        counted.answer(1)
    told = recent.tell()
    assert told["lately"]["answered"] == 31
    assert told["lately"]["answer_s"]["p99"] <= 0.1  # those of before are forgotten
    assert told["series"][0]["answered"] == 1000
    assert sum(each["answered"] for each in told["series"]) == 1059


def test_what_a_caller_asked_for_is_told_of_a_minute_and_its_beginning() -> None:
    counted, recent = begun()
    assert recent.tell_callers() == (0, {})
    counted.answer(1000)
    counted.now_s += 1
    assert recent.tell_callers() == (1, {"team": (1000, 30_000)})
    for _ in range(120):
        counted.now_s += 2
        recent.sample()
        counted.answer(1)
    seconds, asked = recent.tell_callers()
    assert 60 <= seconds <= 70
    assert asked["team"][0] in (seconds / 2, seconds / 2 + 1)


def test_memory_is_bounded_and_a_pause_of_the_clock_does_no_harm() -> None:
    counted, recent = begun()
    for _ in range(10 * SAMPLES):
        counted.now_s += 2
        recent.sample()
    assert len(recent.tell()["series"]) == SAMPLES - 1
    counted.now_s += 3600  # the machine slept
    counted.answer(5)
    assert recent.tell()["lately"]["answered"] == 5


@given(counts=st.lists(st.integers(0, 50), min_size=len(SECONDS), max_size=len(SECONDS)), share=st.floats(0.01, 1.0))
def test_a_quantile_has_its_share_of_the_observations_below_it(counts: list[int], share: float) -> None:
    total = sum(counts)
    found_s = quantile_s([*counts, 0], share)
    assert (found_s is None) == (total == 0)
    if found_s is not None:
        buckets = list(zip(counts, (0.0, *SECONDS), SECONDS, strict=False))
        assert sum(count for count, _, upper_s in buckets if upper_s < found_s) <= share * total
        assert sum(count for count, lower_s, _ in buckets if lower_s >= found_s) <= (1 - share) * total + 1e-6


def test_what_lies_beyond_the_last_bound_is_told_as_that() -> None:
    assert quantile_s([*NOTHING[:-1], 7], 0.5) == SECONDS[-1]
