"""Text as the detectors read it: escapes resolved, look-alikes folded to ASCII, the invisible dropped.

For:      one spelling per identifier, with the way back to where it stands in the source.
Touches:  nothing.

Escapes are resolved at every depth at once: a run of backslashes and the letter behind it is one character, so JSON
inside a JSON string, twice or three times over, reads like plain text. That is wrong for `C:\\new` by one letter, which
no detector minds, and it never splits an escape, so a source in which spans are replaced stays well-formed. Escapes
that are themselves written in escapes are resolved one depth after the other.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from .linear import NOWHERE, Search, searcher

_MARK: Final = "\x00"  # stands for what is not one character to one: a backslash, the invisible, ligatures
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d\u30fc\u3161"
_DOTS: Final = "\u3002\uff61"  # IDNA reads them as dots
_INVISIBLE: Final = "\u034f\u115f\u1160\u3164\uffa0\u180b\u180c\u180d"
_BACKSLASH: Final = ord("\\")
_SIMPLE_ESCAPES: Final = ((b"\\n", b"\n\n"), (b"\\t", b"\t\t"), (b"\\r", b"\r\r"), (b'\\"', b'""'))
_LETTERS: Final = {**dict.fromkeys("nrbf", "\n"), "t": "\t"}
_HEX: Final = "[0-9A-Fa-f]"


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


_decode_string: Final = msgspec.json.Decoder(str).decode
_needs_map: Final[Search] = searcher(r"\\[u/bf]|" + as_class([0, *_FOLDED]))


_ESCAPE: Final = re.compile(  # a run of backslashes with what it escapes, if anything
    rf"""\\+(?:u(?:([dD][89abAB]{_HEX}{{2}})\\+u([dD][c-fC-F]{_HEX}{{2}})|({_HEX}{{4}}))|([nrtbf"/]))?"""
)


_ONE_ESCAPE: Final = re.compile(  # as JSON reads it
    rf"""\\(?:u([dD][89abAB]{_HEX}{{2}})\\u([dD][c-fC-F]{_HEX}{{2}})|u({_HEX}{{4}})|([nrtbf"/\\]))"""
)
_is_peeled: Final[Search] = searcher(r"\\u00[3-7]")  # a letter, digit or backslash, which may be part of another escape
_MAX_DEPTH: Final = 3  # of escapes whose own letters are escaped: no encoder writes any


class Folded:
    """`text` is UTF-8. Positions in it and in the source count bytes; the source is UTF-8, escaped or not.

    `source_span` must be asked from left to right: it remembers how far it has counted.
    """

    __slots__ = (
        "_begins",
        "_counted",
        "_inner",
        "_is_decoded",
        "_is_translated",
        "_marks",
        "_placed",
        "_raw",
        "_read",
        "_source",
        "is_mapped",
        "text",
    )

    def __init__(self, raw: bytes, depth: int = 0) -> None:
        self.text = raw
        self.is_mapped = False  # whether positions in the text are not those in the source
        if _needs_map(raw, 0, len(raw))[0] != NOWHERE:
            self.is_mapped = True
            self._raw = raw
            self._inner: Folded | None = None
            self._is_decoded = _BACKSLASH in raw and self._decode()
            if self._is_decoded:
                return
            if depth < _MAX_DEPTH and _is_peeled(raw, 0, len(raw))[0] != NOWHERE:
                self._peel(depth)
            else:
                self._fold()
        elif _BACKSLASH in raw:
            for escape, same_length in _SIMPLE_ESCAPES:
                raw = raw.replace(escape, same_length)
            self.text = raw

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """Where the source says what `text[start:end]` says: whole escapes, whole characters."""
        if not self.is_mapped:
            return start, end
        if self._is_decoded:
            at = self._place_of(start, end)
            if at >= 0:
                return at, at + end - start
            self._is_decoded = False
            self._fold()
        if self._inner is not None:
            start, end = self._inner.source_span(start, end)
        start, end = self._to_chars(start), self._to_chars(end)
        return self._to_bytes(self._begin_of(start)), self._to_bytes(self._end_of(end))

    # ---- the usual case: JSON escapes of one depth, and nothing that does not fold one to one

    def _decode(self) -> bool:
        """Read it as a JSON decoder does, if that makes one character of the folded text of each."""
        try:
            decoded = _decode_string(b'"' + self._raw + b'"')
        except msgspec.DecodeError:
            return False
        text = decoded.encode()
        self._is_translated = _needs_map(text, 0, len(text))[0] != NOWHERE
        if self._is_translated or _BACKSLASH in text:
            decoded = decoded.translate(_TABLE)
            if _MARK in decoded:
                return False
            text = decoded.encode()
        self.text = text
        self._placed = (0, 0)
        return True

    def _place_of(self, start: int, end: int) -> int:
        """Where it stands in the source letter by letter, behind what was asked for before; -1 if it does not."""
        known, raw_known = self._placed
        at = self._raw.find(self.text[start:end], raw_known)
        if at < 0 or start < known:
            return -1
        try:
            between = _decode_string(b'"' + self._raw[raw_known:at] + b'"')
        except msgspec.DecodeError:
            return -1
        if self._is_translated:
            between = between.translate(_TABLE)
        if between.encode() != self.text[known:start]:
            return -1
        self._placed = (end, at + end - start)
        return at

    # ---- whatever else there is

    def _fold(self) -> None:
        source = self._raw.decode("utf-8", "replace")
        marked = source.translate(_TABLE)
        pieces: list[str] = []
        marks: list[int] = []  # in the folded text: where a unit begins, where it ends, the next one begins, …
        begins: list[int] = []  # the same places in the source
        at = size = 0
        while (unit := marked.find(_MARK, at)) >= 0:
            escape = _ESCAPE.match(source, unit)
            if escape is None:
                end, plain = unit + 1, _FOLDED.get(ord(source[unit]), "")
            else:
                end, plain = escape.end(), _read_escape(escape)
            size += unit - at
            pieces += marked[at:unit], plain
            marks += size, size + len(plain)
            begins += unit, end
            size += len(plain)
            at = end
        pieces.append(marked[at:])
        self._source, self._marks, self._begins = source, marks, begins
        self._counted = [0, 0, 0, 0]
        self.text = self._read = "".join(pieces).encode()

    def _peel(self, depth: int) -> None:
        """Resolve the outer escapes alone, and fold what they say."""
        source = self._raw.decode("utf-8", "replace")
        pieces: list[str] = []
        marks: list[int] = []
        begins: list[int] = []
        at = size = 0
        for escape in _ONE_ESCAPE.finditer(source):
            start, end = escape.span()
            size += start - at
            pieces += source[at:start], _said_by(escape)
            marks += size, size + 1
            begins += start, end
            size += 1
            at = end
        pieces.append(source[at:])
        self._source, self._marks, self._begins = source, marks, begins
        self._counted = [0, 0, 0, 0]
        self._read = "".join(pieces).encode()
        self._inner = Folded(self._read, depth + 1)
        self.text = self._inner.text

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
        counted[1] += len(self._read[counted[0] : position].decode("utf-8", "replace"))
        counted[0] = position
        return counted[1]

    def _to_bytes(self, position: int) -> int:
        counted = self._counted
        if position < counted[2]:
            counted[2] = counted[3] = 0
        counted[3] += len(self._source[counted[2] : position].encode())
        counted[2] = position
        return counted[3]


def _said_by(escape: re.Match[str]) -> str:
    """The one character that a JSON decoder reads."""
    high, low, four, letter = escape.groups()
    if letter is not None:
        return _LETTERS.get(letter, letter)
    code = int(four, 16) if four is not None else _paired(high, low)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def _paired(high: str, low: str) -> int:
    return 0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00)


def _read_escape(escape: re.Match[str]) -> str:
    """What it stands for."""
    high, low, four, letter = escape.groups()
    if four is not None:
        code = int(four, 16)
    elif letter is not None:
        return _LETTERS.get(letter, letter)
    elif high is not None:
        code = _paired(high, low)
    else:
        return "\\"
    if code in _FOLDED:
        return _FOLDED[code]
    if code == 0 or 0xD800 <= code < 0xE000:
        return "" if code == 0 else "\ufffd"
    return chr(code)
