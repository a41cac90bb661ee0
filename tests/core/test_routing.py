"""Laws of plans: who is asked, in which order, and how often."""

from collections import Counter
from itertools import islice
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.core.balance import Load
from nexus_gateway.core.health import ALL_WELL, Health, without
from nexus_gateway.core.policies import RoutePolicy, Sticky, Strategy, Target
from nexus_gateway.core.routing import Plan, Route, compile_route, compile_routes, plan
from nexus_gateway.core.shares import CYCLE, roll_of

NAMES = ("a", "b", "c", "d", "e")
UPSTREAMS = (*NAMES, "spare", "chat")
ROLLS = st.floats(0, 1, exclude_max=True)
KEYS = st.one_of(st.none(), st.text(max_size=10))
WEIGHTS = st.one_of(st.just(0.0), st.floats(0.01, 100))
LISTS = st.lists(st.sampled_from(UPSTREAMS), unique=True, max_size=4)
WAITS_S = st.one_of(st.floats(0.001, 100), st.just(inf))
FALLBACKS = st.dictionaries(st.sampled_from(UPSTREAMS), LISTS.filter(bool), max_size=4)


@st.composite
def policies(draw: st.DrawFn) -> RoutePolicy:
    strategy = draw(st.sampled_from(Strategy))
    if strategy is Strategy.CANARY:
        percent = draw(st.one_of(st.sampled_from([0.0, 5.0, 100.0]), st.floats(0, 100)))
        targets: tuple[Target, ...] = (Target("a", 100 - percent), Target("b", percent))
    else:
        names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5))
        weights = [1.0 if strategy is Strategy.FAILOVER else draw(WEIGHTS) for _ in names]
        if not any(weights):
            weights[0] = 1.0
        targets = tuple(map(Target, names, weights))
    may_stick = strategy in (Strategy.WEIGHTED, Strategy.CANARY)
    return RoutePolicy(
        "chat",
        strategy,
        targets,
        Sticky("key") if may_stick and draw(st.booleans()) else None,
        max_attempts=draw(st.one_of(st.none(), st.integers(1, 5))),
        fallbacks=draw(st.one_of(st.none(), LISTS.map(tuple))),
    )


@st.composite
def healths(draw: st.DrawFn) -> Health:
    return Health(
        draw(st.dictionaries(st.sampled_from(UPSTREAMS), WAITS_S, max_size=len(UPSTREAMS))),
        draw(st.frozensets(st.sampled_from(UPSTREAMS))),
        {name: Load(draw(st.integers(0, 5))) for name in NAMES},
    )


def stand_ins_of(policy: RoutePolicy, fallbacks: dict[str, list[str]], chosen: str) -> list[str]:
    if policy.fallbacks is not None:
        return list(policy.fallbacks)
    return fallbacks.get(policy.name) or fallbacks.get(chosen) or []


def weighted(*weights: float, strategy: Strategy = Strategy.WEIGHTED, sticky: Sticky | None = None) -> Route:
    targets = tuple(map(Target, NAMES, weights))
    return compile_route(RoutePolicy("chat", strategy, targets, sticky), {})


def canary(percent: float, fallbacks: tuple[str, ...] | None = None) -> Route:
    targets = (Target("a", 100 - percent), Target("b", percent))
    return compile_route(RoutePolicy("chat", Strategy.CANARY, targets, fallbacks=fallbacks), {})


def firsts(route: Route, health: Health = ALL_WELL, start: int = 0) -> Counter[str | None]:
    """Who is asked first, over 10,000 requests."""
    plans = (plan(route, 0.0, roll_of(count), None, health) for count in range(start, start + CYCLE))
    return Counter(each.upstreams[0] if each.upstreams else None for each in plans)


# ---- order


@given(policies(), FALLBACKS, ROLLS, KEYS)
def test_when_all_is_well_the_order_is_chosen_then_stand_ins_then_the_rest_of_the_policy(
    policy: RoutePolicy, fallbacks: dict[str, list[str]], roll: float, key: str | None
) -> None:
    order = plan(compile_route(policy, fallbacks), 0.0, roll, key).upstreams
    chosen = order[0]
    weights = {target.upstream: target.weight for target in policy.targets}
    assert weights[chosen] > 0
    stand_ins = stand_ins_of(policy, fallbacks, chosen)
    rest = [name for name, weight in weights.items() if weight > 0]
    if policy.strategy is Strategy.FAILOVER:
        assert order == tuple(dict.fromkeys([*weights, *stand_ins]))
        return
    if policy.strategy is Strategy.CANARY:
        rest = ["a"]
    head = tuple(dict.fromkeys([chosen, *stand_ins]))
    assert order[: len(head)] == head
    assert set(order) == {*head, *rest}
    assert len(order) == len(set(order))


