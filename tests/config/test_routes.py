"""Policies, fallbacks and the shadow target: every name leads to an upstream, every share makes sense."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.config.runtime import Runtime, ShadowSpec
from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.core.policies import RoutePolicy, Sticky, Strategy, Target

UPSTREAMS = "primary=mock://a;canary=mock://b;spare=mock://c;chat=mock://d"


def runtime_of(**variables: str) -> Runtime:
    return load({"GATEWAY_UPSTREAMS": UPSTREAMS, **variables}).runtime


def policy_of(members: dict[str, Any], name: str = "chat") -> RoutePolicy:
    return runtime_of(GATEWAY_ROUTE_POLICIES=json.dumps({name: members})).policies[name]


def refusals(**variables: str) -> list[str]:
    with pytest.raises(ConfigurationProblems) as refusal:
        runtime_of(**variables)
    return [str(problem) for problem in refusal.value.problems]


def refusal_of(members: object, name: str = "chat") -> str:
    """The only problem of a policy."""
    (problem,) = refusals(GATEWAY_ROUTE_POLICIES=json.dumps({name: members}))
    return problem


CANARY = {"strategy": "canary", "primary": "primary", "canary": "canary", "percent": 5}
WEIGHTED = {"strategy": "weighted", "targets": [{"name": "primary", "weight": 90}, {"name": "canary", "weight": 10}]}


def test_the_weighted_example() -> None:
    assert policy_of(WEIGHTED) == RoutePolicy("chat", Strategy.WEIGHTED, (Target("primary", 90), Target("canary", 10)))


def test_the_canary_example() -> None:
    assert policy_of(CANARY) == RoutePolicy("chat", Strategy.CANARY, (Target("primary", 95), Target("canary", 5)))


def test_replicas_and_an_order() -> None:
    assert policy_of({"strategy": "balanced", "targets": ["primary", {"name": "spare", "weight": 0}]}).targets == (
        Target("primary"),
        Target("spare", 0),
    )
    assert policy_of({"strategy": "failover", "targets": ["spare", {"name": "primary"}]}).targets == (
        Target("spare"),
        Target("primary"),
    )


def test_what_every_policy_may_set() -> None:
    policy = policy_of(
        {
            **CANARY,
            "sticky": "header:X-Tenant",
            "timeout_seconds": 2.5,
            "first_token_timeout_seconds": 1,
            "max_attempts": 4,
            "fallbacks": ["spare"],
        }
    )
    assert policy.sticky == Sticky("header", "x-tenant")
    assert (policy.timeout_s, policy.first_token_timeout_s, policy.max_attempts) == (2.5, 1, 4)
    assert policy.fallbacks == ("spare",)
    assert policy_of(CANARY).fallbacks is None
    assert policy_of({**CANARY, "fallbacks": []}).fallbacks == ()


@pytest.mark.parametrize("by", ["key", "user"])
def test_sticky_by(by: str) -> None:
    assert policy_of({**WEIGHTED, "sticky": by}).sticky == Sticky(by)


def test_a_target_named_like_its_policy_is_the_upstream() -> None:
    assert policy_of({"strategy": "failover", "targets": ["chat"]}).targets == (Target("chat"),)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "strategy is missing"),
        ({"strategy": "weigthed", "targets": ["primary"]}, "Did you mean weighted?"),
        ({"strategy": 5}, "strategy"),
        ({"strategy": "weighted"}, "targets is missing"),
        ({"strategy": "weighted", "targets": []}, "not a list of targets"),
        ({"strategy": "weighted", "targets": {"primary": 1}}, "not a list of targets"),
        ({"strategy": "weighted", "targets": ["primary"]}, "targets[1]: This is not a target"),
        ({"strategy": "weighted", "targets": [{"name": "primary"}]}, "weight is missing"),
        ({"strategy": "weighted", "targets": [{"weight": 1}]}, "name is missing"),
        ({"strategy": "weighted", "targets": [{"name": "primary", "weight": -1}]}, "targets[1].weight"),
        ({"strategy": "weighted", "targets": [{"name": "primary", "weight": True}]}, "not a number"),
        ({"strategy": "weighted", "targets": [{"name": "primary", "weight": "nan"}]}, "not a finite number"),
        ({"strategy": "weighted", "targets": [{"name": "primary", "weight": 10**400}]}, "not finite"),
        ({"strategy": "weighted", "targets": [{"name": "primary", "weight": 0}]}, "sum to 0"),
        ({"strategy": "weighted", "targets": [{"name": "primary", "wieght": 1, "weight": 1}]}, "Did you mean weight?"),
        ({"strategy": "weighted", "targets": [{"name": "nobody", "weight": 1}]}, "'nobody' is no upstream"),
        ({"strategy": "balanced", "targets": ["primary", "primary"]}, "stands twice"),
        ({"strategy": "failover", "targets": [{"name": "primary", "weight": 1}]}, "'weight' is not known"),
        ({"strategy": "failover", "targets": ["primary"], "sticky": "key"}, "'sticky' is not known"),
        ({**CANARY, "primary": "canary"}, "'canary' stands twice"),
        ({**CANARY, "percent": 101}, "out of range"),
        ({**CANARY, "percent": -1}, "out of range"),
        ({**CANARY, "targets": []}, "'targets' is not known"),
        ({**CANARY, "canary": None}, "chat.canary"),
        ({**CANARY, "sticky": "cookie"}, '"key", "user" or'),
        ({**CANARY, "sticky": "header:"}, '"key", "user" or'),
        ({**CANARY, "sticky": "header:a b"}, "not the name of a header"),
        ({**CANARY, "timeout_seconds": 0}, "timeout_seconds"),
        ({**CANARY, "first_token_timeout_seconds": "inf"}, "first_token_timeout_seconds"),
        ({**CANARY, "max_attempts": 0}, "max_attempts"),
        ({**CANARY, "fallbacks": ["nobody"]}, "fallbacks: 'nobody' is no upstream"),
        ({**CANARY, "fallbacks": ["primry"]}, "Did you mean primary?"),
        ({**CANARY, "fallbacks": 5}, "fallbacks"),
    ],
)
def test_a_bad_policy_is_refused(members: object, why: str) -> None:
    assert why in refusal_of(members)


def test_a_policy_that_leads_to_itself_or_to_another_is_refused() -> None:
    assert "names itself" in refusal_of({"strategy": "failover", "targets": ["loop"]}, "loop")
    policies = {
        "one": {"strategy": "failover", "targets": ["two"]},
        "two": {"strategy": "failover", "targets": ["chat"]},
    }
    (problem,) = refusals(GATEWAY_ROUTE_POLICIES=json.dumps(policies))
    assert "'two' is a policy" in problem


@pytest.mark.parametrize("percent", [0, 100])
def test_never_and_always_are_shares_too(percent: int) -> None:
    assert policy_of({**CANARY, "percent": percent}).targets[1].weight == percent


@given(weights=st.lists(st.floats(0, 1e9), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_weights_are_kept_as_given_unless_all_are_zero(weights: list[float]) -> None:
    names = ("primary", "canary", "spare", "chat")
    targets = [{"name": name, "weight": weight} for name, weight in zip(names, weights, strict=False)]
    members = {"strategy": "weighted", "targets": targets}
    if any(weights):
        assert [target.weight for target in policy_of(members).targets] == weights
    else:
        assert "sum to 0" in refusal_of(members)


def test_fallbacks() -> None:
    runtime = runtime_of(GATEWAY_FALLBACKS=" primary = canary , spare ; canary=primary;")
    assert runtime.fallbacks == {"primary": ("canary", "spare"), "canary": ("primary",)}


def test_a_policy_may_have_fallbacks() -> None:
    policies = json.dumps({"team": CANARY})
    assert runtime_of(GATEWAY_FALLBACKS="team=spare", GATEWAY_ROUTE_POLICIES=policies).fallbacks == {"team": ("spare",)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("primary", "[1]: The entry has no ="),
        ("primary=primary", "falls back to itself"),
        ("primary=canary,canary", "stands twice"),
        ("primary=canary;primary=spare", "stands twice"),
        ("primary=nobody", "'nobody' is no upstream"),
        ("primry=canary", "Did you mean primary?"),
        ("primary=", "list is empty"),
        ("a b=canary", "not one of an upstream"),
    ],
)
def test_bad_fallbacks_are_refused(text: str, why: str) -> None:
    (problem,) = refusals(GATEWAY_FALLBACKS=text)
    assert why in problem


def test_a_shadow_needs_a_target() -> None:
    assert runtime_of(GATEWAY_SHADOW_PERCENT="5").shadow is None
    assert runtime_of(
        GATEWAY_SHADOW_ENABLED="true", GATEWAY_SHADOW_PERCENT="5", GATEWAY_SHADOW_TARGET="spare"
    ).shadow == ShadowSpec("spare", 5)
    (problem,) = refusals(GATEWAY_SHADOW_ENABLED="true")
    assert "No target" in problem
