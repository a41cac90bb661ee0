"""Finds the caller behind a credential.

For:      one look-up per request, by digest: how long it takes tells nothing about the keys that exist.
Touches:  nothing. Keys are random and long, so that SHA-256 needs neither salt nor stretching.
"""

import hashlib
from collections.abc import Iterable, Mapping

from .errors import Unauthenticated
from .model import Principal

INVALID_KEY = "The API key is missing or not valid."


def key_id_of(digest: bytes) -> str:
    """How a key is called in logs and metrics."""
    return f"key-{digest.hex()[:8]}"


class KeyRing:
    """The accepted keys, known by their SHA-256 digests only."""

    __slots__ = ("_principals",)

    def __init__(self, principals: Mapping[bytes, Principal]) -> None:
        self._principals = dict(principals)

    def find(self, credential: bytes) -> Principal:
        """Raises Unauthenticated."""
        principal = self._principals.get(hashlib.sha256(credential).digest())
        if principal is None:
            raise Unauthenticated(INVALID_KEY)
        return principal


def read_credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The one credential of a request, from `Authorization: Bearer`, `X-API-Key` or `api-key`.

    Raises Unauthenticated when there is none, or two that differ.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() != b"bearer ":
                continue  # another scheme is meant for a proxy before us
            value = value[7:].strip()
        elif name != b"x-api-key" and name != b"api-key":
            continue
        if found is not None and found != value:
            raise Unauthenticated("Two different credentials were given; send one.")
        found = value
    if not found:
        raise Unauthenticated(INVALID_KEY)
    return found
