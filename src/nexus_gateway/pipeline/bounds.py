"""What every attempt shares: the clock, the global limits, and who hears of what routing does."""

from collections.abc import Callable
from dataclasses import dataclass

from nexus_gateway.observe.base import RoutingObserver

from .endpoint import Bound


@dataclass(frozen=True, slots=True)
class Bounds:
    """`deadline`: all attempts of one request together; None: as many times an attempt's limit as there may be."""

    clock: Callable[[], float]
    deadline: Bound | None
    stream_idle: Bound
    stream_maximum: Bound
    max_answer_bytes: int
    events: RoutingObserver
