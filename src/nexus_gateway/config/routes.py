"""Reads route policies, fallbacks and the shadow target, and checks that every name leads to an upstream.

For:      typed policies that `core` decides on.
Touches:  nothing.
"""

from collections.abc import Collection, Mapping
from typing import Final

from nexus_gateway.core.policies import RoutePolicy, Sticky, Strategy, Target

from .members import Members
from .problems import Report, at, did_you_mean, shown
from .upstreams import NAME, NAME_REMEDY
from .values import BadValue, header_name, number, one_of, text, whole, words

_WEIGHT: Final = number("Give a weight of 0 or more.", least=0, most=1_000_000_000)
_PERCENT: Final = number("Give a number from 0 to 100.", least=0, most=100)
_SECONDS: Final = number("Give seconds above 0, such as 10 or 0.5.", above=0, most=31_536_000)
_ATTEMPTS: Final = whole("Give a whole number from 1 to 100.", least=1, most=100)
_STRATEGIES: Final = tuple(strategy.value for strategy in Strategy)
_TARGETS_REMEDY: Final = 'Write "targets": [{"name": …, "weight": …}, …].'
_FALLBACKS_REMEDY: Final = "Write a=b,c;d=e: who stands in for a, then for d."


def compile_policies(
    given: Mapping[str, object], place: str, upstreams: Collection[str], report: Report
) -> dict[str, RoutePolicy]:
    """The sound policies by name. `upstreams` are all names that targets may bear."""
    policies = {}
    for position, (name, members) in enumerate(given.items(), start=1):
        if not NAME.fullmatch(name):
            report.refuse(at(place, position), "The name is not one for a policy.", NAME_REMEDY)
            continue
        where = at(place, name)
        if not isinstance(members, dict):
            report.refuse(where, "This is not an object.", f'Give a "strategy", one of {", ".join(_STRATEGIES)}.')
            continue
        policy = _Policy(name, members, where, upstreams, given, report).compile()
        if policy is not None:
            policies[name] = policy
    return policies


class _Policy:
    """Compiles one policy."""

    def __init__(
        self,
        name: str,
        given: Mapping[str, object],
        place: str,
        upstreams: Collection[str],
        policies: Collection[str],
        report: Report,
    ) -> None:
        self._name = name
        self._place = place
        self._upstreams = upstreams
        self._policies = policies
        self._report = report
        self._members = Members(given, place, report)

    def compile(self) -> RoutePolicy | None:
        """None when anything about it was refused."""
        before = len(self._report.problems)
        members = self._members
        word = members.require("strategy", one_of(_STRATEGIES), f"Give one of {', '.join(_STRATEGIES)}.")
        if word is None:
            return None  # what else it may hold depends on it
        strategy = Strategy(word)
        targets = self._canary() if strategy is Strategy.CANARY else self._targets(strategy)
        sticky = None
        if strategy in (Strategy.WEIGHTED, Strategy.CANARY):
            sticky = members.take("sticky", _sticky)
        timeout_s = members.take("timeout_seconds", _SECONDS)
        first_token_timeout_s = members.take("first_token_timeout_seconds", _SECONDS)
        max_attempts = members.take("max_attempts", _ATTEMPTS)
        fallbacks = members.take("fallbacks", words)
        self._check_names(fallbacks or (), at(self._place, "fallbacks"))
        members.finish()
        if len(self._report.problems) > before:
            return None
        return RoutePolicy(
            self._name, strategy, targets, sticky, timeout_s, first_token_timeout_s, max_attempts, fallbacks
        )

    def _canary(self) -> tuple[Target, ...]:
        primary = self._members.require("primary", text, "Name the upstream that gets the rest.")
        canary = self._members.require("canary", text, "Name the upstream on trial.")
        percent = self._members.require("percent", _PERCENT, "Give the share of the canary, from 0 to 100.")
        names = [name for name in (primary, canary) if name is not None]
        self._check_names(names, self._place)
        if primary is None or canary is None or percent is None:
            return ()
        return Target(primary, 100 - percent), Target(canary, percent)

    def _targets(self, strategy: Strategy) -> tuple[Target, ...]:
        given = self._members.require("targets", _list, _TARGETS_REMEDY) or []
        place = at(self._place, "targets")
        found = [self._target(entry, at(place, i), strategy) for i, entry in enumerate(given, start=1)]
        targets = tuple(target for target in found if target is not None)
        self._check_names([target.upstream for target in targets], place)
        if targets and len(targets) == len(given) and not any(target.weight for target in targets):
            self._report.refuse(place, "The weights sum to 0.", "Give at least one target a weight above 0.")
        return targets

    def _target(self, given: object, place: str, strategy: Strategy) -> Target | None:
        if isinstance(given, str) and strategy is not Strategy.WEIGHTED:
            given = {"name": given}
        if not isinstance(given, dict):
            self._report.refuse(place, "This is not a target.", _TARGETS_REMEDY)
            return None
        members = Members(given, place, self._report)
        name = members.require("name", text, "Name an upstream.")
        weight: float | None = 1.0
        if strategy is Strategy.WEIGHTED:
            weight = members.require("weight", _WEIGHT, "Give one; 0 means never.")
        elif strategy is Strategy.BALANCED and "weight" in given:
            weight = members.take("weight", _WEIGHT)
        members.finish()
        return None if name is None or weight is None else Target(name, weight)

    def _check_names(self, names: Collection[str], place: str) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                self._report.refuse(place, f"{shown(name)} stands twice.", "Name every upstream once.")
            seen.add(name)
            if name in self._upstreams:
                continue  # a target named like its own policy is the upstream of that name
            if name == self._name:
                what, remedy = "The policy names itself.", "Name upstreams."
            elif name in self._policies:
                what, remedy = f"{shown(name)} is a policy.", "Name upstreams: policies do not lead to each other."
            else:
                what, remedy = f"{shown(name)} is no upstream.", did_you_mean(name, self._upstreams)
            self._report.refuse(place, what, remedy)


