"""Reads who may call: keys, and rules per key and per token.

For:      digests instead of keys, and rules that are for somebody.
Touches:  nothing. Keys are named by their position, never shown.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nexus_gateway.core.access import CallerPolicy, ModelList

from .members import Members
from .problems import Report, at, shown
from .schema import DEV_KEY, variable
from .values import BadValue, either, switch, text, visible, whole, words

_DIGEST_PREFIX: Final = "sha256:"
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
_TOKEN_SUBJECT: Final = re.compile(r"jwt:(.+)", re.DOTALL)
_LIMIT: Final = either("unlimited", whole("Give 1 or more, or unlimited.", least=1, most=10**9))

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


@dataclass(frozen=True, slots=True)
class CallerPolicies:
    """Rules by the digest of a key, and by the subject of a token; `*` stands for every other subject."""

    keys: dict[bytes, CallerPolicy] = field(default_factory=dict)
    subjects: dict[str, CallerPolicy] = field(default_factory=dict)


def compile_caller_policies(
    given: Mapping[str, object],
    place: str,
    digests: Collection[bytes] | None,
    tokens: bool,
    requests_per_minute: int | None,
    report: Report,
) -> CallerPolicies:
    """`digests` are the accepted keys; None when they are not known because their list is refused.

    `requests_per_minute` is what holds where a rule says nothing of it.
    """
    policies = CallerPolicies()
    first: dict[bytes, int] = {}
    for position, (key, rules) in enumerate(given.items(), start=1):
        where = at(place, position)
        policy = _policy(rules, where, requests_per_minute, report)
        subject = _TOKEN_SUBJECT.fullmatch(key)
        if subject is not None:
            if not tokens:
                report.refuse(where, "This rule is for tokens, which nobody may use.", f"Set {variable('jwt_secret')}.")
            policies.subjects[subject[1]] = policy
            continue
        digest = compile_key(key, where, report)
        if digest is None:
            continue
        if digests is not None and digest not in digests:
            report.refuse(where, "This rule is for a key that is in no list.", f"Add it to {variable('api_keys')}.")
        if digest in first:
            report.refuse(where, f"This key has rule {first[digest]} already.", "Keep one of them.")
        first.setdefault(digest, position)
        policies.keys[digest] = policy
    return policies


def _policy(rules: object, where: str, requests_per_minute: int | None, report: Report) -> CallerPolicy:
    if not isinstance(rules, dict):
        report.refuse(where, "This is not an object.", 'Write {"allowed_models": […], "rate_limit_per_minute": …}.')
        return CallerPolicy(requests_per_minute)
    members = Members(rules, where, report)
    models = members.take("allowed_models", _models)
    rate = members.take("rate_limit_per_minute", _LIMIT)
    policy = CallerPolicy(
        requests_per_minute=rate if "rate_limit_per_minute" in rules else requests_per_minute,
        tokens_per_minute=members.take("tokens_per_minute", _LIMIT),
        max_concurrency=members.take("max_concurrency", _LIMIT),
        clamps_output=members.take("clamp", switch) or False,
        name=members.take("name", text),
        allowed_models=None if models is None else ModelList(models),
        expires_at=members.take("expires_at", instant),
        disabled=members.take("disabled", switch) or False,
    )
    members.finish()
    return policy


def _models(value: object) -> tuple[str, ...]:
    found = words(value)
    if not found:
        raise BadValue("The list is empty, so that no model may be used.", "Leave it out for all, or disable the key.")
    return found


def instant(value: object) -> float:
    """Unix time in seconds, from an RFC 3339 instant with its offset."""
    word = text(value)
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        raise BadValue(f"{shown(word)} is not an instant.", "Write it as 2027-01-31T23:59:59Z.") from None
    if found.tzinfo is None:
        raise BadValue(f"{shown(word)} tells no time zone.", "Write it as 2027-01-31T23:59:59Z.")
    return found.timestamp()
