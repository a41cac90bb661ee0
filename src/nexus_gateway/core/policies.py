"""Route policies as nouns: which upstreams may answer a model name, and in what proportion.

For:      being read from the configuration and decided upon without it.
Touches:  nothing.
"""

from dataclasses import dataclass
from enum import Enum


class Strategy(Enum):
    """How a policy picks the first target. The value is its name in the configuration."""

    WEIGHTED = "weighted"
    CANARY = "canary"
    BALANCED = "balanced"
    FAILOVER = "failover"


@dataclass(frozen=True, slots=True)
class Sticky:
    """What keeps a caller on the same side: its key, the `user` of the body, or a header (lower case)."""

    by: str  # "key" | "user" | "header"
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream and its share. Only the proportion of weights counts; 0 means never."""

    upstream: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """One entry of GATEWAY_ROUTE_POLICIES, checked. Times in seconds; None where the global setting holds.

    `targets` of a canary policy are the primary and the canary, in this order, with weights that sum to 100; those of
    a failover policy stand in the order of preference. `fallbacks` is None when GATEWAY_FALLBACKS decides.
    """

    name: str
    strategy: Strategy
    targets: tuple[Target, ...]
    sticky: Sticky | None = None
    timeout_s: float | None = None
    first_token_timeout_s: float | None = None
    max_attempts: int | None = None
    fallbacks: tuple[str, ...] | None = None