def _list(value: object) -> list[object]:
    if isinstance(value, list) and value:
        return value
    raise BadValue("This is not a list of targets.", _TARGETS_REMEDY)


def _sticky(value: object) -> Sticky:
    word = text(value)
    by, _, header = word.partition(":")
    if by == "header" and header:
        return Sticky("header", header_name(header))
    if word in ("key", "user"):
        return Sticky(word)
    raise BadValue(f"{shown(word)} is unknown.", 'Write "key", "user" or "header:<name>".')


def compile_fallbacks(
    given: object, place: str, upstreams: Collection[str], policies: Collection[str], report: Report
) -> dict[str, tuple[str, ...]]:
    """Who stands in for whom, in order. Lists are not followed on, so that a ring is harmless."""
    fallbacks: dict[str, tuple[str, ...]] = {}
    known = (*upstreams, *policies)
    for position, (name, value) in enumerate(_fallback_entries(given, place, report), start=1):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            report.refuse(at(place, position), "The name is not one of an upstream.", NAME_REMEDY)
            continue
        where = at(place, name)
        try:
            others = words(value)
        except BadValue as exc:
            report.refuse(where, exc.what, exc.remedy)
            continue
        if name in fallbacks:
            report.refuse(where, "The name stands twice.", "Write one list for it.")
        if name not in known:
            report.refuse(where, f"{shown(name)} is neither upstream nor policy.", did_you_mean(name, known))
        if not others:
            report.refuse(where, "The list is empty.", _FALLBACKS_REMEDY)
        _check_fallbacks(name, others, where, upstreams, report)
        fallbacks[name] = others
    return fallbacks


def _fallback_entries(given: object, place: str, report: Report) -> list[tuple[object, object]]:
    if isinstance(given, dict):
        return list(given.items())
    if not isinstance(given, str):
        report.refuse(place, "This is neither text nor a mapping.", _FALLBACKS_REMEDY)
        return []
    entries: list[tuple[object, object]] = []
    for position, entry in enumerate(filter(None, map(str.strip, given.split(";"))), start=1):
        name, equals, others = entry.partition("=")
        if equals:
            entries.append((name.strip(), others))
        else:
            report.refuse(at(place, position), "The entry has no =.", _FALLBACKS_REMEDY)
    return entries


def _check_fallbacks(
    name: str, others: Collection[str], place: str, upstreams: Collection[str], report: Report
) -> None:
    seen: set[str] = set()
    for other in others:
        if other in seen:
            report.refuse(place, f"{shown(other)} stands twice.", "Name every upstream once.")
        seen.add(other)
        if other == name:
            report.refuse(place, "It falls back to itself.", "Name other upstreams.")
        elif other not in upstreams:
            report.refuse(place, f"{shown(other)} is no upstream.", did_you_mean(other, upstreams))
