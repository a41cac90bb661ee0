"""Keys before tokens, tokens from memory, and nobody longer than the token says."""

import hashlib
from collections.abc import Mapping

import pytest

from nexus_gateway.core.access import CallerPolicy
from nexus_gateway.core.credentials import KeyRing
from nexus_gateway.core.errors import GatewayError, InvalidToken, RateLimited, Unauthenticated
from nexus_gateway.core.jwt import LEEWAY_S, TokenRules, VerifyingKey, key_of_secret
from nexus_gateway.core.model import Principal
from nexus_gateway.core.verified import VerifiedTokens
from nexus_gateway.pipeline.authenticate import Authenticator, TokenCheck
from tests.support.tokens import CLAIMS, NOW, SECRET, token

pytestmark = pytest.mark.anyio

KEY = b"a.key.with-two-dots"
EXPIRES_AT: float = CLAIMS["exp"]
CLIENT = "192.0.2.1"


class Keys:
    """A KeySource that counts, and learns the key only when it is asked to look again."""

    def __init__(self, key: VerifyingKey | None) -> None:
        self.key = key
        self.coming: VerifyingKey | None = None
        self.asked = 0
        self.looked = 0

    def find(self, _algorithm: str, _kid: str | None) -> VerifyingKey | None:
        self.asked += 1
        return self.key

    async def look_again(self) -> bool:
        self.looked += 1
        self.key = self.coming
        return self.coming is not None


class Door:
    """An Authenticator whose clocks stand still."""

    def __init__(self, keys: Keys | None = None, policies: Mapping[str, CallerPolicy] | None = None) -> None:
        self.now = NOW
        self.keys = keys or Keys(key_of_secret(SECRET))
        self.verified = VerifiedTokens()
        usual = CallerPolicy(60)
        tokens = TokenCheck(self.keys, TokenRules(), policies or {}, usual, self.verified, self.keys.look_again)
        ring = KeyRing({hashlib.sha256(KEY).digest(): usual})
        self._authenticator = Authenticator(ring, tokens, (), lambda: 1000.0, lambda: self.now)

    async def enter(self, credential: bytes, client: str | None = CLIENT) -> Principal:
        headers = [(b"authorization", b"Bearer " + credential)]
        return await self._authenticator.authenticate(headers, dict(headers), client)

    async def refusal(self, credential: bytes, client: str | None = CLIENT) -> type[GatewayError]:
        with pytest.raises(GatewayError) as refusal:
            await self.enter(credential, client)
        return refusal.type


async def test_a_value_is_looked_up_as_a_key_first() -> None:
    door = Door()
    assert (await door.enter(KEY)).key_id.startswith("key-")
    assert door.keys.asked == 0


async def test_a_signature_is_worked_out_once() -> None:
    door = Door()
    first, second = [await door.enter(token()) for _ in range(2)]
    assert first is second
    assert door.keys.asked == 1
    await door.enter(token(jti="another"))
    assert door.keys.asked == 2


async def test_memory_ends_with_the_token() -> None:
    door = Door()
    await door.enter(token())
    door.now = EXPIRES_AT
    await door.enter(token())
    await door.enter(token())
    assert door.keys.asked == 3, "on its leeway a token is checked each time"
    door.now = EXPIRES_AT + LEEWAY_S
    assert await door.refusal(token()) is InvalidToken


async def test_memory_ends_with_the_rules_for_the_subject_too() -> None:
    door = Door(policies={"alice": CallerPolicy(1, expires_at=NOW + 10)})
    await door.enter(token())
    door.now = NOW + 10
    assert await door.refusal(token()) is InvalidToken


async def test_one_token_is_no_key_to_another() -> None:
    door = Door()
    good = token()
    await door.enter(good)
    head, _, signature = good.rpartition(b".")
    for bad in (head + b"." + signature[:-2], head + b"." + signature[::-1], good[1:], good + b"A"):
        assert await door.refusal(bad) is InvalidToken


async def test_a_key_that_is_missing_is_looked_for_once() -> None:
    keys = Keys(None)
    keys.coming = key_of_secret(SECRET)
    door = Door(keys)
    await door.enter(token())
    assert (keys.asked, keys.looked) == (2, 1)


@pytest.mark.parametrize("coming", [None, key_of_secret("another-secret-of-more-than-thirty-two-bytes")])
async def test_a_key_that_stays_missing_is_a_bad_token(coming: VerifyingKey | None) -> None:
    keys = Keys(None)
    keys.coming = coming
    assert await Door(keys).refusal(token()) is InvalidToken
    assert keys.looked == 1


async def test_after_too_many_failures_only_failures_are_held_up() -> None:
    door = Door()
    refusals = [await door.refusal(b"wrong-%d" % n) for n in range(30)]
    refusals += [await door.refusal(b"a.b.%d" % n) for n in range(32)]
    assert refusals == [Unauthenticated] * 30 + [InvalidToken] * 30 + [RateLimited] * 2
    assert await door.enter(KEY)
    assert await door.enter(token())
    assert await door.refusal(b"wrong", "192.0.2.2") is Unauthenticated
