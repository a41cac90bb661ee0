"""How every upstream stands: what the plan of a request must know, and who may be asked right now.

For:      one object per upstream that all requests share, and one look at all of them per request.
Touches:  nothing. The caller brings the clock and the dice. No locks: a critical section is a stretch without await.

While nothing is wrong anywhere, a look costs nothing: whoever is in trouble is in one dictionary, and it is empty.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Final

import msgspec

from .balance import Load
from .breaker import PROBE_WAIT_S, Breaker, Outcome, Permit, State
from .errors import UpstreamConnectError, UpstreamDnsError, UpstreamError, UpstreamUnavailable
from .retry import RetryBudget

Told = Callable[[str, State, State], None]  # upstream, from, to

START_RECHECK_S: Final = 5.0  # until another look at what is starting, where no check says when

_ABSENCE: Final = frozenset({None, 502, 503, 504})  # what proxies say for a server, and servers that load a model

_NO_WAITS: Final[Mapping[str, float]] = MappingProxyType({})
_NO_LOADS: Final[Mapping[str, Load]] = MappingProxyType({})


class Health(msgspec.Struct, frozen=True):
    """One look at all upstreams. Whoever is not named here is there.

    `wait_s`: who may not be asked, and for how long, `inf` where nobody knows. `shy`: who has just recovered and should
    not get this request if somebody else can take it. `loads`: live, for the strategy `balanced`; a replica that is
    missing counts as idle.
    """

    wait_s: Mapping[str, float] = _NO_WAITS
    shy: Collection[str] = frozenset()
    loads: Mapping[str, Load] = _NO_LOADS


ALL_WELL: Final = Health()


def without(down: Iterable[str]) -> Health:
    """All is well, but for these."""
    return Health(wait_s=dict.fromkeys(down, inf))


class UpstreamHealth:
    """What is known of one upstream: breaker, cooldown, active checks, the operator's word, load and retry budget."""

    __slots__ = (
        "_cooling_until_s",
        "_recheck_at_s",
        "_starts_until_s",
        "_troubled",
        "breaker",
        "budget",
        "is_isolated",
        "load",
        "name",
    )

    def __init__(self, name: str, breaker: Breaker, troubled: "dict[str, UpstreamHealth]") -> None:
        self.name = name
        self.breaker = breaker
        self.budget = RetryBudget()
        self.load = Load()
        self.is_isolated = False
        self._cooling_until_s = -inf
        self._recheck_at_s: float | None = None
        self._starts_until_s = -inf
        self._troubled = troubled

    @property
    def is_failing_checks(self) -> bool:
        return self._recheck_at_s is not None

    def acquire(self, now_s: float, deadline_s: float) -> Permit | None:
        """Leave to send one request, or None. Whoever gets a permit settles it."""
        if self.name in self._troubled and self._wait_beside_breaker_s(now_s) > 0:
            return None
        permit = self.breaker.acquire(now_s, deadline_s)
        if permit is not None:
            self.load.in_flight += 1
        return permit

    def settle(self, permit: Permit, outcome: Outcome, now_s: float) -> None:
        """Give the permit back. Again does nothing."""
        if permit.is_settled:
            return
        self.load.in_flight -= 1
        breaker = self.breaker
        breaker.settle(permit, outcome, now_s)
        if not breaker.is_at_rest:
            self._troubled[self.name] = self

    def vouch(self, permit: Permit, first_token_s: float, now_s: float) -> None:
        """The answer has begun, `first_token_s` after it was asked for."""
        self.load.observe(first_token_s, now_s)
        self.breaker.vouch(permit, now_s)

    def cool_down(self, wait_s: float, now_s: float) -> None:
        """The upstream asked to be left alone for so long (429). Never shortens a cooldown."""
        self._cooling_until_s = max(self._cooling_until_s, now_s + wait_s)
        self._troubled[self.name] = self

    def cooling_s(self, now_s: float) -> float:
        return max(self._cooling_until_s - now_s, 0.0)

    def isolate(self) -> None:
        """Taken out by hand, until `restore`."""
        self.is_isolated = True
        self._troubled[self.name] = self

    def restore(self) -> None:
        self.is_isolated = False

    def fail_check(self, recheck_at_s: float) -> None:
        """An active check failed; the next one comes at `recheck_at_s`."""
        self._recheck_at_s = recheck_at_s
        self._troubled[self.name] = self

    def pass_check(self) -> None:
        self._recheck_at_s = None
        self._starts_until_s = -inf

    def expect_start(self, until_s: float) -> None:
        """Until then it may be coming up: to be absent is no fault of its before it has once been there."""
        self._starts_until_s = until_s

    def is_starting(self, now_s: float) -> bool:
        """Neither an answer nor a passed check so far, and still time for one."""
        return now_s < self._starts_until_s and self.breaker.last_sign_of_life_s == -inf

    def awaits(self, failure: UpstreamError, now_s: float) -> bool:
        """Whether an attempt failed because the upstream has not come up yet."""
        if not self.is_starting(now_s):
            return False
        if isinstance(failure, UpstreamUnavailable):
            return failure.status in _ABSENCE
        return isinstance(failure, UpstreamConnectError | UpstreamDnsError)

    def force_open_until(self, until_s: float, now_s: float) -> None:
        """Somebody else found the upstream down."""
        self.breaker.force_open_until(until_s, now_s)
        self._troubled[self.name] = self

    def force_close(self, now_s: float) -> None:
        """Somebody else found it well again."""
        self.breaker.force_close(now_s)

    def wait_s(self, now_s: float) -> float:
        """Seconds until the upstream may be asked, 0 if it may be now, `inf` where nobody knows."""
        return max(self._wait_beside_breaker_s(now_s), self.breaker.wait_s(now_s))

    def is_at_rest(self, now_s: float) -> bool:
        """Nothing is wrong with it."""
        return self.breaker.is_at_rest and self._wait_beside_breaker_s(now_s) <= 0

    def _wait_beside_breaker_s(self, now_s: float) -> float:
        if self.is_isolated:
            return inf
        wait_s = self.cooling_s(now_s)
        if self._recheck_at_s is not None:
            wait_s = max(wait_s, self._recheck_at_s - now_s, PROBE_WAIT_S)
        return wait_s


