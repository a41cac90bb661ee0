"""Checks tokens (JSON Web Tokens, signed, in their compact form).

For:      who a token speaks of, or one and the same refusal for everything that is wrong with it.
Touches:  nothing: keys and the time are brought.
Source:   RFC 7515 (signatures), RFC 7519 (claims), RFC 8725 (how they are attacked). The signatures themselves are
          PyJWT's and cryptography's work; reading is done here, once and strictly, so that no two readers differ.
"""

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import InvalidKeyError

from .errors import InvalidToken

INVALID_TOKEN: Final = "The token is not valid."  # noqa: S105  # what the caller is told
MAX_TOKEN_BYTES: Final = 8 << 10  # tokens with a long list of groups are about 4 KiB
LEEWAY_S: Final = 30.0  # between the issuer's clock and ours
MIN_RSA_BITS: Final = 2048  # RFC 7518, 3.3

SYMMETRIC: Final = ("HS256", "HS384", "HS512")
RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Final = MappingProxyType({"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"})

_ALGORITHMS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        name: algorithm
        for name, algorithm in get_default_algorithms().items()
        if name in (*SYMMETRIC, *RSA, *CURVES.values(), "EdDSA")
    }
)
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")  # RFC 7515, 2: no padding
_REFUSED_HEADERS: Final = ("crit", "b64")  # no extension is known here, and a payload is always encoded


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the algorithms it may be used with: all of one family, whatever a token asks for."""

    algorithms: frozenset[str]
    key: Any = field(repr=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        return algorithm in self.algorithms and _ALGORITHMS[algorithm].verify(signed, self.key, signature) is True


class KeySource(Protocol):
    """Where the keys come from that tokens are checked with."""

    def find(self, algorithm: str, kid: str | None) -> VerifyingKey | None: ...


@dataclass(frozen=True, slots=True)
class OneKey:
    """A key that the configuration holds. Which one a token says it was signed with changes nothing."""

    key: VerifyingKey

    def find(self, algorithm: str, _kid: str | None) -> VerifyingKey | None:
        return self.key if algorithm in self.key.algorithms else None


@dataclass(frozen=True, slots=True)
class TokenRules:
    """None: not checked."""

    issuer: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says. `expires_at` is Unix time in seconds, the leeway not counted."""

    issuer: str
    subject: str
    expires_at: float

    @property
    def key_id(self) -> str:
        """How the caller is called in logs and limits: one name per issuer and subject."""
        identity = json.dumps([self.issuer, self.subject]).encode("ascii")
        return f"jwt:{hashlib.sha256(identity).hexdigest()[:16]}"


class KeyNotFound(InvalidToken):
    """The token names a key that is not known, or not yet."""


def key_of_secret(secret: str, algorithms: Collection[str] = SYMMETRIC) -> VerifyingKey:
    """Raises ValueError when the secret is a public key, or one written as JSON: everybody might know it."""
    try:
        key = _ALGORITHMS["HS256"].prepare_key(secret)
    except InvalidKeyError as exc:
        raise ValueError("not a secret") from exc
    return VerifyingKey(frozenset(algorithms) & frozenset(SYMMETRIC), key)


def key_of_pem(pem: str, algorithms: Collection[str] | None = None) -> VerifyingKey:
    """`algorithms` are the wanted ones; None: all that fit the key. Raises ValueError."""
    try:
        key = load_pem_public_key(plain_pem(pem).encode())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ValueError("not a public key in PEM") from exc
    return _restricted(key, algorithms)


def key_of_jwk(jwk: Mapping[str, Any], algorithms: Collection[str]) -> VerifyingKey:
    """A public key that may check signatures. Raises ValueError for every other one (RFC 7517)."""
    kind = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}.get(str(jwk.get("kty")))
    operations = jwk.get("key_ops", ["verify"])
    is_for_us = jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if kind is None or "d" in jwk or not is_for_us:
        raise ValueError("not a public key for signatures")
    if jwk.get("alg") is not None:
        algorithms = frozenset(algorithms) & {str(jwk["alg"])}
    try:
        key = _ALGORITHMS[kind].from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as exc:
        raise ValueError("not a key") from exc
    return _restricted(key, algorithms)


