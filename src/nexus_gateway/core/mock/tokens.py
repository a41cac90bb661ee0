"""The mock model's tokens: easy to count by hand, and the same wherever they are counted.

For:      streams that bring one token per event, and `usage` that is exactly their number.
Touches:  nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Final

_UNSPACED: Final = "가-힣\u3040-\u30ff\u4e00-\u9fff"  # Hangul syllables, kana, han: one token each
_TOKEN: Final = re.compile(rf" ?(?:[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s])|\s")
_FILLER: Final = (" and", " so", " on")


def split(text: str) -> list[str]:
    """The tokens of `text`: each word, punctuation mark and East Asian letter, with one space before it if there is
    one; and any other white space. Joined they are `text` again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    return len(split(text))


@dataclass(frozen=True, slots=True)
class Passage:
    """`length` tokens: of `own` as many as fit, then filler, made while it is read."""

    own: Sequence[str]
    length: int

    def __iter__(self) -> Iterator[str]:
        return islice(chain(self.own, cycle(_FILLER)), self.length)

    def __str__(self) -> str:
        return "".join(self)
