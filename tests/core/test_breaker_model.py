"""The breaker under any sequence of events: callers race, answers come late or never, time jumps."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nexus_gateway.core.breaker import PERIOD_JITTER, Breaker, Outcome, Permit, State

LONGEST_S = 20.0  # that an attempt may take

LEGAL = {
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.HALF_OPEN),
    (State.HALF_OPEN, State.OPEN),
    (State.HALF_OPEN, State.CLOSED),
}
ALIVE = (Outcome.SUCCESS, Outcome.REJECTED)
HEARD = (State.OPEN, State.CLOSED)  # by the probe of somebody else alone


class Racing(RuleBasedStateMachine):
    """Knows what the laws need: who holds a permit of which period, and how many failed in a row in this one."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.state = State.CLOSED
        self.period = 0  # grows with every change of state but open to half-open
        self.in_a_row = 0
        self.told: list[tuple[State, State]] = []
        self.held: list[tuple[Permit, int]] = []
        self.forced_until_s = 0.0
        self.hears_of_recovery = False

    @initialize(max_failures=st.integers(1, 4), reset_s=st.sampled_from([0.5, 5.0, 30.0]), roll=st.floats(0, 0.99))
    def begin(self, max_failures: int, reset_s: float, roll: float) -> None:
        self.max_failures, self.reset_s = max_failures, reset_s
        self.breaker = Breaker(max_failures, reset_s, lambda: roll, self.hear)

    def hear(self, before: State, after: State) -> None:
        assert before is self.state
        assert (before, after) in LEGAL or (self.hears_of_recovery and (before, after) == HEARD)
        self.told.append((before, after))
        self.state = after
        if after is not State.HALF_OPEN:
            self.period += 1
            self.in_a_row = 0

    def probes(self) -> list[Permit]:
        """Probes whose answer may still come in time."""
        return [
            permit
            for permit, period in self.held
            if permit.is_probe and period == self.period and permit.deadline_s > self.now_s
        ]

    @rule(passed_s=st.one_of(st.floats(0, 3), st.floats(0, 100)))
    def wait(self, passed_s: float) -> None:
        self.now_s += passed_s

    @rule(callers=st.sampled_from([1, 2, 500]), takes_s=st.floats(0.1, LONGEST_S))
    def knock(self, callers: int, takes_s: float) -> None:
        wait_s = self.breaker.wait_s(self.now_s)
        out = len(self.probes())
        permits = [self.breaker.acquire(self.now_s, self.now_s + takes_s) for _ in range(callers)]
        given = [permit for permit in permits if permit is not None]
        assert (wait_s == 0) == bool(given), "a wait of 0 promises a permit, any other none"
        if self.state is State.CLOSED:
            assert len(given) == callers
        else:
            assert len(given) == (1 if self.state is State.HALF_OPEN and not out else 0)
        self.held += [(permit, self.period) for permit in given[:3]]
        for permit in given[3:]:
            self.breaker.settle(permit, Outcome.NEUTRAL, self.now_s)

    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        if not self.held:
            return
        self.breaker.wait_s(self.now_s)
        permit, period = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        before, changes = self.breaker.snapshot(self.now_s), len(self.told)
        is_current = period == self.period
        is_probe = permit.is_probe and self.state is State.HALF_OPEN
        lived = self.breaker.last_sign_of_life_s > permit.acquired_s
        failed = outcome is Outcome.FAILURE or (outcome is Outcome.TIMED_OUT and not lived)
        if is_current and failed:
            self.in_a_row += 1
        elif is_current and outcome is Outcome.SUCCESS:
            self.in_a_row = 0
        trips = self.in_a_row >= self.max_failures
        self.breaker.settle(permit, outcome, self.now_s)
        changed = self.told[changes:]
        if not is_current:
            assert self.breaker.snapshot(self.now_s) == before, "what is from before changes nothing"
        elif is_probe:
            assert (
                changed
                == {
                    True: [(State.HALF_OPEN, State.OPEN)],
                    False: [(State.HALF_OPEN, State.CLOSED)] if outcome in ALIVE else [],
                }[failed]
            )
            if outcome is Outcome.REJECTED:
                self.in_a_row = self.max_failures - 1
        elif permit.is_probe and before.share < 1.0:
            assert changed == ([(State.CLOSED, State.OPEN)] if failed else [])
        else:
            assert changed == ([(State.CLOSED, State.OPEN)] if trips else [])
        if changed and changed[-1][1] is State.OPEN:
            wait_s = self.breaker.wait_s(self.now_s)
            assert self.reset_s * (1 - PERIOD_JITTER) - 1e-6 <= wait_s <= self.reset_s + 1e-6

    @rule(data=st.data())
    def begin_to_answer(self, data: st.DataObject) -> None:
        if not self.held:
            return
        self.breaker.wait_s(self.now_s)
        place = data.draw(st.integers(0, len(self.held) - 1))
        permit, period = self.held[place]
        before = self.breaker.snapshot(self.now_s)
        closes = before.state is State.HALF_OPEN and period == self.period
        self.breaker.vouch(permit, self.now_s)
        if closes:
            assert self.state is State.CLOSED
            self.held[place] = permit, self.period
        else:
            assert self.breaker.snapshot(self.now_s) == before

    @rule(ahead_s=st.floats(0.1, 50))
    def hear_from_elsewhere(self, ahead_s: float) -> None:
        self.breaker.force_open_until(self.now_s + ahead_s, self.now_s)
        self.forced_until_s = max(self.forced_until_s, self.now_s + ahead_s)
        assert self.breaker.wait_s(self.now_s) >= ahead_s - 1e-6

    @rule()
    def hear_of_recovery(self) -> None:
        before, changes = self.breaker.snapshot(self.now_s), len(self.told)
        self.hears_of_recovery = True
        self.breaker.force_close(self.now_s)
        self.hears_of_recovery = False
        if before.state is State.CLOSED:
            assert self.breaker.snapshot(self.now_s) == before
        else:
            assert self.told[changes:] == [(before.state, State.CLOSED)]
            assert self.breaker.share(self.now_s) < 1

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        assert len(self.probes()) <= 1

    @invariant()
    def a_request_that_tells_nothing_changes_nothing(self) -> None:
        if not hasattr(self, "breaker"):
            return
        before = self.breaker.snapshot(self.now_s)
        permit = self.breaker.acquire(self.now_s, self.now_s + 1)
        if permit is not None:
            self.breaker.settle(permit, Outcome.NEUTRAL, self.now_s)
        assert self.breaker.snapshot(self.now_s) == before

    def teardown(self) -> None:
        """From any state, time and successes close it: no permit is lost for good, whoever hangs."""
        if not hasattr(self, "breaker"):
            return
        self.now_s = max(self.now_s + LONGEST_S + self.reset_s, self.forced_until_s) + 1e-6
        permit = self.breaker.acquire(self.now_s, self.now_s + 1)
        assert permit is not None
        self.breaker.settle(permit, Outcome.SUCCESS, self.now_s)
        assert self.breaker.snapshot(self.now_s).state is State.CLOSED
        assert self.breaker.share(self.now_s + self.breaker.ramp_s + 1e-6) == 1.0


Racing.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRacing = Racing.TestCase
