"""Tries upstreams until one answers: the step in which a request becomes an answer or a named failure.

For:      walking through the plan within one deadline; each try is an `Attempt`.
Touches:  the loop's clock, to wait before a repetition.

Until the first byte has gone to the caller, the next attempt is invisible. Moving to another upstream is immediate and
free; asking the same one again waits (full jitter) and needs its retry budget.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nexus_gateway.core.body import read_user
from nexus_gateway.core.breaker import Outcome, outcome_of
from nexus_gateway.core.errors import (
    CircuitOpen,
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamStarting,
    UpstreamTimeout,
    drop_trace,
)
from nexus_gateway.core.health import Fleet
from nexus_gateway.core.model import Call, Principal
from nexus_gateway.core.policies import Sticky
from nexus_gateway.core.retry import backoff_s, may_move_on
from nexus_gateway.core.routing import Plan, Route, RouteTable, plan
from nexus_gateway.core.shadow_compare import Sketch
from nexus_gateway.core.shares import CYCLE, roll_of

from .arrival import Answer, Arrival
from .attempt import Attempt
from .bounds import Bounds
from .endpoint import Bound, Endpoint, tightest
from .shadow import Mirror, Shadow

UNKNOWN_WAIT_S: Final = 5.0  # what a caller is told when nobody knows: isolated by hand, or failing its checks


class Executor:
    """Holds the endpoints, how they stand, and for each route the next of its rolls."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        fleet: Fleet,
        table: RouteTable,
        bounds: Bounds,
        dice: Callable[[], float],
        *,
        shadow: Shadow | None,
        tell_routing: bool,
    ) -> None:
        self.endpoints = endpoints
        self._fleet = fleet
        self._bounds = bounds
        self._dice = dice
        self._shadow = shadow
        self._rolls = {name: itertools.count(int(dice() * CYCLE)) for name in table.routes}  # replicas differ
        self._ways = {name: _ways_of(route, endpoints) for name, route in table.routes.items()}
        self._tell_routing = tell_routing

    def execute(self, call: Call, route: Route, principal: Principal, arrival: Arrival) -> Coroutine[Any, Any, Answer]:
        """The answer, to be awaited. Raises the UpstreamError of the last attempt; CircuitOpen or a kind that says more
        when there was nobody to ask."""
        now_s = self._bounds.clock()
        sticky_key = None if route.sticky is None else _sticky_key(route.sticky, call, principal, arrival)
        roll = roll_of(next(self._rolls[route.name])) if len(route.targets) > 1 else 0.0
        chosen = plan(route, now_s, roll, sticky_key, self._fleet.look(now_s))
        if not chosen.upstreams:
            raise self._nobody(chosen.drawn, chosen.wait_s, now_s)
        mirror = self._shadow.choose(call, arrival) if self._shadow is not None else None
        if mirror is None:
            return self._walk(call, route, chosen, arrival, now_s, None)
        return _mirrored(self._walk(call, route, chosen, arrival, now_s, mirror.sketch), mirror)

    async def _walk(
        self, call: Call, route: Route, chosen: Plan, arrival: Arrival, now_s: float, sketch: Sketch | None
    ) -> Answer:
        """Ask one after the other until one answers, or until the plan, the time or the hope is at its end."""
        ways, stream = self._ways[route.name], call.stream
        deadline, began_s = self._bounds.deadline, now_s
        failure: UpstreamError | None = None
        hopeless: set[str] = set()  # asking these again would end alike
        made = 0
        for name, repeat in chosen.attempts():
            if made == chosen.max_attempts or (hopeless and len(hopeless) == len(chosen.upstreams)):
                break
            if name in hopeless:
                continue
            way = ways[name]
            endpoint = way.endpoint
            bound = limit = way.stream_bound if stream else way.plain_bound
            if made or deadline is not None:  # else the whole time is there: never less than one attempt may take
                deadline = deadline or _deadline_of(chosen, ways, stream=stream)
                if repeat and not await self._may_repeat(endpoint, repeat, began_s + deadline.seconds):
                    hopeless.add(name)
                    continue
                now_s = self._bounds.clock() if made else now_s
                left_s = began_s + deadline.seconds - now_s
                if left_s <= 0:
                    break
                if bound.seconds > left_s:
                    limit = Bound(left_s, deadline.setting, is_rest=True)
            try:
                permit = endpoint.enter(now_s, now_s + bound.seconds)
                if permit is not None and permit.is_probe:
                    permit = await endpoint.claim(permit)
                if permit is None:
                    hopeless.add(name)
                    continue
                made += 1
                if not repeat:
                    endpoint.health.budget.deposit()
                attempt = Attempt(self._bounds, call, arrival, endpoint, way.model or call.model, limit, permit)
                answer = await attempt.run(sketch)
            except UpstreamError as exc:
                if not may_move_on(exc):
                    raise
                drop_trace(exc)
                if failure is None or not isinstance(exc, UpstreamBusy | UpstreamStarting):
                    failure = exc
                if isinstance(exc, UpstreamTimeout) or outcome_of(exc, stream=stream) is Outcome.NEUTRAL:
                    hopeless.add(name)
                continue
            if name != (chosen.drawn or chosen.upstreams)[0]:
                self._bounds.events.fell_back(route.name, name)
            if self._tell_routing:
                answer.headers += (way.told_name, (b"x-nexus-attempts", b"%d" % made))
            return answer
        if failure is None:
            wait_s = min(self._fleet[name].wait_s(now_s) for name in chosen.upstreams)
            raise self._nobody(chosen.upstreams, wait_s, now_s)
        raise failure

    async def _may_repeat(self, endpoint: Endpoint, repeat: int, deadline_at_s: float) -> bool:
        """Whether the same upstream may be asked again; if so, after a wait."""
        now_s = self._bounds.clock()
        wait_s = backoff_s(repeat, self._dice())
        if now_s + wait_s >= deadline_at_s:
            return False
        if not endpoint.health.budget.withdraw(now_s):
            self._bounds.events.retry_refused(endpoint.name)
            return False
        await asyncio.sleep(wait_s)
        return True

    def _nobody(self, names: tuple[str, ...], wait_s: float, now_s: float) -> GatewayError:
        """Why none of these can be asked: all want to be left alone for a while, all are still starting, or else."""
        if all(self._fleet[name].cooling_s(now_s) > 0 for name in names):
            return UpstreamRateLimited(
                "Every upstream for this model is rate limited.", upstream=names[0], retry_after_s=wait_s
            )
        wait_s = wait_s if wait_s < math.inf else UNKNOWN_WAIT_S
        if all(self._fleet[name].is_starting(now_s) for name in names):
            return self.endpoints[names[0]].starting(wait_s)
        return CircuitOpen("No upstream for this model can be asked just now.", retry_after_s=wait_s)


