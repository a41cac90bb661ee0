"""What readers of finished requests have in common."""

from typing import Protocol

from nexus_gateway.core.model import CallRecord
from nexus_gateway.core.shadow_compare import Comparison


class Observer(Protocol):
    def started(self) -> None:
        """A request for inference has arrived."""
        ...

    def finished(self, record: CallRecord) -> None:
        """It has ended, however it did. Called exactly once for each `started`, and never waits."""
        ...


class RoutingObserver(Protocol):
    """Who hears of what routing does, while it does it. Never waits."""

    def fell_back(self, route: str, upstream: str) -> None:
        """Another upstream than the chosen one answered."""
        ...

    def retry_refused(self, upstream: str) -> None:
        """A repetition was worth trying, but the budget was used up."""
        ...

    def cooled(self, upstream: str) -> None:
        """The upstream answered 429 and is left alone for a while."""
        ...

    def breaker_changed(self, upstream: str, before: str, after: str) -> None:
        """A breaker went from one state into another."""
        ...


class ShadowObserver(Protocol):
    """Who hears of mirrored requests. Never waits."""

    def shadow_sent(self) -> None: ...

    def shadow_dropped(self, reason: str) -> None:
        """`reason` is of a closed set."""
        ...

    def shadow_compared(self, comparison: Comparison) -> None: ...


class AuditState(Protocol):
    """How the audit log stands."""

    @property
    def refuses(self) -> bool:
        """Whether requests are to be turned away, because nobody would ever know of them."""
        ...

    @property
    def failing(self) -> bool:
        """Whether records cannot be written just now."""
        ...

    @property
    def dropped(self) -> int:
        """Records that are lost."""
        ...


class Observers:
    """Several observers as one, asked in order."""

    def __init__(self, *observers: Observer) -> None:
        self._started = tuple(observer.started for observer in observers)
        self._finished = tuple(observer.finished for observer in observers)

    def started(self) -> None:
        for tell in self._started:
            tell()

    def finished(self, record: CallRecord) -> None:
        for tell in self._finished:
            tell(record)
