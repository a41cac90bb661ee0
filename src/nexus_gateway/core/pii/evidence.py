"""What a detector is given, and what it answers.

For:      one shape for every finding: where, of what kind, by which rule, and the value in its one spelling.
Touches:  nothing. All text here is folded UTF-8.
"""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from .linear import Search, has, searcher

DIGITS: Final = b"0123456789"
LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SEPARATORS: Final = b" -.()/+_"

_JOINED: Final = DIGITS + LETTERS + b"-"
_OPEN: Final = frozenset((b"", b" ", b"\n", b'"'))  # nothing is glued on
_PHONE_LABEL: Final = searcher(r"(?i)(?:^|[^0-9A-Za-z\-])(?:tel|phone|mobile|cell|fax|hp|[htm])-?$")
AS_GROUPS: Final = bytes.maketrans(SEPARATORS, b" " * len(SEPARATORS))
_WORD_BYTES: Final = frozenset(DIGITS + LETTERS + b"_")
_AMOUNT: Final = (b"%", b",000", "원".encode(), "만".encode(), "억".encode(), "달러".encode(), "건".encode())
_JAMO: Final = b"\xe1\x84"  # conjoining consonants: Hangul as some file systems spell it
_JAMO_LEAD: Final = _JAMO[0]  # a byte is looked for in a tenth of the time that two are

_OTHER_NUMBER: Final = searcher(
    r"(?i)(?:주문|운송장|송장|접수|승인|거래|상품|제품|모델|품번|일련|시리얼|바코드|예약|문서|"
    r"법인 ?등록|법인(?: ?번호)|티켓|빌드|버전|"
    r"order|invoice|tracking|waybill|serial|model|part|sku|ticket|case|build|version|timestamp|epoch|isbn|ean|upc|gtin|"
    r"barcode|imei|iccid|purchase|reference|ref|trace|span|session|transaction|txn|receipt|product|item|lot|batch|"
    r"\bts|\bpo|\bunix(?: time)?|_at|_ms|\btime|\bnonce|\bseq)"
    r"[ _-]?(?:번호|코드|넘버|number|num|nr|no\.?|id|code|key)?[\s:=#\"'()\[\]>은는이가]{0,10}$"
)


_BEHIND_LABEL: Final = b" \t\n:=#\"'()[]"
_NO_LABEL: Final = frozenset((b"", *(bytes((digit,)) for digit in DIGITS)))  # what no label ends with


class Rule(NamedTuple):
    """Why something is masked. `type` is what the placeholder says; several detectors may share one."""

    detector: str
    type: str
    why: str


Hit: TypeAlias = tuple[int, int, Rule, bytes]
"""Start, end, rule, and the value in its one spelling: equal values get equal placeholders. A plain tuple is cheap."""

Find: TypeAlias = Callable[[bytes], list[Hit]]


