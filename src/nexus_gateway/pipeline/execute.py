"""Tries upstreams until one answers: the step in which a request becomes an answer or a named failure.

For:      walking through the plan within one deadline; each try is an `Attempt`.
Touches:  the loop's clock, to wait before a repetition.

Until the first byte has gone to the caller, the next attempt is invisible. Moving to another upstream is immediate and
free; asking the same one again waits (full jitter) and needs its retry budget.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final

from nexus_gateway.core.body import read_user
from nexus_gateway.core.breaker import Outcome, outcome_of
from nexus_gateway.core.errors import CircuitOpen, GatewayError, UpstreamBusy, UpstreamError, UpstreamRateLimited
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
from .shadow import Shadow

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
        self._route_bounds = {name: _bounds_of(route) for name, route in table.routes.items()}
        self._names = {name: (b"x-nexus-upstream", name.encode("ascii")) for name in endpoints} if tell_routing else {}

    async def execute(self, call: Call, route: Route, principal: Principal, arrival: Arrival) -> Answer:
        """Raises the UpstreamError of the last attempt, or CircuitOpen when there was nobody to ask."""
        now_s = self._bounds.clock()
        sticky_key = None if route.sticky is None else _sticky_key(route.sticky, call, principal, arrival)
        roll = roll_of(next(self._rolls[route.name]))
        chosen = plan(route, now_s, roll, sticky_key, self._fleet.look(now_s))
        if not chosen.upstreams:
            raise self._nobody(route, chosen.wait_s, now_s)
        mirror = self._shadow.choose(call, arrival) if self._shadow is not None else None
        if mirror is None:
            return await self._walk(call, route, chosen, arrival, now_s, None)
        try:
            answer = await self._walk(call, route, chosen, arrival, now_s, mirror.sketch)
        except BaseException:
            mirror.served(False)
            raise
        if isinstance(answer.body, bytes):
            mirror.sketch.add(answer.body)
        answer.served = mirror.served
        return answer

    async def _walk(
        self, call: Call, route: Route, chosen: Plan, arrival: Arrival, now_s: float, sketch: Sketch | None
    ) -> Answer:
        deadline: Bound | None = self._bounds.deadline
        deadline_at_s = now_s + deadline.seconds if deadline is not None else None
        failure: UpstreamError | None = None
        hopeless: set[str] = set()  # asking these again would end alike
        made = 0
        for name, repeat in chosen.attempts():
            if made == chosen.max_attempts or len(hopeless) == len(chosen.upstreams):
                break
            if name in hopeless:
                continue
            endpoint = self.endpoints[name]
            bound = tightest(endpoint.attempt, self._route_bounds[route.name][call.stream])
            if deadline_at_s is None:
                deadline_at_s = now_s + chosen.max_attempts * bound.seconds
            if repeat and not await self._may_repeat(endpoint, repeat, deadline_at_s):
                hopeless.add(name)
                continue
            now_s = self._bounds.clock()
            if now_s >= deadline_at_s:
                break
            if deadline is not None and deadline_at_s - now_s < bound.seconds:
                bound = Bound(deadline.seconds, deadline.setting)
            attempt_deadline_s = min(now_s + bound.seconds, deadline_at_s)
            try:
                endpoint.check_room()
                permit = endpoint.health.acquire(now_s, attempt_deadline_s)
                if permit is None:
                    hopeless.add(name)
                    continue
                made += 1
                if not repeat:
                    endpoint.health.budget.deposit(now_s)
                model = self._model_for(endpoint, call, route)
                attempt = Attempt(self._bounds, call, arrival, endpoint, model, bound, permit, attempt_deadline_s)
                answer = await attempt.run(sketch)
            except UpstreamError as exc:
                if not may_move_on(exc):
                    raise
                if failure is None or not isinstance(exc, UpstreamBusy):
                    failure = exc
                if outcome_of(exc, stream=call.stream) is Outcome.NEUTRAL:
                    hopeless.add(name)
                continue
            if name != chosen.upstreams[0]:
                self._bounds.events.fell_back(route.name, name)
            if self._names:
                answer.headers += (self._names[name], (b"x-nexus-attempts", b"%d" % made))
            return answer
        if failure is None:
            raise self._nobody(route, min(self._fleet[name].wait_s(now_s) for name in chosen.upstreams), now_s)
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

    def _nobody(self, route: Route, wait_s: float, now_s: float) -> GatewayError:
        """Why nobody can be asked: all want to be left alone for a while (429), or there is more to it (503)."""
        names = route.plans[0][0].upstreams
        if all(self._fleet[name].cooling_s(now_s) > 0 for name in names):
            return UpstreamRateLimited(
                "Every upstream for this model is rate limited.", upstream=names[0], retry_after_s=wait_s
            )
        wait_s = wait_s if wait_s < math.inf else UNKNOWN_WAIT_S
        return CircuitOpen("No upstream for this model can be asked just now.", retry_after_s=wait_s)

    def _model_for(self, endpoint: Endpoint, call: Call, route: Route) -> str:
        """The name to send: the configured one, else for a stand-in from a list its own, else the caller's."""
        configured = endpoint.upstream.traits.model
        if configured is not None:
            return configured
        is_target = any(target.upstream == endpoint.name for target in route.targets)
        return call.model if is_target else endpoint.name


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
