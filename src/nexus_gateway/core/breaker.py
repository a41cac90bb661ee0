"""One breaker per upstream: after failures in a row it keeps requests away, then lets one of them find out.

For:      deciding whether an upstream may be asked now, and learning from every answer exactly once.
Touches:  nothing. The caller brings the clock and the dice.

```
            max_failures in a row                     the open period is over
  CLOSED ───────────────────────────▶ OPEN ───────────────────────────▶ HALF-OPEN
    ▲  │                               ▲                                  │     │
    │  └── a success resets the count  └── the probe fails or hangs ──────┘     │
    └───────────────── the probe succeeds; a short ramp follows ────────────────┘
```

- Whoever sends holds a permit and settles it once; a permit of an earlier period (before the last opening or closing)
  changes nothing any more.
- Half-open, one permit at a time is out: the probe. It has a deadline; when that passes, it counts as failed, noticed
  or not, and the next period begins at that instant. So from any state time and successes alone lead to CLOSED.
- Time passes for a breaker when it is asked: it owns no timer.
- A probe whose request is refused closes it too: who refuses is alive, and one client's bad requests must not take the
  probe's place from everybody else. But it has not served anybody yet, so until it has, one failure opens it again.
- After closing, `share` grows linearly from RAMP_START to 1. It binds nobody: the plan leaves the rest of the requests
  to other upstreams if any can take them, and sends everything here if none can.

Source of the pattern: M. Nygard, "Release It!", chapter "Stability Patterns".
"""

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Final

import msgspec

from .errors import (
    StreamOvertime,
    UpstreamAuthError,
    UpstreamBusy,
    UpstreamError,
    UpstreamModelNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamStarting,
    UpstreamTimeout,
)

PERIOD_JITTER: Final = 0.2  # an open period is up to this much shorter, so that replicas do not probe in step
RAMP_PART: Final = 0.2  # of the reset time: what the jitter may have taken from the open period
MAX_RAMP_S: Final = 10.0
RAMP_START: Final = 0.1
PROBE_WAIT_S: Final = 1.0  # a wait for the probe that is out: nobody knows when it ends

_SETTLED: Final = -1  # generation of a permit that was given back


class State(Enum):
    """The value is the name that metrics and operators see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Outcome(Enum):
    """What an attempt tells about the upstream."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIMED_OUT = "timed out"  # a plain answer took too long: a failure only if the upstream gave no sign of life
    REJECTED = "rejected"  # the caller's own request is at fault: somebody read it, and nobody knows any more
    NEUTRAL = "neutral"  # nothing: the caller left, a 429


_NEUTRAL_KINDS: Final = (
    UpstreamRateLimited,  # a cooldown
    UpstreamBusy,  # our own bound; nothing was sent
    UpstreamStarting,  # it was given time for that
    UpstreamAuthError,  # misconfigured: it does not get better by waiting
    UpstreamModelNotFound,
    StreamOvertime,  # we ended it
)


def outcome_of(failure: UpstreamError, *, stream: bool) -> Outcome:
    """What a failed attempt says about its upstream. `stream`: the caller asked for a stream, so that a timeout was
    a wait for its first event or between two."""
    if isinstance(failure, UpstreamRejected):
        return Outcome.REJECTED
    if isinstance(failure, _NEUTRAL_KINDS):
        return Outcome.NEUTRAL
    if isinstance(failure, UpstreamTimeout) and not stream:
        return Outcome.TIMED_OUT
    return Outcome.FAILURE


class Permit(msgspec.Struct, gc=False):
    """Leave to send one request. `deadline_s` matters for a probe alone; `is_probe` stays true after it succeeded."""

    generation: int
    acquired_s: float
    deadline_s: float = inf
    is_probe: bool = False

    @property
    def is_settled(self) -> bool:
        return self.generation == _SETTLED


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """How a breaker stands. `wait_s`: until it may let a request through, 0 when it would now. `share`: of the ramp."""

    state: State
    failures: int
    wait_s: float
    share: float
    is_probing: bool


