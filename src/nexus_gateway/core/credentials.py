"""Finds the caller behind a credential.

For:      one look-up per request, by digest: how long it takes tells nothing about the keys that exist.
Touches:  nothing. Keys are random and long, so that SHA-256 needs neither salt nor stretching.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .access import CallerPolicy
from .errors import Unauthenticated
from .model import Principal

INVALID_KEY: Final = "The API key is missing or not valid."
KEY_HEADERS: Final = (b"x-api-key", b"api-key")


def key_id_of(digest: bytes) -> str:
    """How a key is called in logs and metrics."""
    return f"key-{digest.hex()[:8]}"


class KeyRing:
    """The accepted keys, known by their SHA-256 digests only.

    A key that is disabled is in no ring, and one that may expire stands apart: the others are found without a clock.
    """

    __slots__ = ("_expiring", "_principals")

    def __init__(self, policies: Mapping[bytes, CallerPolicy]) -> None:
        usable = {digest: policy for digest, policy in policies.items() if not policy.disabled}
        principals = {digest: policy.principal(key_id_of(digest)) for digest, policy in usable.items()}
        self._expiring = {
            digest: (principals.pop(digest), policy.expires_at)
            for digest, policy in usable.items()
            if policy.expires_at is not None
        }
        self._principals = principals

    def find(self, credential: bytes, wall_clock: Callable[[], float]) -> Principal | None:
        """None for unknown, disabled and expired keys alike. `wall_clock` gives Unix time in seconds."""
        digest = hashlib.sha256(credential).digest()
        principal = self._principals.get(digest)
        if principal is not None:
            return principal
        expiring = self._expiring.get(digest)
        return expiring[0] if expiring is not None and wall_clock() < expiring[1] else None


def read_credential(headers: Sequence[tuple[bytes, bytes]], fields: Mapping[bytes, bytes]) -> bytes:
    """The one credential of a request, from `Authorization: Bearer`, `X-API-Key` or `api-key`.

    `fields` are the headers by name, the last of each. Raises Unauthenticated when there is none, or two that differ.
    """
    key, bearer = fields.get(b"x-api-key"), fields.get(b"authorization")
    if key and bearer is None and len(fields) == len(headers) and b"api-key" not in fields:
        return key
    found = [value for name in KEY_HEADERS if (value := fields.get(name)) is not None]
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


def is_token(credential: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a credential that is no key has the looks of a token: a Bearer value with two dots."""
    if credential.count(b".") != 2:
        return False
    return any(name == b"authorization" and _is_bearer(value) for name, value in headers)


def _is_bearer(value: bytes) -> bool:
    return value[:7].lower() == b"bearer "
