"""Which upstreams are asked for a request, and in which order.

For:      one pure decision: route, time, roll, caller and health in; an ordered plan out.
Touches:  nothing. Everything that does not depend on the request is worked out when routes are compiled.

The order of a plan:

1. the target that the route's strategy chose, among those that may be asked;
2. its stand-ins: the policy's `fallbacks`; else the list of GATEWAY_FALLBACKS for the requested name; else the one for
   the chosen target. Lists are not followed on;
3. what is left of the policy: for `canary` the primary (the canary never stands in for the primary, unless a list says
   so); for `weighted` and `balanced` the other targets with a weight above 0, the one that the draw puts second first;
   for `failover` its other targets, which come before the stand-ins, for their order is the operator's.

Each upstream stands there once. Who may not be asked (open breaker, cooldown, isolation, failed check) is left out, and
its share goes to the remaining targets in proportion; not so from the primary of a canary to the canary. Who has just
recovered and is shy comes last. When nobody is left, the plan tells how soon somebody may be.

The healthy case is a look-up: a draw gives two targets, and a table holds the finished plan of every such pair.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from .balance import Load, prefers_first
from .health import ALL_WELL, Health
from .policies import RoutePolicy, Sticky, Strategy, Target
from .shares import Rendezvous, Shares

MIN_ATTEMPTS: Final = 3  # the least that the limit is when no policy sets it

_PRIMARY: Final = 0  # positions of a canary policy's targets
_CANARY: Final = 1


class Plan(msgspec.Struct, frozen=True):
    """Whom to ask, in this order, and how often at most.

    `upstreams` holds each once; when it is empty, `wait_s` is how long nobody may be asked, `inf` where nobody knows.
    """

    upstreams: tuple[str, ...]
    max_attempts: int
    wait_s: float = 0.0
    drawn: tuple[str, ...] = ()  # the whole order, where some of it was left out

    def attempts(self) -> Iterator[tuple[str, int]]:
        """Upstreams to try, each with how often it stood here before: repetitions need a wait and a budget.

        It goes round and round, for not every place becomes an attempt (a permit may be refused); whoever walks
        through it counts those that do, to `max_attempts`.
        """
        for repeat in range(self.max_attempts):
            for upstream in self.upstreams:
                yield upstream, repeat


@dataclass(frozen=True, slots=True)
class Route:
    """A name that callers may use, compiled. Times in seconds; None where the global setting holds.

    `shares` are those of the targets that may be drawn; `plans[first][second]` is the plan of a draw when all is well.
    Both speak of positions in `targets`.
    """

    name: str
    strategy: Strategy
    targets: tuple[Target, ...]
    shares: Shares
    plans: tuple[tuple[Plan, ...], ...]
    rendezvous: Rendezvous | None = None
    sticky: Sticky | None = None
    timeout_s: float | None = None
    first_token_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All names that callers may use. `default` takes every other name, if there is one."""

    routes: Mapping[str, Route]
    default: Route | None = None

    def find(self, model: str) -> Route | None:
        return self.routes.get(model, self.default)


def compile_routes(
    upstreams: Iterable[str],
    policies: Mapping[str, RoutePolicy],
    fallbacks: Mapping[str, Sequence[str]],
    default: str | None = None,
) -> RouteTable:
    """Every upstream is a route to itself, and a policy of the same name wins. Names are taken as checked."""
    itself = {name: RoutePolicy(name, Strategy.FAILOVER, (Target(name),)) for name in upstreams}
    routes = {name: compile_route(policy, fallbacks) for name, policy in {**itself, **policies}.items()}
    return RouteTable(MappingProxyType(routes), routes[default] if default is not None else None)


def compile_route(policy: RoutePolicy, fallbacks: Mapping[str, Sequence[str]]) -> Route:
    names = tuple(target.upstream for target in policy.targets)
    weights = tuple(target.weight for target in policy.targets)
    positions = range(len(names))
    return Route(
        policy.name,
        policy.strategy,
        policy.targets,
        Shares.of(weights),
        tuple(tuple(_compile_plan(policy, fallbacks, i, j) for j in positions) for i in positions),
        Rendezvous(policy.name, names) if policy.sticky is not None else None,
        policy.sticky,
        policy.timeout_s,
        policy.first_token_timeout_s,
    )


