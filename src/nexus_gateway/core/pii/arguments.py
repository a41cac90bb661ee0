"""A tool call's arguments: JSON inside a JSON string, which must stay JSON when something in it is replaced.

For:      telling of a span in the raw body whether it lies in a string of the inner JSON, beside one, or across.
Touches:  nothing.
"""

from typing import Final

from .linear import Span, prefixer, searcher

_LOOKS_LIKE_JSON: Final = prefixer(r"(?:\s|\\[nrt])*(?:[\[{]|\\u00[57][bB])")
_QUOTE: Final = searcher(r"(?:\\\\|\\u005[cC])+(?:\\\"|\\u0022)?|\\\"|\\u0022")  # backslashes, a quote, or both
_WRITTEN_OUT: Final = len(rb"\u005c")
_NUMERIC: Final = b"0123456789+-.eE"
_STRUCTURE: Final = b"\\ntr ,:[]{}"


class InnerStrings:
    """Follows the strings of the inner JSON through `body[start:end]`. Asked from left to right."""

    __slots__ = ("_at", "_bare", "_body", "_end", "_inside", "_is_json", "_next")

    def __init__(self, body: bytes, start: int, end: int) -> None:
        self._body = body
        self._at = start  # behind the last quote passed
        self._end = end
        self._inside = False
        self._bare: set[int] = set()
        self._is_json = _LOOKS_LIKE_JSON(body, start, end)[0][0] >= 0
        self._next = self._find_quote(start)

    def places(self, start: int, end: int) -> list[Span]:
        """The parts of a span that can be replaced, each on its own."""
        if not self._is_json:
            return [(start, end)]
        while self._next[1] <= start:
            self._pass_quote()
        found = []
        while self._next[0] < end:
            found += self._part(max(start, self._at), self._next[0])
            self._pass_quote()
        found += self._part(max(start, self._at), end)
        return found or [(start, end)]  # it was not read aright: rather broken than told

    def is_bare(self, start: int) -> bool:
        """Whether the place that begins here is a number's, so that what takes it needs quotes."""
        return start in self._bare

    def _part(self, start: int, end: int) -> list[Span]:
        if start >= end:
            return []
        if self._inside:
            return [(start, end)]
        part = self._body[start:end]
        start, end = end - len(part.lstrip(_STRUCTURE)), start + len(part.rstrip(_STRUCTURE))
        if start >= end or self._body[start:end].strip(_NUMERIC):
            return []  # true, null or punctuation
        while self._body[start - 1] in _NUMERIC:
            start -= 1
        while self._body[end] in _NUMERIC:
            end += 1
        self._bare.add(start)
        return [(start, end)]

    def _pass_quote(self) -> None:
        self._at = self._next[1]
        self._inside = not self._inside
        self._next = self._find_quote(self._at)

    def _find_quote(self, at: int) -> tuple[int, int]:
        """The next quote that is structure: behind an even number of backslashes, once the outer string is read."""
        while True:
            start, end = _QUOTE(self._body, at, self._end)[0]
            if start < 0:
                return self._end, self._end + 1
            found = self._body[start:end]
            if found.endswith((b'"', b"u0022")):
                before = found[:-2] if found.endswith(b'"') else found[:-_WRITTEN_OUT]
                written_out = before.count(b"u005")
                if ((len(before) - _WRITTEN_OUT * written_out) // 2 + written_out) % 2 == 0:
                    return start, end
            at = end
