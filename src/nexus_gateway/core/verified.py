"""Remembers the tokens that were checked, so that a signature is worked out once and not on every request.

For:      the principal of a token that was good a moment ago.
Touches:  nothing: the time is brought. Never more than `capacity` tokens are kept, the most recently used ones.
"""

from collections import OrderedDict
from typing import Final

from .model import Principal

CAPACITY: Final = 10_000  # about 3 MB


class VerifiedTokens:
    """Tokens by the SHA-256 of all of their bytes: a part of a token would stand for other tokens too."""

    __slots__ = ("_capacity", "_entries")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, digest: bytes, now_unix_s: float) -> Principal | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, until_unix_s = entry
        if now_unix_s >= until_unix_s:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return principal

    def keep(self, digest: bytes, principal: Principal, until_unix_s: float, now_unix_s: float) -> None:
        """Until it expires; a token that lives on its leeway is not kept."""
        if now_unix_s >= until_unix_s:
            return
        self._entries[digest] = principal, until_unix_s
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """For when keys change: a token is no better than the key that signed it."""
        self._entries.clear()
