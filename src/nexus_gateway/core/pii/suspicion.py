"""The first look at a raw body: may there be anything to mask?

For:      bodies without identifiers, which are most, at the price of one search.
Touches:  nothing.

It must suspect whatever the detectors would find once escapes are resolved and look-alikes folded; suspecting too much
only costs time. Escapes and look-alikes are therefore suspects themselves, where they could be a part of an identifier.
"""

from collections.abc import Iterable
from typing import Final

from .evidence import DIGITS, LETTERS
from .fold import as_class, look_alikes
from .korean import LEFT, PHONE_LEFT
from .linear import Search, searcher

_HEX4: Final = "[0-9A-Fa-f]{4}"
_RELAXED: Final = rf"(?:\b|_|[nrtbf]|\\u{_HEX4})"  # behind an escape there is no word boundary in the raw body
_HANGUL: Final = r"(?:\\u[1a-dA-D][0-9A-Fa-f]{3}|[\x{1100}-\x{11ff}])"  # words that a pattern would not recognise
_SYLLABLE: Final = r"[\x{ac00}-\x{d7a3}]"
_LONG_RUN: Final = r"(?:\d(?:[ -]{0,3}\d){9}|(?:[A-Za-z0-9+]|\\*/){40})"
_SURROGATES: Final = (  # of digits, letters and signs outside of the basic plane; not those of emoji
    r"\\u[dD]8(?:[0-2][0-9A-Fa-f]|3[0-9abAB])|\\u[dD]83[cC]\\+u[dD][dD][0-9a-eA-E]|\\u[dD]83[eE]\\+u[dD][fF][fF]|\\u[dD][bB]40"
)
_ESCAPED_ASCII: Final = r"\\u00(?:2[b-fB-F]|2[034589]|3[0-9]|[46][0-9a-fA-F]|[57][0-9aA]|5[cCfF]|7[eE])"
_ROMAN_NUMERALS: Final = frozenset(range(0x2160, 0x2180))  # headings of chapters


def suspect(hints: Iterable[str]) -> Search:
    """A search that finds something in every raw text in which the detectors of these hints would."""
    relaxed = [hint.replace(PHONE_LEFT, "").replace(LEFT, _RELAXED) for hint in hints]
    relaxed = [_RELAXED + hint.removeprefix(r"\b") if hint.startswith(r"\b") else hint for hint in relaxed]
    return searcher("|".join([*relaxed, *_exotic()]))


def _exotic() -> list[str]:
    digit = _written(look_alikes(DIGITS.decode()))
    letter = _written(look_alikes(LETTERS.decode() + "@_", single=True) - _ROMAN_NUMERALS)
    nothing = _written(look_alikes(""))
    sign = _written(look_alikes("-.() /"))
    gap = rf"(?:[ .\-()]|{sign}|{nothing}){{0,3}}"
    solid = rf"(?:[0-9A-Za-z@.\-+_/=:]|{digit})"
    return [
        rf"(?:[0-9]|{digit}){gap}{digit}",
        rf"{digit}{gap}[0-9]",
        letter,
        rf"[0-9A-Za-z][ \-]?(?:{digit}|{_written(_ROMAN_NUMERALS)})[ \-]?[0-9A-Za-z]",
        rf"{_written(_ROMAN_NUMERALS)}(?:[ \-]?[0-9]{{3}}|[A-Za-z][0-9]{{2}})",
        rf"[0-9A-Za-z]{sign}[A-Za-z]{{0,3}}[0-9]",
        rf"{solid}[ \-]?{nothing}+[ \-]?{solid}",
        rf"{_SYLLABLE}{nothing}+{_SYLLABLE}",
        rf"(?:{sign}|{nothing}) ?[0-9]{{2}}{gap}[0-9]{{6}}",
        rf"[0-9]{gap}{nothing}{gap}[0-9]",
        rf"[0-9]{gap}{sign}{gap}[0-9]{gap}[0-9]",
        rf"(?:[A-Za-z]{sign}[0-9]{{3}}|[A-Za-z]{{2}}[0-9]{{2}}{sign}|\b(?:sk|xox[a-z]|xapp|glpat|pypi|xai|GOCSPX){sign})",
        rf"{_written(look_alikes('+'))} ?\(?[0-9]",
        r"[0-9]\\+/[0-9]",
        _ESCAPED_ASCII,
        _SURROGATES,
        rf"(?s:{_HANGUL}.*{_LONG_RUN})",
        rf"(?s:{_LONG_RUN}.*{_HANGUL})",
    ]


def _written(codes: frozenset[int]) -> str:
    """These code points, as themselves or as escapes."""
    by_head: dict[str, list[str]] = {}
    for code in sorted(codes):
        if code < 0x10000:
            by_head.setdefault(f"{code:04x}"[:3], []).append(f"{code:04x}"[3])
    escapes = "|".join(f"{head}[{''.join(tails)}]" for head, tails in by_head.items())
    return rf"(?:{as_class(codes)}|\\+u(?i:{escapes}))"
