"""Laws of balancing, and how replicas fare under a simulated crowd."""

from collections import Counter
from heapq import heappop, heappush

from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.core.balance import DECAY_S, LEAST_S, TIE, Load, prefers_first
from nexus_gateway.core.shares import Shares, roll_of

TIMES_S = st.floats(0.001, 60)
SEEN = st.lists(st.tuples(TIMES_S, st.floats(0, 30)), max_size=20)  # time to the first token, time since the last one


def load_of(seen: list[tuple[float, float]], in_flight: int = 0) -> tuple[Load, float]:
    """A load and the instant of its last observation."""
    load, now_s = Load(in_flight), 0.0
    for first_token_s, gap_s in seen:
        now_s += gap_s
        load.observe(first_token_s, now_s)
    return load, now_s


@given(seen=SEEN, slow_s=TIMES_S)
def test_a_slower_answer_counts_in_full_at_once(seen: list[tuple[float, float]], slow_s: float) -> None:
    load, now_s = load_of(seen)
    before_s = load.first_token_s or 0.0
    load.observe(slow_s, now_s + 1)
    assert load.first_token_s is not None
    assert load.first_token_s >= slow_s
    assert load.first_token_s <= max(before_s, slow_s)


@given(fast_s=TIMES_S, above_s=TIMES_S, gap_s=st.floats(0.1, 5))
def test_faster_ones_win_over_with_the_time_constant(fast_s: float, above_s: float, gap_s: float) -> None:
    load, now_s = load_of([(fast_s + above_s, 0.0)])
    while now_s < 3 * DECAY_S:
        now_s += gap_s
        load.observe(fast_s, now_s)
    assert load.first_token_s is not None
    assert fast_s - 1e-9 <= load.first_token_s <= fast_s + above_s * 0.05 + 1e-9, "e^-3 of the difference is left"


@given(seen=SEEN.filter(bool), other=SEEN.filter(bool), idle_s=st.floats(0, 1e9), busy=st.integers(0, 50))
def test_at_equal_speed_or_without_any_knowledge_the_less_busy_one_is_preferred(
    seen: list[tuple[float, float]], other: list[tuple[float, float]], idle_s: float, busy: int
) -> None:
    known, now_s = load_of(seen, busy)
    for stranger in (Load(busy + 10), Load(busy, known.first_token_s, known.seen_at_s)):
        stranger.in_flight = busy + busy // 5 + 1
        assert prefers_first(known, stranger, now_s + idle_s)
        assert not prefers_first(stranger, known, now_s + idle_s)
    forgotten, later_s = load_of(other, busy + busy // 5 + 1)
    long_ago_s = max(now_s, later_s) + 60 * DECAY_S
    assert prefers_first(known, forgotten, long_ago_s)
    assert not prefers_first(forgotten, known, long_ago_s)


@given(
    seen=SEEN,
    other=SEEN,
    flights=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    weights=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    idle_s=st.floats(0, 1e6),
)
def test_one_of_two_is_always_preferred_and_by_little_both(
    seen: list[tuple[float, float]],
    other: list[tuple[float, float]],
    flights: tuple[int, int],
    weights: tuple[float, float],
    idle_s: float,
) -> None:
    (first, first_s), (second, second_s) = load_of(seen, flights[0]), load_of(other, flights[1])
    now_s = max(first_s, second_s) + idle_s
    assert prefers_first(first, second, now_s, *weights) or prefers_first(second, first, now_s, *reversed(weights))
    assert prefers_first(first, first, now_s)


@given(st.integers(0, 100), st.integers(1, 10))
def test_a_weight_is_what_a_replica_takes_at_once(in_flight: int, weight: int) -> None:
    heavy, light = Load(weight * (in_flight + 1) - 1), Load(in_flight)
    assert prefers_first(heavy, light, 0.0, float(weight), 1.0)
    assert prefers_first(light, heavy, 0.0, 1.0, float(weight))
    heavy.in_flight = int(heavy.in_flight * TIE + 2)
    assert not prefers_first(heavy, light, 0.0, float(weight), 1.0)


def test_an_answer_in_no_time_is_not_free() -> None:
    instant = Load()
    instant.observe(0.0, 0.0)
    assert instant.first_token_s == LEAST_S


# ---- a crowd


class Crowd:
    """Requests at a steady rate on replicas, each of which answers after a fixed time per request in flight."""

    def __init__(self, service_s: list[float], rate_per_s: float) -> None:
        self.service_s = service_s
        self.rate_per_s = rate_per_s
        self.loads = [Load() for _ in service_s]
        self.now_s = 0.0
        self.count = 0
        self.ends: list[tuple[float, int, float]] = []
        self.peaks = [0] * len(service_s)

    def run(self, seconds: float, present: list[int]) -> Counter[int]:
        """How many requests each replica got."""
        shares = Shares.of([1.0 if i in present else 0.0 for i in range(len(self.loads))])
        got: Counter[int] = Counter()
        for _ in range(int(seconds * self.rate_per_s)):
            self.now_s += 1 / self.rate_per_s
            self.finish()
            one, other = shares.draw(roll_of(self.count))
            self.count += 1
            chosen = one if prefers_first(self.loads[one], self.loads[other], self.now_s) else other
            load = self.loads[chosen]
            load.in_flight += 1
            took_s = self.service_s[chosen] * (1 + load.in_flight / 10)
            heappush(self.ends, (self.now_s + took_s, chosen, took_s))
            got[chosen] += 1
            self.peaks[chosen] = max(self.peaks[chosen], load.in_flight)
        return got

    def finish(self) -> None:
        while self.ends and self.ends[0][0] <= self.now_s:
            at_s, replica, took_s = heappop(self.ends)
            self.loads[replica].in_flight -= 1
            self.loads[replica].observe(took_s, at_s)


def test_equal_replicas_get_equal_parts() -> None:
    got = Crowd([0.2] * 4, rate_per_s=100).run(60, [0, 1, 2, 3])
    assert all(abs(times - 1500) < 150 for times in got.values())


def test_a_slow_replica_gets_little_but_is_never_forgotten() -> None:
    crowd = Crowd([0.1, 0.1, 0.1, 2.0], rate_per_s=100)
    got = crowd.run(60, [0, 1, 2, 3])
    assert 0 < got[3] < 0.1 * got[0]
    crowd.service_s[3] = 0.1
    crowd.run(30, [0, 1, 2, 3])
    again = crowd.run(60, [0, 1, 2, 3])
    assert again[3] > 0.75 * again[0], "it is back once it is fast again"


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([0.01, 0.2, 5.0]))
def test_a_new_replica_is_neither_starved_nor_flooded(service_s: float) -> None:
    crowd = Crowd([service_s] * 4, rate_per_s=10 / service_s)
    crowd.run(100 * service_s, [0, 1, 2])
    got = crowd.run(30 * service_s, [0, 1, 2, 3])
    assert crowd.peaks[3] <= 1.2 * max(crowd.peaks[:3]) + 1
    assert got[3] >= 0.2 * got.total()


def test_after_a_quiet_hour_nobody_is_flooded() -> None:
    crowd = Crowd([0.2] * 3, rate_per_s=100)
    crowd.run(30, [0, 1, 2])
    crowd.run(30, [1, 2])  # replica 0 has been idle for longer than the others
    crowd.now_s += 3600
    crowd.finish()
    crowd.peaks = [0] * 3
    got = crowd.run(0.2, [0, 1, 2])  # before the first of them is answered
    assert max(got.values()) - min(got.values()) <= 2
