"""What `explain` says is what would happen."""

from math import sqrt

from nexus_gateway.core.explain import explain
from nexus_gateway.core.policies import RoutePolicy, Sticky, Strategy, Target
from nexus_gateway.core.routing import Plan, Route, compile_route

SAMPLES = 10_000


def route_of(sticky: Sticky | None = None) -> Route:
    targets = (Target("primary", 95), Target("canary", 5))
    return compile_route(RoutePolicy("chat", Strategy.CANARY, targets, sticky), {"primary": ["spare"]})


def test_the_plan_of_one_request() -> None:
    assert explain(route_of()).plans == ((Plan(("primary", "spare"), 3), 1),)


def test_the_shares_of_many() -> None:
    explanation = explain(route_of(), SAMPLES)
    assert explanation.plans == ((Plan(("primary", "spare"), 3), 9500), (Plan(("canary", "primary"), 3), 500))
    assert explanation.shares == {"primary": 0.95, "canary": 0.05}


def test_with_somebody_down() -> None:
    assert explain(route_of(), SAMPLES, down=["primary"]).shares == {"spare": 0.95, "canary": 0.05}
    nobody = explain(route_of(), SAMPLES, down=["primary", "spare"])
    assert nobody.shares == {"canary": 0.05}
    assert sum(count for plan, count in nobody.plans if not plan.upstreams) == 9500


def test_a_sticky_route_shows_one_caller_or_the_shares_over_many() -> None:
    route = route_of(Sticky("key"))
    assert len(explain(route, SAMPLES, sticky_key="key_1").plans) == 1
    shares = explain(route, SAMPLES).shares
    assert abs(shares["canary"] - 0.05) <= 4 * sqrt(0.05 * 0.95 / SAMPLES)
    assert shares != explain(route_of(), SAMPLES).shares, "callers are many, but each is one"
