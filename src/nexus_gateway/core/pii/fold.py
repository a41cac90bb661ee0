"""Text as the detectors read it: escapes resolved, look-alikes folded to ASCII, the invisible dropped.

For:      one spelling per identifier, with the way back to where it stands in the source.
Touches:  nothing.

Escapes are resolved at every depth at once: a run of backslashes and the letter behind it is one character, so JSON
inside a JSON string, twice or three times over, reads like plain text. That is wrong for `C:\\new` by one letter, which
no detector minds, and it never splits an escape, so a source in which spans are replaced stays well-formed.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from .linear import NOWHERE, Search, searcher

_MARK: Final = "\x00"  # stands for what is not one character to one: a backslash, the invisible, ligatures
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d\u30fc\u3161"
_DOTS: Final = "\u3002\uff61"  # IDNA reads them as dots
_INVISIBLE: Final = "\u034f\u115f\u1160\u3164\uffa0\u180b\u180c\u180d"
_SIMPLE_ESCAPES: Final = ((b"\\n", b"\n\n"), (b"\\t", b"\t\t"), (b"\\r", b"\r\r"), (b'\\"', b'""'))
_LINE_BREAKS: Final = "nrbf"
_HEX: Final = frozenset("0123456789abcdefABCDEF")


def _code_points() -> Iterator[int]:
    """Where Unicode keeps compatibility forms, digits of other scripts and format characters."""
    yield from range(0x80, 0x3400)
    yield from range(0xA620, 0xAC00)
    yield from range(0xFB00, 0x11000)
    yield from range(0x11000, 0x12000)
    yield from range(0x16A60, 0x16B60)
    yield from range(0x1BCA0, 0x1BCA4)
    yield from range(0x1D173, 0x1D800)
    yield from range(0x1E140, 0x1E960)
    yield from range(0x1F100, 0x1F1E6)
    yield from range(0x1FBF0, 0x1FBFA)
    yield from range(0xE0000, 0xE01F0)


def _folded(code: int) -> str:
    """What a character stands for: itself, its ASCII look-alike, several ASCII characters, or nothing."""
    char = chr(code)
    if char in _INVISIBLE or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return ""
    if char in _DASHES:
        return "-"
    if char in _DOTS:
        return "."
    category = unicodedata.category(char)
    if category in ("Cf", "Zs"):
        return "" if category == "Cf" else " "
    if category == "Nd":
        return str(unicodedata.decimal(char))
    plain = unicodedata.normalize("NFKC", char)
    return plain if plain.isascii() and plain.replace(".", "").replace(" ", "").isprintable() else char


_FOLDED: Final = {code: plain for code in _code_points() if (plain := _folded(code)) != chr(code)}
_TABLE: Final = {
    **{code: plain if len(plain) == 1 else _MARK for code, plain in _FOLDED.items()},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    ord("\\"): _MARK,
}


def look_alikes(chars: str, *, single: bool = False) -> frozenset[int]:
    """Code points that fold to something that holds one of `chars`; for an empty string, those that fold to nothing.

    `single` leaves out what folds to several characters: units, abbreviations, numbered lists.
    """
    if not chars:
        return frozenset(code for code, plain in _FOLDED.items() if not plain)
    wanted = set(chars)
    return frozenset(
        code for code, plain in _FOLDED.items() if not wanted.isdisjoint(plain) and not (single and len(plain) > 1)
    )


def as_class(codes: Iterable[int]) -> str:
    """A RE2 character class of these code points."""
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in ranges) + "]"


_needs_map: Final[Search] = searcher(r"\\[u/bf]|" + as_class([0, *_FOLDED]))


class Folded:
    """`text` is UTF-8. Positions in it and in the source count bytes; the source is UTF-8, escaped or not.

    `source_span` must be asked from left to right: it remembers how far it has counted.
    """

    __slots__ = ("_begins", "_counted", "_marks", "_source", "_unfolded", "text")

    def __init__(self, raw: bytes) -> None:
        self.text = raw
        self._marks: list[int] | None = None
        if _needs_map(raw, 0, len(raw))[0] != NOWHERE:
            self._fold(raw.decode("utf-8", "replace"))
        elif b"\\" in raw:
            for escape, same_length in _SIMPLE_ESCAPES:
                raw = raw.replace(escape, same_length)
            self.text = raw

    @property
    def is_mapped(self) -> bool:
        """Whether positions in the text are not those in the source."""
        return self._marks is not None

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """Where the source says what `text[start:end]` says: whole escapes, whole characters."""
        if self._marks is None:
            return start, end
        start, end = self._to_chars(start), self._to_chars(end)
        return self._to_bytes(self._begin_of(start)), self._to_bytes(self._end_of(end))

    def _fold(self, source: str) -> None:
        marked = source.translate(_TABLE)
        pieces: list[str] = []
        marks: list[int] = []  # in the folded text: where a unit begins, where it ends, the next one begins, …
        begins: list[int] = []  # the same places in the source
        at = size = 0
        while (unit := marked.find(_MARK, at)) >= 0:
            size += unit - at
            pieces.append(marked[at:unit])
            at, plain = _read_unit(source, unit)
            pieces.append(plain)
            marks += size, size + len(plain)
            begins += unit, at
            size += len(plain)
        pieces.append(marked[at:])
        self._unfolded, self._marks, self._begins = source, marks, begins
        folded = "".join(pieces)
        self.text = folded.encode()
        self._counted = [0, 0, 0, 0]  # bytes and characters of the text, characters and bytes of the source

    def _begin_of(self, start: int) -> int:
        marks = self._marks or ()
        mark = bisect_right(marks, start) - 1
        if mark < 0:
            return start
        return self._begins[mark] if mark % 2 == 0 else self._begins[mark] + start - marks[mark]

    def _end_of(self, end: int) -> int:
        marks = self._marks or ()
        mark = bisect_left(marks, end) - 1
        if mark < 0:
            return end
        return self._begins[mark + 1] if mark % 2 == 0 else self._begins[mark] + end - marks[mark]

    def _to_chars(self, position: int) -> int:
        counted = self._counted
        if position < counted[0]:
            counted[0] = counted[1] = 0
        counted[1] += len(self.text[counted[0] : position].decode("utf-8", "replace"))
        counted[0] = position
        return counted[1]

    def _to_bytes(self, position: int) -> int:
        counted = self._counted
        if position < counted[2]:
            counted[2] = counted[3] = 0
        counted[3] += len(self._unfolded[counted[2] : position].encode())
        counted[2] = position
        return counted[3]


def _read_unit(source: str, at: int) -> tuple[int, str]:
    """One unit that does not fold one to one: where it ends, and what it stands for."""
    if source[at] != "\\":
        return at + 1, _FOLDED.get(ord(source[at]), "")
    end = _behind_backslashes(source, at)
    letter = source[end : end + 1]
    if letter == "u":
        return _read_code(source, at, end)
    if letter == "t":
        return end + 1, "\t"
    if letter and letter in _LINE_BREAKS:
        return end + 1, "\n"
    if letter and letter in '"/':
        return end + 1, letter
    return end, "\\"


def _read_code(source: str, at: int, letter: int) -> tuple[int, str]:
    code = _hex4(source, letter + 1)
    end = letter + 5
    if code is None:
        return letter, "\\"
    if 0xD800 <= code < 0xDC00 and source[end : end + 1] == "\\":
        second = _behind_backslashes(source, end)
        low = _hex4(source, second + 1) if source[second : second + 1] == "u" else None
        if low is not None and 0xDC00 <= low < 0xE000:
            code, end = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), second + 5
    if code in _FOLDED:
        return end, _FOLDED[code]
    if code == 0 or 0xD800 <= code < 0xE000:
        return end, "" if code == 0 else "\ufffd"
    return end, chr(code)


def _hex4(source: str, at: int) -> int | None:
    digits = source[at : at + 4]
    return int(digits, 16) if len(digits) == 4 and _HEX.issuperset(digits) else None


def _behind_backslashes(source: str, at: int) -> int:
    while source[at : at + 1] == "\\":
        at += 1
    return at