class Breaker:
    """`dice` gives a number in [0, 1). `told` hears of every change, from and to, while it happens.

    `last_sign_of_life_s` is the last instant at which the upstream gave anybody a head or an event; whoever reads from
    it writes it here.
    """

    __slots__ = (
        "_dice",
        "_failures",
        "_generation",
        "_max_failures",
        "_open_until_s",
        "_probe",
        "_ramp_since_s",
        "_reset_s",
        "_state",
        "_told",
        "last_sign_of_life_s",
        "ramp_s",
    )

    def __init__(
        self,
        max_failures: int,
        reset_s: float,
        dice: Callable[[], float],
        told: Callable[[State, State], None] | None = None,
    ) -> None:
        self._max_failures = max_failures
        self._reset_s = reset_s
        self._dice = dice
        self._told = told
        self._state = State.CLOSED
        self._failures = 0
        self._generation = 0
        self._open_until_s = -inf
        self._probe: Permit | None = None
        self._ramp_since_s: float | None = None
        self.ramp_s = min(reset_s * RAMP_PART, MAX_RAMP_S)
        self.last_sign_of_life_s = -inf

    @property
    def is_at_rest(self) -> bool:
        """Closed and past its ramp, as far as anybody has asked: every request is let through."""
        return self._state is State.CLOSED and self._ramp_since_s is None

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    def acquire(self, now_s: float, deadline_s: float) -> Permit | None:
        """Leave to send, or None. By `deadline_s` the attempt has an answer or has been given up."""
        if self._state is State.CLOSED:
            return Permit(self._generation, now_s)
        self._pass_time(now_s)
        if self._state is State.OPEN or self._probe is not None:
            return None
        self._probe = Permit(self._generation, now_s, deadline_s, is_probe=True)
        return self._probe

    def settle(self, permit: Permit, outcome: Outcome, now_s: float) -> None:
        """Give the permit back with what came of it. Again does nothing."""
        generation, permit.generation = permit.generation, _SETTLED
        if outcome is Outcome.SUCCESS:
            self.last_sign_of_life_s = now_s
        elif outcome is Outcome.TIMED_OUT:
            alive = self.last_sign_of_life_s > permit.acquired_s
            outcome = Outcome.NEUTRAL if alive else Outcome.FAILURE
        if self._state is State.HALF_OPEN:
            self._pass_time(now_s)
        if generation != self._generation:
            return
        if permit is self._probe:
            self._probe = None
            if outcome is Outcome.SUCCESS:
                self._close(now_s)
            elif outcome is Outcome.REJECTED:
                self._close(now_s)
                self._failures = self._max_failures - 1
            elif outcome is Outcome.FAILURE:
                self._open(now_s)
        elif outcome is Outcome.SUCCESS:
            self._failures = 0
        elif outcome is Outcome.FAILURE:
            self._failures += 1
            if self._failures >= self._max_failures or (permit.is_probe and self.share(now_s) < 1.0):
                self._open(now_s)

    def vouch(self, permit: Permit, now_s: float) -> None:
        """The first event of a stream came. A probe has done its work then and closes the breaker, for its stream may
        last for minutes; if it breaks while the ramp lasts, settling it with FAILURE opens the breaker again."""
        self.last_sign_of_life_s = now_s
        if permit is self._probe:
            self._pass_time(now_s)
        if permit is self._probe:
            self._probe = None
            self._close(now_s)
            permit.generation = self._generation

    def wait_s(self, now_s: float) -> float:
        """Seconds until a request may be let through, 0 if it would be now. Takes nothing."""
        if self._state is State.CLOSED:
            return 0.0
        self._pass_time(now_s)
        if self._state is State.OPEN:
            return self._open_until_s - now_s
        return 0.0 if self._probe is None else min(self._probe.deadline_s - now_s, PROBE_WAIT_S)

    def share(self, now_s: float) -> float:
        """Which part of the requests meant for this upstream should go there, while others can take the rest."""
        if self._ramp_since_s is None:
            return 1.0
        passed_s = now_s - self._ramp_since_s
        if passed_s >= self.ramp_s:
            self._ramp_since_s = None
            return 1.0
        return RAMP_START + (1.0 - RAMP_START) * max(passed_s, 0.0) / self.ramp_s

    def force_open_until(self, until_s: float, now_s: float) -> None:
        """Somebody else, such as another process, found the upstream down. Never shortens a period."""
        if until_s <= now_s:
            return
        self._pass_time(now_s)
        if self._state is State.OPEN:
            self._open_until_s = max(self._open_until_s, until_s)
        else:
            self._begin_period(until_s)

    def force_close(self, now_s: float) -> None:
        """Somebody else's probe succeeded: as if it had been our own. Closed, nothing changes."""
        if self._state is not State.CLOSED:
            self._probe = None
            self._close(now_s)

    def snapshot(self, now_s: float) -> Snapshot:
        wait_s, share = self.wait_s(now_s), self.share(now_s)
        return Snapshot(self._state, self._failures, wait_s, share, self._probe is not None)

    def _pass_time(self, now_s: float) -> None:
        while True:
            if self._state is State.OPEN and now_s >= self._open_until_s:
                self._enter(State.HALF_OPEN)
            probe = self._probe
            if probe is None or now_s < probe.deadline_s:
                return
            self._open(probe.deadline_s)

    def _open(self, at_s: float) -> None:
        self._begin_period(at_s + self._reset_s * (1.0 - PERIOD_JITTER * self._dice()))

    def _begin_period(self, until_s: float) -> None:
        self._open_until_s = until_s
        self._probe = None
        self._ramp_since_s = None
        self._renew()
        self._enter(State.OPEN)

    def _close(self, now_s: float) -> None:
        self._ramp_since_s = now_s
        self._renew()
        self._enter(State.CLOSED)

    def _renew(self) -> None:
        self._generation += 1
        self._failures = 0

    def _enter(self, state: State) -> None:
        before, self._state = self._state, state
        if self._told is not None:
            self._told(before, state)