@given(policies(), FALLBACKS, ROLLS, KEYS, healths())
def test_nobody_is_asked_who_may_not_be_nor_twice_nor_by_accident(
    policy: RoutePolicy, fallbacks: dict[str, list[str]], roll: float, key: str | None, health: Health
) -> None:
    order = plan(compile_route(policy, fallbacks), 0.0, roll, key, health).upstreams
    assert not set(order) & set(health.wait_s)
    assert len(order) == len(set(order))
    listed = {name for target in policy.targets for name in stand_ins_of(policy, fallbacks, target.upstream)}
    drawn = {target.upstream for target in policy.targets if target.weight > 0}
    if policy.strategy is Strategy.CANARY:
        drawn.add("a")
    assert set(order) <= drawn | listed, "weight 0 means never"


@given(
    policy=policies(),
    fallbacks=FALLBACKS,
    roll=ROLLS,
    key=KEYS,
    waits_s=st.lists(WAITS_S, min_size=len(UPSTREAMS), max_size=len(UPSTREAMS)),
)
def test_when_nobody_is_left_the_plan_is_empty_and_tells_the_soonest(
    policy: RoutePolicy, fallbacks: dict[str, list[str]], roll: float, key: str | None, waits_s: list[float]
) -> None:
    route, wait_s = compile_route(policy, fallbacks), dict(zip(UPSTREAMS, waits_s, strict=True))
    usual = plan(route, 0.0, roll, key).upstreams
    if policy.strategy is Strategy.CANARY and usual[0] == "b":
        usual = ("a", *stand_ins_of(policy, fallbacks, "a"))
    found = plan(route, 0.0, roll, key, Health(wait_s))
    assert found.upstreams == ()
    assert found.wait_s == min(wait_s[name] for name in usual)


@given(policies(), FALLBACKS, ROLLS, KEYS, healths())
def test_whoever_may_be_asked_is_asked_before_anybody_gives_up(
    policy: RoutePolicy, fallbacks: dict[str, list[str]], roll: float, key: str | None, health: Health
) -> None:
    order = plan(compile_route(policy, fallbacks), 0.0, roll, key, health).upstreams
    if policy.strategy is Strategy.CANARY:
        needed = {"a"}
    else:
        needed = {target.upstream for target in policy.targets if target.weight > 0}
    assert needed - set(health.wait_s) <= set(order)


@given(policies(), FALLBACKS, ROLLS, KEYS, healths())
def test_the_shy_come_last_and_are_asked_if_nobody_else_can_be(
    policy: RoutePolicy, fallbacks: dict[str, list[str]], roll: float, key: str | None, health: Health
) -> None:
    route = compile_route(policy, fallbacks)
    order = plan(route, 0.0, roll, key, health).upstreams
    places = [name in health.shy for name in order]
    assert places == sorted(places)
    bold = plan(route, 0.0, roll, key, Health(health.wait_s, frozenset(), health.loads)).upstreams
    assert bool(order) == bool(bold), "being shy makes nobody wait"


@given(policies(), FALLBACKS, ROLLS, KEYS)
def test_the_limit_of_attempts(
    policy: RoutePolicy, fallbacks: dict[str, list[str]], roll: float, key: str | None
) -> None:
    found = plan(compile_route(policy, fallbacks), 0.0, roll, key)
    listed = len(stand_ins_of(policy, fallbacks, found.upstreams[0]))
    if policy.strategy is Strategy.FAILOVER:
        listed += len(policy.targets) - 1
    assert found.max_attempts == (policy.max_attempts or max(3, 1 + listed))


