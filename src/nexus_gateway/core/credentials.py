"""Finds the caller behind a credential.

For:      one look-up per request, by digest: how long it takes tells nothing about the keys that exist.
Touches:  nothing. Keys are random and long, so that SHA-256 needs neither salt nor stretching.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from .errors import Unauthenticated
from .model import Principal

INVALID_KEY: Final = "The API key is missing or not valid."
KEY_HEADERS: Final = (b"x-api-key", b"api-key")


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


def read_credential(headers: Sequence[tuple[bytes, bytes]], fields: Mapping[bytes, bytes]) -> bytes:
    """The one credential of a request, from `Authorization: Bearer`, `X-API-Key` or `api-key`.

    `fields` are the headers by name, the last of each. Raises Unauthenticated when there is none, or two that differ.
    """
    found = [value for name in KEY_HEADERS if (value := fields.get(name)) is not None]
    bearer = fields.get(b"authorization")
    if bearer is not None and _is_bearer(bearer):  # another scheme is meant for a proxy before us
        found.append(bearer[7:].strip())
    if len(fields) != len(headers):
        found += [value for name, value in headers if name in KEY_HEADERS]
        found += [value[7:].strip() for name, value in headers if name == b"authorization" and _is_bearer(value)]
    if len(found) > 1 and len(set(found)) > 1:
        raise Unauthenticated("Two different credentials were given; send one.")
    if not found or not found[0]:
        raise Unauthenticated(INVALID_KEY)
    return found[0]


def _is_bearer(value: bytes) -> bool:
    return value[:7].lower() == b"bearer "
