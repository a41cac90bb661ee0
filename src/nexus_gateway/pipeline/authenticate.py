"""Who calls: the first step of the journey, before anything of the body is read."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from nexus_gateway.core.access import CallerPolicy
from nexus_gateway.core.credentials import INVALID_KEY, KeyRing, is_token, read_credential
from nexus_gateway.core.errors import InvalidToken, RateLimited, Unauthenticated
from nexus_gateway.core.forwarded import Clients, Network
from nexus_gateway.core.guessing import Guesses
from nexus_gateway.core.jwt import INVALID_TOKEN, KeyNotFound, KeySource, TokenRules, check
from nexus_gateway.core.model import Principal
from nexus_gateway.core.verified import VerifiedTokens
from nexus_gateway.upstreams.base import Headers


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What a token is held against. `policies` are by subject, `usual` is for all the others.

    `look_again` waits, not for long, for the keys as they are now; False when they were looked at just before.
    """

    keys: KeySource
    rules: TokenRules
    policies: Mapping[str, CallerPolicy]
    usual: CallerPolicy
    verified: VerifiedTokens
    look_again: Callable[[], Awaitable[bool]] | None = None


class Authenticator:
    """Holds the accepted keys, and what tokens are checked with. `wall_clock` gives Unix time in seconds."""

    def __init__(
        self,
        keys: KeyRing,
        tokens: TokenCheck | None,
        trusted_proxies: Sequence[Network],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self.address_of = Clients(trusted_proxies).find
        """The caller's own address, where the connection's other end is a proxy that is trusted to tell it."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._guesses = Guesses()

    def recognise(self, headers: Headers, fields: Mapping[bytes, bytes]) -> Principal | None:
        """Who calls, where that takes neither a signature nor a wait: by a key, or by a token that was seen before.

        None: `look_closer`, which also says what is wrong with a credential.
        """
        try:
            credential = read_credential(headers, fields)
        except Unauthenticated:
            return None
        principal = self._keys.find(credential, self._wall_clock)
        if principal is None and self._tokens is not None and is_token(credential, headers):
            principal = self._tokens.verified.find(hashlib.sha256(credential).digest(), self._wall_clock())
        return principal

    async def authenticate(self, headers: Headers, fields: Mapping[bytes, bytes], client: str | None) -> Principal:
        """Both in one, for who need not save the wait. Raises as `look_closer`."""
        return self.recognise(headers, fields) or await self.look_closer(headers, fields, client)

    async def look_closer(self, headers: Headers, fields: Mapping[bytes, bytes], client: str | None) -> Principal:
        """Who calls where `recognise` found nobody. `fields` are the headers by name, `client` is the address that the
        connection comes from.

        Raises Unauthenticated, InvalidToken, or RateLimited when one address has failed too often.
        """
        try:
            credential = read_credential(headers, fields)
            if self._tokens is None or not is_token(credential, headers):
                raise Unauthenticated(INVALID_KEY)
            return await self._check(credential, self._tokens)
        except (Unauthenticated, InvalidToken):
            self._slow_down(headers, client)
            raise

    async def _check(self, token: bytes, tokens: TokenCheck) -> Principal:
        digest = hashlib.sha256(token).digest()
        try:
            return self._verify(token, digest, tokens)
        except KeyNotFound:
            if tokens.look_again is None or not await tokens.look_again():
                raise InvalidToken(INVALID_TOKEN) from None
        try:
            return self._verify(token, digest, tokens)
        except KeyNotFound:
            raise InvalidToken(INVALID_TOKEN) from None

    def _verify(self, token: bytes, digest: bytes, tokens: TokenCheck) -> Principal:
        now_unix_s = self._wall_clock()
        claims = check(token, tokens.keys, tokens.rules, now_unix_s)
        policy = tokens.policies.get(claims.subject, tokens.usual)
        if not policy.admits(now_unix_s):
            raise InvalidToken(INVALID_TOKEN)
        principal = policy.principal(claims.key_id)
        until_unix_s = claims.expires_at if policy.expires_at is None else min(claims.expires_at, policy.expires_at)
        tokens.verified.keep(digest, principal, until_unix_s, now_unix_s)
        return principal

    def _slow_down(self, headers: Headers, client: str | None) -> None:
        wait_s = self._guesses.fail(self.address_of(client, headers), self._clock())
        if wait_s:
            raise RateLimited(
                "There were too many failed attempts from this address; a valid credential is let through at once.",
                resource="requests",
                retry_after_s=wait_s,
            ) from None
