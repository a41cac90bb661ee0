"""What a labelled text is: code points, spans over them, and a closed list of identifier types.

For:      the makers of the corpus, its tests, and whoever scores a finder on it.
Touches:  nothing.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

IdentifierType = Literal[
    "RRN",
    "FOREIGNER_NUMBER",
    "PASSPORT",
    "DRIVER_LICENSE",
    "BUSINESS_NUMBER",
    "PHONE",
    "BANK_ACCOUNT",
    "EMAIL",
    "INTL_PHONE",
    "CARD",
    "IBAN",
    "SSN",
    "SECRET",
]
TYPES: Final[tuple[IdentifierType, ...]] = get_args(IdentifierType)

Language = Literal["ko", "en"]
Kind = Literal["positive", "negative"]


@dataclass(frozen=True, slots=True)
class Span:
    """Code points `start` to `end` (exclusive) of a text are one identifier of this type."""

    start: int
    end: int
    type: IdentifierType


@dataclass(frozen=True, slots=True)
class Labelled:
    """One prompt with all its identifiers, in order. `source` names the fragments that it was made of."""

    text: str
    spans: tuple[Span, ...]
    language: Language
    kind: Kind
    source: str
