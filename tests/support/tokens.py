"""Tokens, good and forged, written by hand so that nothing sets them right again."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

SECRET = "a-secret-of-more-than-thirty-two-bytes"
NOW = 1_800_000_000.0  # Unix time
CLAIMS: Mapping[str, Any] = {"iss": "https://issuer.example", "sub": "alice", "exp": NOW + 600}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def part(members: Any) -> str:
    return encode(json.dumps(members).encode())


def sign(header: str, payload: str, key: Any, algorithm: str) -> bytes:
    """A token of parts that are encoded already."""
    signed = f"{header}.{payload}"
    signature = get_default_algorithms()[algorithm].sign(signed.encode(), key.encode() if isinstance(key, str) else key)
    return f"{signed}.{encode(signature)}".encode()


def token(claims: Any = CLAIMS, key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> bytes:
    """`header` adds to the usual members, or takes their place."""
    return sign(part({"typ": "JWT", "alg": algorithm, **header}), part(claims), key, algorithm)


def hmac_token(header: Any, claims: Any, secret: bytes) -> bytes:
    """With a secret that a library would refuse."""
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}".encode()


def pem_of(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk_of(key: PrivateKey, algorithm: str, **more: Any) -> dict[str, Any]:
    public: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {**public, **more}
