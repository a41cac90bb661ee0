"""Signatures of checkpoints: Ed25519, by a library that is loaded only where a key is given.

For:      the audit's writer, which signs, and its verification, which has the public key.
Touches:  nothing. Source: RFC 8032.
"""

from collections.abc import Callable

from nexus_gateway.core.audit import Signature

Check = Callable[[bytes, bytes], bool]  # text, signature


def signer(seed: bytes) -> Signature:
    """`seed` is the private key's 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).sign


def public_pem(seed: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def checker(pem: bytes) -> Check:
    """Raises ValueError for anything but a public Ed25519 key in PEM."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")

    def check(text: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return check