def plain_pem(pem: str) -> str:
    r"""A PEM text that came on one line, with `\n` for its line ends."""
    return pem.replace("\\r", "").replace("\\n", "\n").strip() + "\n"


def _restricted(key: object, algorithms: Collection[str] | None) -> VerifyingKey:
    fitting = _fitting(key)
    chosen = fitting if algorithms is None else fitting & frozenset(algorithms)
    if not chosen:
        raise ValueError("no accepted algorithm fits the key")
    return VerifyingKey(chosen, key)


def _fitting(key: object) -> frozenset[str]:
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return frozenset(RSA)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES:
        return frozenset({CURVES[key.curve.name]})
    return frozenset({"EdDSA"}) if isinstance(key, Ed25519PublicKey | Ed448PublicKey) else frozenset()


def check(token: bytes, keys: KeySource, rules: TokenRules, now_unix_s: float) -> Claims:
    """Raises InvalidToken, always with the same words; KeyNotFound when another key might have done."""
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken(INVALID_TOKEN)
    parts = token.split(b".")
    if len(parts) != 3:
        raise InvalidToken(INVALID_TOKEN)
    header = _object(parts[0])
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None) or _refuses(header):
        raise InvalidToken(INVALID_TOKEN)
    signature = _decoded(parts[2])
    key = keys.find(algorithm, kid)
    if key is None:
        raise KeyNotFound(INVALID_TOKEN)
    if not key.verifies(algorithm, b"%b.%b" % (parts[0], parts[1]), signature):
        raise InvalidToken(INVALID_TOKEN)
    return _claims(_object(parts[1]), rules, now_unix_s)


def _refuses(header: Mapping[str, Any]) -> bool:
    return any(name in header for name in _REFUSED_HEADERS)


def _claims(payload: Mapping[str, Any], rules: TokenRules, now_unix_s: float) -> Claims:
    issuer, subject = payload.get("iss", ""), payload.get("sub")
    expires_at, not_before = _instant(payload.get("exp")), _instant(payload.get("nbf", 0))
    if not isinstance(issuer, str) or not isinstance(subject, str) or not subject:
        raise InvalidToken(INVALID_TOKEN)
    if rules.issuer is not None and issuer != rules.issuer:
        raise InvalidToken(INVALID_TOKEN)
    if rules.audience is not None and not _is_for(rules.audience, payload.get("aud")):
        raise InvalidToken(INVALID_TOKEN)
    if now_unix_s >= expires_at + LEEWAY_S or now_unix_s < not_before - LEEWAY_S:
        raise InvalidToken(INVALID_TOKEN)
    return Claims(issuer, subject, expires_at)


def _is_for(audience: str, given: object) -> bool:
    return given == audience or (isinstance(given, list) and audience in given)


def _instant(value: object) -> float:
    """A NumericDate (RFC 7519, 2). Whole numbers may be longer than a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(INVALID_TOKEN)
    try:
        seconds = float(value)
    except OverflowError:
        raise InvalidToken(INVALID_TOKEN) from None
    if not math.isfinite(seconds):
        raise InvalidToken(INVALID_TOKEN)
    return seconds


def _decoded(part: bytes) -> bytes:
    """The bytes of one part. Another way to write the same ones is refused: a token has one spelling."""
    if not _BASE64URL.fullmatch(part):
        raise InvalidToken(INVALID_TOKEN)
    try:
        decoded = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise InvalidToken(INVALID_TOKEN) from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise InvalidToken(INVALID_TOKEN)
    return decoded


def _object(part: bytes) -> dict[str, Any]:
    """A JSON object whose names stand once (RFC 7515, 4; RFC 7519, 4)."""
    try:
        found = json.loads(_decoded(part).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise InvalidToken(INVALID_TOKEN) from None
    if not isinstance(found, dict):
        raise InvalidToken(INVALID_TOKEN)
    return found


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands twice")
    return members
