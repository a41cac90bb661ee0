"""Makers of keys and tokens, in the shapes that their issuers publish.

For:      the slots of positive fragments.
Touches:  the dice that it is given. Every value is random; none opens anything.
"""

import base64
import json
import textwrap
from random import Random
from typing import Final

from .spelling import Piece, digits, letters

BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ALPHANUMERIC: Final = BASE64[:62]
URL_SAFE: Final = ALPHANUMERIC + "-_"
BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def openai(rng: Random, _: bool) -> list[Piece]:
    """The former user keys, and those of projects and service accounts, around their fixed middle."""
    middle = "T3Blbk" + "FJ"
    if rng.random() < 0.4:
        return [(f"sk-{letters(rng, 20, ALPHANUMERIC)}{middle}{letters(rng, 20, ALPHANUMERIC)}", "SECRET")]
    size = rng.choice([58, 74])
    ends = [letters(rng, 1, ALPHANUMERIC) for _ in range(2)]
    left = ends[0] + letters(rng, size - 1, URL_SAFE)
    right = letters(rng, size - 1, URL_SAFE) + ends[1]
    return [(f"sk-{rng.choice(['proj', 'proj', 'svcacct', 'admin'])}-{left}{middle}{right}", "SECRET")]


def aws(rng: Random, _: bool) -> list[Piece]:
    return [(rng.choice(["AKIA", "AKIA", "ASIA"]) + letters(rng, 16, BASE32), "SECRET")]


def aws_secret(rng: Random, _: bool) -> list[Piece]:
    """Forty characters without a mark of their own: always after the name of the setting."""
    ends = [letters(rng, 1, ALPHANUMERIC) for _ in range(2)]
    return [(ends[0] + letters(rng, 38, BASE64) + ends[1], "SECRET")]


def github(rng: Random, _: bool) -> list[Piece]:
    if rng.random() < 0.3:
        return [(f"github_pat_{letters(rng, 22, ALPHANUMERIC)}_{letters(rng, 59, ALPHANUMERIC)}", "SECRET")]
    return [(f"{rng.choice(['ghp', 'ghp', 'gho', 'ghu', 'ghs', 'ghr'])}_{letters(rng, 36, ALPHANUMERIC)}", "SECRET")]


def jwt(rng: Random, _: bool) -> list[Piece]:
    header = {"alg": rng.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"}
    if rng.random() < 0.4:
        header["kid"] = letters(rng, 8, "0123456789abcdef")
    claims = {"sub": f"user_{digits(rng, 6)}", "iat": rng.randint(1_700_000_000, 1_780_000_000), "scope": "read"}
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims)]
    encoded = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts]
    signature = letters(rng, 42, URL_SAFE) + letters(rng, 1, ALPHANUMERIC)
    return [(".".join([*encoded, signature]), "SECRET")]


PEM_KINDS: Final = ("RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY")


def _pem(rng: Random, newline: str) -> str:
    kind = rng.choice(PEM_KINDS)
    body = "MII" + letters(rng, rng.choice([160, 420, 812]), BASE64) + rng.choice(["", "=", "=="])
    return newline.join([f"-----BEGIN {kind}-----", *textwrap.wrap(body, 64), f"-----END {kind}-----"])


def pem(rng: Random, _: bool) -> list[Piece]:
    return [(_pem(rng, "\n"), "SECRET")]


def pem_in_json(rng: Random, _: bool) -> list[Piece]:
    """As a service account's file holds it: one line, newlines as backslash and n."""
    return [(_pem(rng, "\\n"), "SECRET")]
