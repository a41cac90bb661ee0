"""What the configuration will do, without doing it.

For:      telling an operator the plan of a request, or the shares over many.
Touches:  nothing.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from .health import without
from .routing import Plan, Route, plan
from .shares import roll_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """The different plans with how often each came up, the most frequent first."""

    plans: tuple[tuple[Plan, int], ...]

    @property
    def shares(self) -> dict[str, float]:
        """Which part of the requests each upstream is asked for first. Requests that nobody may answer have none."""
        total = sum(count for _, count in self.plans)
        firsts: Counter[str] = Counter()
        for each, count in self.plans:
            if each.upstreams:
                firsts[each.upstreams[0]] += count
        return {upstream: count / total for upstream, count in firsts.most_common()}


def explain(
    route: Route, samples: int = 1, *, sticky_key: str | None = None, down: Collection[str] = ()
) -> Explanation:
    """Plans for `samples` successive requests, while the upstreams in `down` may not be asked and the others are idle.

    On a sticky route, without a key every request comes from another caller.
    """
    health = without(down)
    plans: Counter[Plan] = Counter()
    for number in range(samples):
        key = f"caller {number}" if sticky_key is None and samples > 1 else sticky_key
        plans[plan(route, 0.0, roll_of(number), key, health)] += 1
    return Explanation(tuple(plans.most_common()))