class Number:
    """A run of digits with separators, as a shape found it. What costs is worked out when it is first asked for."""

    __slots__ = ("_groups", "_labelled", "digits", "end", "is_plain", "piece", "start", "text")

    def __init__(self, text: bytes, start: int, end: int, piece: bytes, digits: bytes) -> None:
        self.text = text
        self.start = start
        self.end = end
        self.piece = piece
        self.digits = digits
        self.is_plain = len(digits) == len(piece)  # nothing stands between them
        self._groups: tuple[int, ...] | None = None
        self._labelled: bool | None = None

    @property
    def groups(self) -> tuple[int, ...]:
        """Lengths of the digit groups."""
        if self._groups is None:
            self._groups = tuple(map(len, self.piece.translate(AS_GROUPS).split()))
        return self._groups

    @property
    def is_free(self) -> bool:
        """Whether it stands for itself: not a part of a longer number, a UUID, a version, a decimal or an amount."""
        start, end, text = self.start, self.end, self.text
        left, right = text[start - 1 : start], text[end : end + 1]
        if left in _OPEN:
            if right in _OPEN:
                return True
            if right not in _JOINED and not self.is_plain and b"." not in self.piece:
                return True  # only a sign behind it
        return self._stands_alone(left, right)

    @property
    def is_labelled_otherwise(self) -> bool:
        """Whether the words right before it call it an order number, a timestamp or the like."""
        if self._labelled is None:
            before = self.text[max(0, self.start - 64) : self.start]
            self._labelled = before.rstrip(_BEHIND_LABEL)[-1:] not in _NO_LABEL and has(_OTHER_NUMBER, before)
        return self._labelled

    def near(self, words: Search, before: int = 120, after: int = 60) -> bool:
        """Whether one of these words stands close by; distances in bytes, a Hangul syllable is three."""
        return has(words, composed(self.text[max(0, self.start - before) : self.end + after]))

    def _stands_alone(self, left: bytes, right: bytes) -> bool:
        before, after = self.text[max(0, self.start - 12) : self.start], self.text[self.end : self.end + 12]
        if left.isdigit() or right.isdigit():
            return False
        if (left == b"-" or left.isalpha()) and not has(_PHONE_LABEL, before):
            return False
        if right == b"-" and after[1:2].isalnum():
            return False
        if right.isalpha() and _has_digit(after[: len(after) - len(after.lstrip(_JOINED))]):
            return False
        if not self.is_plain and b"." not in self.piece:
            return True
        if (right == b"." and after[1:2].isdigit()) or (left == b"." and before[-2:-1].isdigit()):
            return False
        return not self.is_plain or _is_bare_word(before, after)


Check: TypeAlias = Callable[[Number], Hit | None]
Word: TypeAlias = Callable[[bytes, int, int], Hit | None]
"""Judges a match that is not only digits and separators: text, start, end."""


Table: TypeAlias = Callable[[bytes, int, int], list[Hit]]


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of identifier.

    `shapes` are RE2 alternatives for where it may stand; `open_shapes` take in whatever digits follow, so that all
    others go before. `checks` judge a number by how many digits it has, `word` a match that begins with one of the
    bytes `leads`, `table` one with more digits than a number has. `begins`: the first two digits of every number that
    the checks accept; empty: any. `find` is for what no bounded pattern finds, in text that holds `sign`, whose
    last byte should be a rare one, for it is looked for first. `hints` are what to look for in a raw body, when that is
    not the shapes themselves.
    """

    name: str
    about: str
    shapes: tuple[str, ...] = ()
    open_shapes: tuple[str, ...] = ()
    checks: Mapping[int, Check] = field(default_factory=dict)
    begins: frozenset[bytes] = frozenset()
    word: Word | None = None
    leads: bytes = b""
    table: Table | None = None
    find: Find | None = None
    sign: bytes = b""
    hints: tuple[str, ...] = ()


def pairs(first: int, last: int) -> frozenset[bytes]:
    """Two digits each: `pairs(8, 11)` are 08, 09, 10 and 11."""
    return frozenset(b"%02d" % number for number in range(first, last + 1))


def number_at(text: bytes, start: int, end: int) -> Number:
    piece = text[start:end]
    return Number(text, start, end, piece, piece.translate(None, SEPARATORS))


def composed(text: bytes) -> bytes:
    """With Hangul written as syllables."""
    if _JAMO_LEAD not in text or _JAMO not in text:
        return text
    return unicodedata.normalize("NFC", text.decode("utf-8", "ignore")).encode()


def leading_digits(text: bytes, at: int) -> int:
    """How many digits stand at `at`; 64 at most, so that a caller in a loop stays linear."""
    ahead = text[at : at + 64]
    return len(ahead) - len(ahead.lstrip(DIGITS))


def _has_digit(run: bytes) -> bool:
    return len(run.translate(None, DIGITS)) < len(run)


def _is_bare_word(before: bytes, after: bytes) -> bool:
    """No letter and no underscore touches the digits, and they are no sum of money."""
    if (before and before[-1] in _WORD_BYTES) or (after and after[0] in _WORD_BYTES):
        return False
    return not (after.startswith(_AMOUNT) or before.endswith((b"$", "₩".encode())))