def _compile_plan(policy: RoutePolicy, fallbacks: Mapping[str, Sequence[str]], first: int, second: int) -> Plan:
    """The plan when all is well and the draw was (first, second)."""
    targets = policy.targets
    chosen = targets[first].upstream
    stand_ins = policy.fallbacks
    if stand_ins is None:
        stand_ins = tuple(fallbacks.get(policy.name) or fallbacks.get(chosen) or ())
    rest = [target.upstream for target in (targets[second], *targets) if target.weight > 0]
    listed = len(stand_ins)
    if policy.strategy is Strategy.FAILOVER:
        order = [chosen, *rest, *stand_ins]
        listed += len(targets) - 1  # its targets are a list of stand-ins too
    elif policy.strategy is Strategy.CANARY:
        order = [chosen, *stand_ins, targets[_PRIMARY].upstream]
    else:
        order = [chosen, *stand_ins, *rest]
    limit = policy.max_attempts if policy.max_attempts is not None else max(MIN_ATTEMPTS, 1 + listed)
    return Plan(tuple(dict.fromkeys(order)), limit)


def plan(route: Route, now_s: float, roll: float, sticky_key: str | None = None, health: Health = ALL_WELL) -> Plan:
    """Whom to ask for one request.

    `roll`: the next of the route's own sequence (`shares.roll_of`). `sticky_key`: what the route's `sticky` names, None
    where the caller has none and the roll decides.
    """
    wait_s, shy = health.wait_s, health.shy
    if not (wait_s or shy):
        first, second = _draw(route, route.shares, now_s, roll, sticky_key, health)
        return route.plans[first][second]
    if route.strategy is Strategy.CANARY:
        first, second = _draw(route, route.shares, now_s, roll, sticky_key, health)
        primary, canary = route.targets[_PRIMARY].upstream, route.targets[_CANARY].upstream
        if canary in wait_s or (canary in shy and primary not in wait_s):
            first = _PRIMARY
    else:
        first, second = _draw(route, _present(route, wait_s, shy), now_s, roll, sticky_key, health)
    return _leave_out(route.plans[first][second], wait_s, shy)


def _present(route: Route, wait_s: Mapping[str, float], shy: Collection[str]) -> Shares:
    """Of those who are there: not the shy, unless nobody else is. All, when nobody is there."""
    shares, targets = route.shares, route.targets
    away = {i for i in shares.members if targets[i].upstream in wait_s}
    avoided = away.union([i for i in shares.members if targets[i].upstream in shy]) if shy else away
    absent = avoided if len(avoided) < len(shares.members) else away
    return shares.without(absent) if 0 < len(absent) < len(shares.members) else shares


def _leave_out(whole: Plan, wait_s: Mapping[str, float], shy: Collection[str]) -> Plan:
    there = [name for name in whole.upstreams if name not in wait_s]
    if not there:
        wait = min(wait_s[name] for name in whole.upstreams)
        return Plan((), whole.max_attempts, wait, whole.upstreams)
    if shy:
        there.sort(key=shy.__contains__)
    return Plan(tuple(there), whole.max_attempts, drawn=whole.upstreams)


def _draw(
    route: Route, shares: Shares, now_s: float, roll: float, sticky_key: str | None, health: Health
) -> tuple[int, int]:
    """The chosen target and the next best one."""
    if route.strategy is Strategy.FAILOVER:
        return shares.members[0], shares.members[0]
    if sticky_key is not None and route.rendezvous is not None:
        return route.rendezvous.draw(shares, sticky_key)
    first, second = shares.draw(roll)
    if route.strategy is Strategy.BALANCED and first != second:
        one, other = route.targets[first], route.targets[second]
        load = health.loads.get(one.upstream) or Load()
        other_load = health.loads.get(other.upstream) or Load()
        if not prefers_first(load, other_load, now_s, one.weight, other.weight):
            return second, first
    return first, second