async def _mirrored(walk: Coroutine[Any, Any, Answer], mirror: Mirror) -> Answer:
    """The mirror hears how the request that it copies was served."""
    try:
        answer = await walk
    except BaseException:
        mirror.served(False)
        raise
    answer.served = mirror.served
    return answer


@dataclass(frozen=True, slots=True)
class Way:
    """How one route asks one upstream, worked out at start-up. `model`: the name to send; None: the caller's."""

    endpoint: Endpoint
    model: str | None
    plain_bound: Bound
    stream_bound: Bound
    told_name: tuple[bytes, bytes]


def _ways_of(route: Route, endpoints: Mapping[str, Endpoint]) -> dict[str, Way]:
    """A stand-in from a list is sent its own name; a target of the route the caller's, if none is configured."""
    plain, stream = _bounds_of(route)
    targets = {target.upstream for target in route.targets}
    ways = {}
    for name, endpoint in endpoints.items():
        model = endpoint.upstream.traits.model
        if model is None and name not in targets:
            model = name
        ways[name] = Way(
            endpoint,
            model,
            tightest(endpoint.attempt, plain),
            tightest(endpoint.attempt, stream),
            (b"x-nexus-upstream", name.encode("ascii")),
        )
    return ways


def _deadline_of(chosen: Plan, ways: Mapping[str, Way], *, stream: bool) -> Bound:
    """All attempts together, where nothing is configured: as often as there may be any, the longest limit of one."""
    bounds = [ways[name].stream_bound if stream else ways[name].plain_bound for name in chosen.upstreams]
    longest = max(bounds, key=lambda bound: bound.seconds)
    return Bound(chosen.max_attempts * longest.seconds, longest.setting)


def _bounds_of(route: Route) -> tuple[Bound | None, Bound | None]:
    """The route's own limits for a plain answer and for the first event of a stream."""
    plain = stream = None
    if route.timeout_s is not None:
        plain = stream = Bound(route.timeout_s, f"timeout_seconds of route '{route.name}'")
    if route.first_token_timeout_s is not None:
        first = Bound(route.first_token_timeout_s, f"first_token_timeout_seconds of route '{route.name}'")
        stream = tightest(first, stream)
    return plain, stream


def _sticky_key(sticky: Sticky, call: Call, principal: Principal, arrival: Arrival) -> str | None:
    if sticky.by == "key":
        return principal.key_id
    if sticky.by == "user":
        return read_user(call)
    value = arrival.fields.get((sticky.header or "").encode("ascii"))
    return value.decode("latin-1") if value is not None else None