class Fleet:
    """All upstreams, by name. `told` hears of every change of a breaker, while it happens."""

    __slots__ = ("_clear", "_dice", "_members", "_troubled")

    def __init__(
        self,
        names: Iterable[str],
        max_failures: int,
        reset_s: float,
        dice: Callable[[], float],
        told: Told | None = None,
    ) -> None:
        self._dice = dice
        self._troubled: dict[str, UpstreamHealth] = {}
        self._members = {
            name: UpstreamHealth(name, Breaker(max_failures, reset_s, dice, _named(told, name)), self._troubled)
            for name in names
        }
        self._clear = Health(loads=MappingProxyType({name: member.load for name, member in self._members.items()}))

    def __getitem__(self, name: str) -> UpstreamHealth:
        return self._members[name]

    def __iter__(self) -> Iterator[UpstreamHealth]:
        return iter(self._members.values())

    def look(self, now_s: float) -> Health:
        """How all stand for one request: those on the ramp are shy by the dice."""
        if not self._troubled:
            return self._clear
        waits_s: dict[str, float] = {}
        shy: set[str] = set()
        for name, member in list(self._troubled.items()):
            wait_s = member.wait_s(now_s)
            share = member.breaker.share(now_s)
            if wait_s > 0:
                waits_s[name] = wait_s
            elif share < 1.0:
                if self._dice() >= share:
                    shy.add(name)
            elif member.is_at_rest(now_s):
                del self._troubled[name]
        return Health(waits_s, shy, self._clear.loads)


def _named(told: Told | None, name: str) -> Callable[[State, State], None] | None:
    if told is None:
        return None
    return lambda before, after: told(name, before, after)
