"""What readers of finished requests have in common."""

from typing import Protocol

from nexus_gateway.core.model import CallRecord


class Observer(Protocol):
    def started(self) -> None:
        """A request for inference has arrived."""
        ...

    def finished(self, record: CallRecord) -> None:
        """It has ended, however it did. Called exactly once for each `started`, and never waits."""
        ...


class Observers:
    """Several observers as one, asked in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self) -> None:
        for observer in self._observers:
            observer.started()

    def finished(self, record: CallRecord) -> None:
        for observer in self._observers:
            observer.finished(record)
