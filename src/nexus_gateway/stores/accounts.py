"""Accounts by caller, of which the idle are forgotten: memory is bounded by who was active of late."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Idle(Protocol):
    def is_idle(self, now_s: float) -> bool: ...


A = TypeVar("A", bound=Idle)


class Accounts(Generic[A]):
    """Opens an account when a caller first needs one, and as newcomers arrive, closes those that no longer matter."""

    def __init__(self, new: Callable[[], A]) -> None:
        self._new = new
        self._accounts: OrderedDict[str, A] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def __iter__(self) -> Iterator[tuple[str, A]]:
        return iter(self._accounts.items())

    def find(self, key_id: str) -> A | None:
        return self._accounts.get(key_id)

    def open(self, key_id: str, now_s: float) -> A:
        account = self._accounts.get(key_id)
        if account is None:
            self._forget_idle(now_s)
            account = self._accounts[key_id] = self._new()
        return account

    def clear(self) -> None:
        self._accounts.clear()

    def _forget_idle(self, now_s: float) -> None:
        """Check the two that were checked longest ago: two for each newcomer, so the idle go faster than any come."""
        for _ in range(min(2, len(self._accounts))):
            key_id, account = next(iter(self._accounts.items()))
            if account.is_idle(now_s):
                del self._accounts[key_id]
            else:
                self._accounts.move_to_end(key_id)