@given(st.lists(st.sampled_from(NAMES), unique=True, min_size=1), st.integers(1, 6))
def test_the_same_upstream_comes_again_only_after_all_others(upstreams: list[str], max_attempts: int) -> None:
    attempts = list(islice(Plan(tuple(upstreams), max_attempts).attempts(), max_attempts))
    assert len(attempts) == max_attempts
    assert [upstream for upstream, repeat in attempts if repeat == 0] == upstreams[:max_attempts]
    for place, (upstream, repeat) in enumerate(attempts):
        assert repeat == place // len(upstreams)
        assert upstream == upstreams[place % len(upstreams)]


def test_lists_are_not_followed_on() -> None:
    table = compile_routes(NAMES, {}, {"a": ["b"], "b": ["c"], "c": ["a"]})
    orders = {name: plan(route, 0.0, 0.5).upstreams for name, route in table.routes.items()}
    assert orders == {"a": ("a", "b"), "b": ("b", "c"), "c": ("c", "a"), "d": ("d",), "e": ("e",)}


def test_which_list_holds() -> None:
    policy = RoutePolicy("chat", Strategy.WEIGHTED, (Target("a"),))
    of_both = {"chat": ["b"], "a": ["c"]}
    assert plan(compile_route(policy, of_both), 0.0, 0.5).upstreams == ("a", "b")
    assert plan(compile_route(policy, {"a": ["c"]}), 0.0, 0.5).upstreams == ("a", "c")
    own = RoutePolicy("chat", Strategy.WEIGHTED, (Target("a"),), fallbacks=("d",))
    assert plan(compile_route(own, of_both), 0.0, 0.5).upstreams == ("a", "d")
    none = RoutePolicy("chat", Strategy.WEIGHTED, (Target("a"),), fallbacks=())
    assert plan(compile_route(none, of_both), 0.0, 0.5).upstreams == ("a",)


# ---- shares


@settings(max_examples=20, deadline=None)
@given(weights=st.lists(WEIGHTS, min_size=1, max_size=5).filter(any), start=st.integers(0, 10**9), data=st.data())
def test_shares_are_exact_and_those_of_the_absent_go_to_the_rest_in_proportion(
    weights: list[float], start: int, data: st.DataObject
) -> None:
    down = data.draw(st.sets(st.sampled_from(NAMES[: len(weights)])))
    left = {name: weight for name, weight in zip(NAMES, weights, strict=False) if name not in down}
    counts = firsts(weighted(*weights), without(down), start)
    total = sum(left.values())
    if not total:
        assert counts == {None: CYCLE}
        return
    for name in NAMES[: len(weights)]:
        assert abs(counts[name] - CYCLE * left.get(name, 0.0) / total) <= 2


def test_if_all_that_are_left_are_shy_they_share_as_usual() -> None:
    health = Health({"c": 1.0, "d": 1.0}, {"a", "b"})
    assert firsts(weighted(1, 3, 4, 4), health) == {"a": 2500, "b": 7500}


@pytest.mark.parametrize("percent", [0, 0.5, 1, 5, 33.3, 50, 100])
def test_a_canary_gets_its_percent_exactly(percent: float) -> None:
    counts = firsts(canary(percent))
    assert abs(counts["b"] - 100 * percent) <= 1
    assert counts["a"] == CYCLE - counts["b"]


def test_routes_that_are_called_in_turns_keep_their_shares() -> None:
    routes = [weighted(90, 10), canary(5), weighted(1, 1, 1)]
    counts: list[Counter[str]] = [Counter() for _ in routes]
    for count in range(CYCLE):
        for route, counter in zip(routes, counts, strict=True):
            counter[plan(route, 0.0, roll_of(count)).upstreams[0]] += 1
    assert counts[0] == {"a": 9000, "b": 1000}
    assert counts[1] == {"a": 9500, "b": 500}
    assert all(abs(times - CYCLE / 3) <= 1 for times in counts[2].values())


@given(ROLLS)
def test_0_percent_means_never_and_100_always(roll: float) -> None:
    assert plan(canary(0), 0.0, roll).upstreams == ("a",)
    assert plan(canary(0), 0.0, roll, None, without("a")).upstreams == ()
    assert plan(canary(100), 0.0, roll).upstreams == ("b", "a")


@given(ROLLS)
def test_the_primary_stands_in_for_the_canary_and_never_the_other_way_round(roll: float) -> None:
    route = canary(50)
    order = plan(route, 0.0, roll).upstreams
    assert order in (("a",), ("b", "a"))
    assert plan(route, 0.0, roll, None, without("b")).upstreams == ("a",)
    expected = () if order == ("a",) else ("b",)
    assert plan(route, 0.0, roll, None, without("a")).upstreams == expected
    assert "b" in plan(canary(50, ("b",)), 0.0, roll).upstreams, "unless a list says so"


