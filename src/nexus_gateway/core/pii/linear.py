"""RE2 over bytes, as spans.

For:      searching text that anybody may have written: RE2 takes time linear in it, whatever the pattern.
Touches:  nothing.

The wrapper's match objects cost more than the search itself, so this module, and no other, calls the binding below it.
A pattern that is searched repeatedly must be decided a bounded way behind its first byte, or match: a thread that runs
to the end of the text and then fails would be run again from the next match, and repeated linear is quadratic.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeAlias

import re2

Span: TypeAlias = tuple[int, int]
Search: TypeAlias = Callable[[bytes, int, int], list[Span]]
"""`(text, start, end)` -> one span; (-1, -1) when there is none. Word boundaries see what lies outside of the range."""

NOWHERE: Final = (-1, -1)
MAX_PATTERN_MEMORY_BYTES: Final = 64 << 20  # RE2 turns to a slower machine when its table of states is full


class BadPattern(ValueError):
    """The pattern is not one of RE2's."""


def searcher(pattern: str) -> Search:
    """Finds the leftmost match."""
    return partial(_matcher(pattern), re2._re2.RE2.Anchor.UNANCHORED)


def prefixer(pattern: str) -> Search:
    """Matches at the start of the range only."""
    return partial(_matcher(pattern), re2._re2.RE2.Anchor.ANCHOR_START)


def whole(pattern: str) -> Search:
    """Matches the whole range or nothing."""
    return partial(_matcher(pattern), re2._re2.RE2.Anchor.ANCHOR_BOTH)


def spans(search: Search, text: bytes, at: int = 0, size: int | None = None) -> Iterator[Span]:
    """All matches in a range, none of them empty, from left to right."""
    size = len(text) if size is None else size
    while at < size:
        start, end = search(text, at, size)[0]
        if start < 0:
            return
        if end > start:
            yield start, end
        at = max(end, at + 1)


def has(search: Search, text: bytes) -> bool:
    return search(text, 0, len(text))[0] != NOWHERE


def _matcher(pattern: str) -> Callable[..., list[Span]]:
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True  # groups cost a second, slower pass
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as exc:
        raise BadPattern(str(exc)) from exc
    match: Callable[..., list[Span]] = compiled._regexp.Match
    return match
