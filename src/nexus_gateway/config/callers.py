"""Reads who may call: keys, rules per key, and what tokens must look like.

For:      digests instead of keys, and settings of tokens that fit together.
Touches:  nothing. Keys are named by their position, never shown.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from .members import Members
from .problems import Report, at
from .schema import DEV_KEY, Settings, variable
from .values import BadValue, either, visible, whole, words

_DIGEST_PREFIX: Final = "sha256:"
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_TOKEN_SUBJECT: Final = re.compile(r"jwt:.+", re.DOTALL)
_PEM: Final = re.compile(r"-----BEGIN (RSA )?PUBLIC KEY-----.+-----END (RSA )?PUBLIC KEY-----", re.DOTALL)
_MIN_SECRET_BYTES: Final = 32  # RFC 7518, 3.2: as long as the hash of HS256

DEV_KEY_DIGEST: Final = hashlib.sha256(DEV_KEY.encode()).digest()


def digest_of(key: str) -> bytes:
    """SHA-256 of a key, or the one that `sha256:<hex>` gives. Raises BadValue."""
    key = visible(key)
    if not key.startswith(_DIGEST_PREFIX):
        return hashlib.sha256(key.encode()).digest()
    digits = key.removeprefix(_DIGEST_PREFIX)
    if not _DIGEST.fullmatch(digits):
        raise BadValue("What follows sha256: is not a digest.", "Give 64 hex digits.")
    return bytes.fromhex(digits)


def compile_keys(keys: Sequence[str] | None, place: str, tokens: bool, report: Report) -> tuple[bytes, ...]:
    """The digests of the accepted keys. None stands for no list: then `dev-key`, unless tokens let callers in."""
    if keys is None:
        return () if tokens else (DEV_KEY_DIGEST,)
    if not keys and not tokens:
        report.refuse(place, "The list is empty, so that nobody could call.", "Give at least one key.")
    first: dict[bytes, int] = {}
    for position, key in enumerate(keys, start=1):
        try:
            digest = digest_of(key)
        except BadValue as exc:
            report.refuse(at(place, position), exc.what, exc.remedy)
            continue
        if digest in first:
            report.refuse(at(place, position), f"This is key {first[digest]} again.", "Keep one of them.")
        first.setdefault(digest, position)
    return tuple(first)


def compile_key(key: str | None, place: str, report: Report) -> bytes | None:
    """The digest of a key that stands alone."""
    if key is None:
        return None
    try:
        return digest_of(key)
    except BadValue as exc:
        report.refuse(place, exc.what, exc.remedy)
        return None


def check_key_policies(
    given: Mapping[str, object], place: str, digests: Collection[bytes] | None, tokens: bool, report: Report
) -> None:
    """`digests` are the accepted keys; None when they are not known because their list is refused."""
    for position, (key, rules) in enumerate(given.items(), start=1):
        where = at(place, position)
        if _TOKEN_SUBJECT.fullmatch(key):
            if not tokens:
                report.refuse(where, "This rule is for tokens, which nobody may use.", f"Set {variable('jwt_secret')}.")
        else:
            digest = compile_key(key, where, report)
            if digest is not None and digests is not None and digest not in digests:
                report.refuse(where, "This rule is for a key that is in no list.", f"Add it to {variable('api_keys')}.")
        if not isinstance(rules, dict):
            report.refuse(where, "This is not an object.", 'Write {"allowed_models": […], "rate_limit_per_minute": …}.')
            continue
        members = Members(rules, where, report)
        members.take("allowed_models", words)
        members.take("rate_limit_per_minute", either("unlimited", whole("Give 1 or more.", least=1, most=10**9)))
        members.finish()


def check_tokens(settings: Settings, places: Mapping[str, str], report: Report) -> None:
    """Refuse settings of tokens that do not fit together. `places` holds those that were given."""
    secret, public_key = settings.jwt_secret, settings.jwt_public_key
    if secret is None and public_key is None:
        for name in ("jwt_algorithms", "jwt_issuer", "jwt_audience"):
            if name in places and not {"jwt_secret", "jwt_public_key"} & report.broken:
                remedy = f"Set {variable('jwt_secret')} or {variable('jwt_public_key')} too."
                report.refuse(places[name], "Alone it lets nobody in.", remedy)
        return
    if secret is not None and public_key is not None:
        report.refuse(places["jwt_public_key"], "There is a secret for tokens too.", "Keep one of them.")
    elif secret is not None:
        _check_algorithms(settings, places, report, symmetric=True)
        if len(secret.get_secret_value().encode()) < _MIN_SECRET_BYTES:
            what = f"The secret is shorter than {_MIN_SECRET_BYTES} bytes, so that it can be guessed."
            report.warn(places["jwt_secret"], what, "Use a random one.")
    elif public_key is not None:
        _check_algorithms(settings, places, report, symmetric=False)
        if not _PEM.search(public_key.get_secret_value()):
            what = "This is not a public key in PEM."
            report.refuse(places["jwt_public_key"], what, "Give text from -----BEGIN PUBLIC KEY----- on.")


def _check_algorithms(settings: Settings, places: Mapping[str, str], report: Report, *, symmetric: bool) -> None:
    for name in settings.jwt_algorithms or ():
        if name.startswith("HS") is not symmetric:
            fits = "HS256, HS384, HS512" if symmetric else "RS…, PS…, ES… or EdDSA"
            what = f"{name} does not go with a {'secret' if symmetric else 'public key'}."
            report.refuse(places["jwt_algorithms"], what, f"Use {fits}.")