def test_a_canary_that_is_out_leaves_its_callers_to_the_primary_and_its_stand_ins() -> None:
    route = canary(100, ("spare",))
    assert plan(route, 0.0, 0.5).upstreams == ("b", "spare", "a")
    assert plan(route, 0.0, 0.5, None, without("b")).upstreams == ("a", "spare")
    assert plan(route, 0.0, 0.5, None, Health(shy={"b"})).upstreams == ("a", "spare")
    assert plan(route, 0.0, 0.5, None, Health({"a": 1.0}, {"b"})).upstreams == ("spare", "b")


# ---- callers


@given(key=st.text(max_size=20), rolls=st.lists(ROLLS, min_size=2, max_size=10), weights=st.tuples(WEIGHTS, WEIGHTS))
def test_a_caller_stays_on_its_side(key: str, rolls: list[float], weights: tuple[float, float]) -> None:
    route = weighted(*weights, 1.0, sticky=Sticky("key"))
    assert len({plan(route, 0.0, roll, key).upstreams for roll in rolls}) == 1


def test_who_has_no_key_is_drawn() -> None:
    assert firsts(weighted(3, 1, sticky=Sticky("user"))) == {"a": 7500, "b": 2500}


@given(st.text(max_size=20), st.sampled_from(NAMES[:4]))
def test_a_caller_whose_target_is_down_goes_to_the_next_in_its_plan_and_comes_back(key: str, down: str) -> None:
    route = weighted(4, 3, 2, 1, sticky=Sticky("key"))
    usual = plan(route, 0.0, 0.5, key).upstreams
    now = plan(route, 0.0, 0.5, key, without({down})).upstreams
    assert now[0] == (usual[1] if usual[0] == down else usual[0])


# ---- replicas and orders


@given(ROLLS, st.integers(1, 20))
def test_of_two_replicas_the_less_busy_one_is_asked_and_the_other_is_next(roll: float, more: int) -> None:
    route = weighted(1, 1, 1, strategy=Strategy.BALANCED)
    for busy in NAMES[:3]:
        order = plan(route, 0.0, roll, None, Health(loads={busy: Load(more)})).upstreams
        assert order[0] != busy
        assert set(order) == set(NAMES[:3])


def test_idle_replicas_share_evenly() -> None:
    counts = firsts(weighted(1, 1, 1, 1, 0, strategy=Strategy.BALANCED))
    assert set(counts) == set(NAMES[:4])
    assert all(abs(times - CYCLE / 4) <= 2 for times in counts.values())


@given(st.sets(st.sampled_from(NAMES[:3])), ROLLS)
def test_failover_asks_the_first_that_is_there(down: set[str], roll: float) -> None:
    route = weighted(1, 1, 1, strategy=Strategy.FAILOVER)
    assert plan(route, 0.0, roll, None, without(down)).upstreams == tuple(n for n in NAMES[:3] if n not in down)


# ---- the table


def test_a_policy_named_like_an_upstream_wins_and_its_target_of_that_name_is_the_upstream() -> None:
    policy = RoutePolicy("chat", Strategy.FAILOVER, (Target("chat"), Target("a")))
    table = compile_routes(UPSTREAMS, {"chat": policy}, {})
    route = table.find("chat")
    assert route is not None
    assert plan(route, 0.0, 0.5).upstreams == ("chat", "a")


def test_a_name_that_nobody_bears_leads_to_the_default_or_nowhere() -> None:
    assert compile_routes(UPSTREAMS, {}, {}).find("other") is None
    table = compile_routes(UPSTREAMS, {}, {"a": ["b"]}, default="a")
    assert table.find("other") is table.find("a")
    assert table.find("b") is not table.find("a")


def test_a_route_keeps_the_bounds_of_its_policy() -> None:
    policy = RoutePolicy("chat", Strategy.FAILOVER, (Target("a"),), timeout_s=3.0, first_token_timeout_s=1.0)
    route = compile_route(policy, {})
    assert (route.timeout_s, route.first_token_timeout_s) == (3.0, 1.0)
