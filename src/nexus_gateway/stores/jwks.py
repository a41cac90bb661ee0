"""The keys that an issuer publishes (a JWK Set), fetched off the request path.

For:      checking tokens with keys that may change at any time.
Touches:  the issuer's server: when it starts, every few minutes, and when a token names a key that is not known.
Source:   RFC 7517.

A request waits for a fetch at most `WAIT_S`, and only when a fetch could help it. The keys that are known hold while
the issuer cannot be reached.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from nexus_gateway.core.jwt import VerifyingKey, key_of_jwk

from .fetch import FetchFailed, fetch

log = logging.getLogger(__name__)

TTL_S: Final = 300.0
RETRY_S: Final = 15.0  # after a fetch that failed
COOLDOWN_S: Final = 10.0  # between two fetches: whoever makes names of keys up costs the issuer no more than that
WAIT_S: Final = 2.0  # of a request, for a fetch that could make its token good
MAX_KEYS: Final = 100

Fetch = Callable[[str], Awaitable[bytes]]


class UnusableKeys(Exception):
    """What was fetched is no set of keys. The text repeats nothing of it."""


class PublishedKeys:
    """A `KeySource` over the network. `on_change` is told when keys were replaced: what they vouched for is over."""

    def __init__(
        self,
        url: str,
        algorithms: Collection[str],
        on_change: Callable[[], None],
        *,
        fetch: Fetch = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._algorithms = frozenset(algorithms)
        self._on_change = on_change
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str | None, tuple[VerifyingKey, ...]] = {}
        self._content = b""
        self._is_fetching = False
        self._fetched_at_s: float | None = None
        self._wanted = asyncio.Event()
        self._done = asyncio.Event()  # of the fetch that is under way or comes next
        self._is_failing = False

    def find(self, algorithm: str, kid: str | None) -> VerifyingKey | None:
        """The one key of this name that fits; for a token that names none, the only key that fits."""
        fitting = [key for key in self._keys.get(kid, ()) if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    async def look_again(self) -> bool:
        """Wait for a fetch. False when one has just been made, or takes too long."""
        if not self._is_fetching:
            if self._fetched_at_s is not None and self._clock() - self._fetched_at_s < COOLDOWN_S:
                return False
            self._wanted.set()
        try:
            async with asyncio.timeout(WAIT_S):
                await self._done.wait()
        except TimeoutError:
            return False
        return True

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self.renew()
            self._wanted.clear()
            try:
                async with asyncio.timeout(RETRY_S if self._is_failing else TTL_S):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def renew(self) -> None:
        """Fetch once; keep what is known when that fails."""
        self._is_fetching = True
        try:
            content = await self._fetch(self._url)
            keys = read_keys(content, self._algorithms)
        except (FetchFailed, UnusableKeys) as exc:
            if not self._is_failing:
                log.warning("jwks_failed", extra={"cause": str(exc)})
            self._is_failing = True
        else:
            if self._is_failing:
                log.warning("jwks_recovered")
            self._is_failing = False
            if content != self._content:
                self._keys, self._content = keys, content
                self._on_change()
        finally:
            self._is_fetching = False
            self._fetched_at_s = self._clock()
            self._done.set()
            self._done = asyncio.Event()


def read_keys(content: bytes, algorithms: Collection[str]) -> Mapping[str | None, tuple[VerifyingKey, ...]]:
    """Keys by name, all of them under None too. Keys for something else are left out. Raises UnusableKeys."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableKeys("not JSON") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise UnusableKeys("not a set of keys")
    found: dict[str | None, list[VerifyingKey]] = defaultdict(list)
    for member in members:
        key = _read_key(member, algorithms)
        if key is not None:
            found[None].append(key)
            if isinstance(member.get("kid"), str):
                found[member["kid"]].append(key)
    if not found:
        raise UnusableKeys("no key in it is for signatures that are accepted")
    return {kid: tuple(keys) for kid, keys in found.items()}


def _read_key(member: Any, algorithms: Collection[str]) -> VerifyingKey | None:
    if not isinstance(member, dict):
        return None
    try:
        return key_of_jwk(member, algorithms)
    except ValueError:
        return None
