"""How a value is written: its groups, what stands between them, and full-width digits.

For:      the makers of identifiers and of lookalikes.
Touches:  the dice that it is given.

A maker returns pieces: text with its type, or None where the text only stands around an identifier. Its flag says that
the fragment names the identifier next to it ("주민등록번호", "SSN:"). Without that only spellings are drawn that a
reader would recognise alone: a bare run of ten or twelve digits means nothing, one grouped as its format is does.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from .labels import IdentifierType

Piece = tuple[str, IdentifierType | None]
Maker = Callable[[Random, bool], list[Piece]]

WIDE: Final = str.maketrans(
    {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
)  # the full-width forms of ASCII, as Korean input methods type them

# Style -> (separator, full-width digits). Weights below are shares of what is seen in mails, forms and exports.
STYLES: Final[dict[str, tuple[str, bool]]] = {
    "hyphen": ("-", False),
    "none": ("", False),
    "space": (" ", False),
    "dot": (".", False),
    "spaced": (" - ", False),
    "dash": ("\N{EN DASH}", False),
    "nobreak": ("\N{NON-BREAKING HYPHEN}", False),
    "wide": ("\N{FULLWIDTH HYPHEN-MINUS}", True),
    "wide_digits": ("-", True),
}


def digits(rng: Random, count: int, first: str = "0123456789") -> str:
    return rng.choice(first) + "".join(rng.choice("0123456789") for _ in range(count - 1))


def letters(rng: Random, count: int, alphabet: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ") -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def spell(rng: Random, groups: list[str], shares: dict[str, int]) -> str:
    style = rng.choices(list(shares), list(shares.values()))[0]
    separator, wide = STYLES[style]
    return separator.join(group.translate(WIDE) if wide else group for group in groups)


def split(number: str, sizes: list[int]) -> list[str]:
    groups, at = [], 0
    for size in sizes:
        groups.append(number[at : at + size])
        at += size
    return groups


def in_fours(text: str, separator: str) -> str:
    return separator.join(text[at : at + 4] for at in range(0, len(text), 4))
