"""Reads what tokens must look like: which key signed them, by which algorithm, and who for.

For:      settings that fit together; a public key that is one.
Touches:  nothing. No key is ever shown.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from nexus_gateway.core.jwt import SYMMETRIC, TokenRules, VerifyingKey, key_of_pem, key_of_secret

from .problems import Report
from .runtime import TokenSpec
from .schema import ALGORITHMS, Settings, variable

_MIN_SECRET_BYTES: Final = 32  # RFC 7518, 3.2: as long as the hash of HS256
_SOURCES: Final = ("jwt_secret", "jwt_public_key", "jwt_jwks_url")  # of keys
_ASYMMETRIC: Final = frozenset(ALGORITHMS) - frozenset(SYMMETRIC)


def compile_tokens(settings: Settings, places: Mapping[str, str], report: Report) -> TokenSpec | None:
    """None when no token is accepted, or what was given is refused. `places` holds what was given."""
    given = [name for name in _SOURCES if getattr(settings, name) is not None]
    if not given:
        _refuse_without_key(places, report)
        return None
    for name in given[1:]:
        report.refuse(places[name], f"{variable(given[0])} is given too.", "Keep one of them.")
    if len(given) > 1 or not _check_algorithms(settings, places, report, symmetric=given == ["jwt_secret"]):
        return None
    rules = TokenRules(settings.jwt_issuer, settings.jwt_audience)
    if settings.jwt_secret is not None:
        key = _secret(settings.jwt_secret, settings.jwt_algorithms, places["jwt_secret"], report)
    elif settings.jwt_public_key is not None:
        key = _public_key(settings.jwt_public_key, settings.jwt_algorithms, places["jwt_public_key"], report)
    else:
        _check_published(settings, places, report)
        accepted = frozenset(settings.jwt_algorithms or _ASYMMETRIC)
        return TokenSpec(None, settings.jwt_jwks_url, accepted, rules)
    return None if key is None else TokenSpec(key, None, key.algorithms, rules)


def _refuse_without_key(places: Mapping[str, str], report: Report) -> None:
    if report.broken.intersection(_SOURCES):
        return
    for name in ("jwt_algorithms", "jwt_issuer", "jwt_audience"):
        if name in places:
            names = ", ".join(variable(source) for source in _SOURCES)
            report.refuse(places[name], "Alone it lets nobody in.", f"Set one of {names} too.")


def _secret(secret: SecretStr, algorithms: tuple[str, ...] | None, place: str, report: Report) -> VerifyingKey | None:
    value = secret.get_secret_value()
    try:
        key = key_of_secret(value, algorithms or ("HS256",))
    except ValueError:
        what = "This is a key that others know, or one written as JSON; it is no secret."
        report.refuse(place, what, f"Give a random secret, or set {variable('jwt_public_key')}.")
        return None
    if len(value.encode()) < _MIN_SECRET_BYTES:
        what = f"The secret is shorter than {_MIN_SECRET_BYTES} bytes, so that it can be guessed."
        report.warn(place, what, "Use a random one.")
    return key


def _public_key(pem: SecretStr, algorithms: tuple[str, ...] | None, place: str, report: Report) -> VerifyingKey | None:
    try:
        return key_of_pem(pem.get_secret_value(), algorithms)
    except ValueError as exc:
        remedy = "Give text from -----BEGIN PUBLIC KEY----- on: RSA of 2,048 bits or more, P-256, P-384, P-521, EdDSA."
        report.refuse(place, f"This cannot be used: {exc}.", remedy)
        return None


def _check_algorithms(settings: Settings, places: Mapping[str, str], report: Report, *, symmetric: bool) -> bool:
    unfit = [name for name in settings.jwt_algorithms or () if (name in SYMMETRIC) is not symmetric]
    for name in unfit:
        fits = ", ".join(SYMMETRIC) if symmetric else "RS…, PS…, ES… or EdDSA"
        what = f"{name} does not go with a {'secret' if symmetric else 'public key'}."
        report.refuse(places["jwt_algorithms"], what, f"Use {fits}.")
    return not unfit


def _check_published(settings: Settings, places: Mapping[str, str], report: Report) -> None:
    """Keys from the network sign for many: only a token for us, from the expected issuer, is good."""
    place = places["jwt_jwks_url"]
    for name in ("jwt_issuer", "jwt_audience"):
        if getattr(settings, name) is None and name not in report.broken:
            report.refuse(place, "Keys from there sign tokens for others too.", f"Set {variable(name)}.")
    if not _is_safe(settings.jwt_jwks_url or ""):
        what = "This is not an https:// URL; http:// is for this machine only."
        report.refuse(place, what, "Write https://issuer.example/.well-known/jwks.json.")


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
