"""Masking of identifiers, and the way back.

For:      outside models that never see who is talked about, and callers who never notice.
Touches:  nothing. `docs/privacy.md` says what is found, what is not, and what is promised.
"""

from nexus_gateway.core.errors import MaskingFailed

from .detectors import DEFAULT_DETECTORS, DETECTORS, CustomPattern
from .linear import BadPattern
from .mask import Finding, Masked, MaskedText, Masker, MaskingConfig, Scope
from .restore import Restorer, Restoring, StreamRestorer

__all__ = [
    "DEFAULT_DETECTORS",
    "DETECTORS",
    "BadPattern",
    "CustomPattern",
    "Finding",
    "Masked",
    "MaskedText",
    "Masker",
    "MaskingConfig",
    "MaskingFailed",
    "Restorer",
    "Restoring",
    "Scope",
    "StreamRestorer",
]
