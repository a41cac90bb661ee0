"""Reads how requests are audited.

For:      a signing key that is one, and settings that fit together.
Touches:  nothing. Keys are never shown.
"""

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nexus_gateway.core.pii.detectors import DETECTORS

from .problems import Report
from .runtime import AuditSpec, MaskingSpec
from .schema import Settings, variable

_SEED_BYTES: Final = 32  # RFC 8032: a private Ed25519 key
_REMEDY: Final = "Give a PEM private key (openssl genpkey -algorithm ed25519), or its 32 bytes in base64."


def compile_audit(
    settings: Settings, places: Mapping[str, str], masking: MaskingSpec, report: Report
) -> AuditSpec | None:
    """None when nothing is audited. `places` holds the settings that were given.

    `masking` is the operator's, switched on or not: bodies get its salt and patterns, but every detector.
    """
    seed = _seed(settings, places, report)
    if settings.audit_file is None and "audit_file" not in report.broken:
        for name in ("audit_signing_key", "audit_max_bytes", "audit_checkpoint_records"):
            if name in places:
                what = "It is about the audit file, and there is none."
                report.warn(places[name], what, f"Set {variable('audit_file')}.")
    if not settings.audit_logging_enabled:
        if settings.audit_bodies == "masked":
            what = "It is about audit records, and there are none."
            report.warn(places["audit_bodies"], what, f"Set {variable('audit_logging_enabled')}=true.")
        return None
    return AuditSpec(
        file=settings.audit_file,
        max_bytes=settings.audit_max_bytes,
        checkpoint_records=settings.audit_checkpoint_records,
        blocks=settings.audit_on_failure == "block",
        signing_seed=seed,
        bodies=replace(masking, detectors=DETECTORS) if settings.audit_bodies == "masked" else None,
    )


def _seed(settings: Settings, places: Mapping[str, str], report: Report) -> bytes | None:
    if settings.audit_signing_key is None:
        return None
    try:
        return read_private_key(settings.audit_signing_key.get_secret_value())
    except ValueError:
        report.refuse(places["audit_signing_key"], "This is no private Ed25519 key.", _REMEDY)
        return None


def read_private_key(text: str) -> bytes:
    """The 32 bytes of a private key, from PEM or base64. Raises ValueError, whose text is not to be shown."""
    if "-----BEGIN" in text:
        return _from_pem(text)
    try:
        seed = b64decode(text.strip(), validate=True)
    except NotBase64 as exc:
        raise ValueError("not base64") from exc
    if len(seed) != _SEED_BYTES:
        raise ValueError("not 32 bytes")
    return seed


def _from_pem(text: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text.strip().replace("\\n", "\n").encode(), password=None)
    except (TypeError, UnsupportedAlgorithm) as exc:  # TypeError: it is encrypted
        raise ValueError("not readable") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("another kind of key")
    return key.private_bytes_raw()
