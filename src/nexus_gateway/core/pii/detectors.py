"""The detectors there are, and the search that a choice of them is compiled to.

For:      every identifier in a text, at most one per place.
Touches:  nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from . import international, korean, mail, secrets
from .evidence import DIGITS, SEPARATORS, Check, Detector, Find, Hit, Number, Rule, Word, leading_digits, pairs
from .linear import BadPattern, Search, has, prefixer, searcher, spans, whole

BARE_NUMBER: Final = r"\b\d{9,19}\b"
SPACED_DIGITS: Final = r"\b\d(?: (?:- )?\d){8,}"  # 0 1 0 1 2 3 4 5 6 7 8
_WIDE: Final = prefixer(r"\d{6}[- ]\d{13}\b|\d{2,19}(?: ?- ?\d{1,7}){1,4}|\d{9,19}|" + korean.SPACED_ACCOUNT)
_NUMBER_LEADS: Final = frozenset(DIGITS + b"(+")
_GOES_ON: Final = frozenset(bytes((byte,)) for byte in DIGITS + b"-")
_MOST_DIGITS: Final = 19  # of one number
_SHORTEST_TABLE: Final = 24  # bytes: five groups of four
_UNDERSCORE: Final = ord("_")
_HYPHEN: Final = ord("-")
_DATE_BYTES: Final = len("2026-11-24")
_TYPE_NAME: Final = whole(r"[A-Z][A-Z0-9_]{0,31}")
_SPLITS_CHARACTERS: Final = r"\C"

_MAKERS: Final[Mapping[str, Callable[[], Detector]]] = {
    "email": lambda: mail.EMAIL,
    "jwt": lambda: secrets.JWT,
    "private_key": lambda: secrets.PRIVATE_KEY,
    "api_key": lambda: secrets.API_KEY,
    "rrn": lambda: korean.RRN,
    "frn": lambda: korean.FRN,
    "driver_license": lambda: korean.DRIVER_LICENSE,
    "card": lambda: international.CARD,
    "mobile": lambda: korean.MOBILE,
    "landline": lambda: korean.LANDLINE,
    "business_number": lambda: korean.BUSINESS_NUMBER,
    "ssn": lambda: international.SSN,
    "phone": lambda: international.phone(international.numbering_plan()),
    "passport": lambda: korean.PASSPORT,
    "iban": lambda: international.iban(international.iban_structures()),
    "bank_account": lambda: korean.BANK_ACCOUNT,
    "ip": lambda: international.IP,
}
"""In the order of precedence: what two of them claim is the earlier one's."""

DETECTORS: Final = tuple(_MAKERS)
DEFAULT_DETECTORS: Final = frozenset(DETECTORS) - {"ip"}


def about(name: str) -> str:
    """What a detector finds, in a sentence: for the command line."""
    return _MAKERS[name]().about


@dataclass(frozen=True, slots=True)
class CustomPattern:
    """An operator's own pattern, in RE2's syntax. `type` is what placeholders say: capitals, digits, underscores."""

    type: str
    pattern: str


class Detection:
    """A choice of detectors, compiled. `hints` are for the first look at a raw body.

    Raises ValueError for an unknown name, BadPattern for a pattern that is none.
    """

    __slots__ = ("_checks", "_finders", "_shapes", "_signed", "_tables", "_words", "hints")

    def __init__(self, names: Iterable[str], custom: Iterable[CustomPattern] = ()) -> None:
        names = frozenset(names)
        if unknown := sorted(names.difference(DETECTORS)):
            raise ValueError(f"There is no detector {unknown[0]!r}.")
        chosen = [make() for name, make in _MAKERS.items() if name in names]
        shapes = [shape for detector in chosen for shape in detector.shapes]
        numbers = [SPACED_DIGITS, BARE_NUMBER] if any(detector.checks for detector in chosen) else []
        open_shapes = [shape for detector in chosen for shape in detector.open_shapes]
        self._shapes = searcher("|".join(dict.fromkeys(shapes + numbers + open_shapes))) if shapes else None
        self._checks = _by_length_and_begin(chosen)
        self._words = _by_lead(chosen)
        self._tables = [detector.table for detector in chosen if detector.table]
        found = [(detector.sign, detector.find) for detector in chosen if detector.find]
        self._finders = [*map(_compile, custom), *(find for sign, find in found if not sign)]
        self._signed = [(sign[-1], sign, find) for sign, find in found if sign]
        self.hints = tuple(
            dict.fromkeys(
                [*numbers, *open_shapes, *(hint for detector in chosen for hint in detector.hints or detector.shapes)]
            )
        )

    def find(self, text: bytes) -> list[Hit]:
        """All hits in folded text, from left to right; no two overlap."""
        hits: list[Hit] = []
        for find in self._finders:
            hits += find(text)
        for rare, sign, find in self._signed:
            if rare in text and sign in text:
                hits += find(text)
        if self._shapes is not None:
            shaped = self._find_shapes(self._shapes, text)
            if not hits:
                return shaped
            hits += shaped
        return hits if _are_apart(hits) else _united(text, hits)

    def _find_shapes(self, search: Search, text: bytes) -> list[Hit]:
        hits = []
        at, size = 0, len(text)
        while at < size:
            start, end = search(text, at, size)[0]
            if start < 0:
                break
            if text[start] == _UNDERSCORE:
                start += 1
            length = end - start
            if length == _DATE_BYTES and text[start + 4] == _HYPHEN == text[start + 7] and text[start] in DIGITS:
                at = end  # a date, as most numbers with hyphens are; no other begins within
            elif length >= _SHORTEST_TABLE and _is_table(text, start, end):
                for table in self._tables:
                    hits += table(text, start, end)
                at = end
            else:
                hit = self._judge_number(text, start, end) or self._judge(text, start, end)
                if hit is None:
                    at = _behind(text, start, end)
                else:
                    hits.append(hit)
                    at = hit[1]
        return hits

    def _judge(self, text: bytes, start: int, end: int) -> Hit | None:
        """What is not a number as it stands."""
        lead = text[start]
        if lead in _NUMBER_LEADS and text[end : end + 1] in _GOES_ON:
            wide_end = _WIDE(text, start, len(text))[0][1]
            if wide_end > end and (hit := self._judge_number(text, start, wide_end)) is not None:
                return hit
        for word in self._words.get(lead, ()):
            hit = word(text, start, end)
            if hit is not None:
                return hit
        if lead not in _NUMBER_LEADS and text[start + 1] in _NUMBER_LEADS:
            return self._judge_number(text, start + 1, end)
        return None

    def _judge_number(self, text: bytes, start: int, end: int) -> Hit | None:
        piece = text[start:end]
        digits = piece.translate(None, SEPARATORS)
        checks = self._checks.get((len(digits), digits[:2]))
        if checks is None:
            return None
        number = Number(text, start, end, piece, digits)
        for check in checks:
            hit = check(number)
            if hit is not None:
                return hit
        return None


def _is_table(text: bytes, start: int, end: int) -> bool:
    """More digits than any number has, such as rows of groups of four."""
    return text[start] in _NUMBER_LEADS and len(text[start:end].translate(None, SEPARATORS)) > _MOST_DIGITS


def _behind(text: bytes, start: int, end: int) -> int:
    """Where to go on behind what was nothing: at the next group of digits, which may begin something."""
    digits = leading_digits(text, start)
    if digits == 1 and text[start + 1 : start + 2] == b" ":
        return end  # digits set apart one by one are judged as a whole
    return start + (digits or 1)


def _by_length_and_begin(chosen: Iterable[Detector]) -> Mapping[tuple[int, bytes], list[Check]]:
    checks: dict[tuple[int, bytes], list[Check]] = {}
    for detector in chosen:
        for length, check in detector.checks.items():
            for begin in detector.begins or pairs(0, 99):
                checks.setdefault((length, begin), []).append(check)
    return checks


def _by_lead(chosen: Iterable[Detector]) -> Mapping[int, list[Word]]:
    words: dict[int, list[Word]] = {}
    for detector in chosen:
        if detector.word is not None:
            for lead in detector.leads:
                words.setdefault(lead, []).append(detector.word)
    return words


def _are_apart(hits: list[Hit]) -> bool:
    """Whether they stand in order, and none reaches into the next."""
    end = 0
    for start, stop, _, _ in hits:
        if start < end:
            return False
        end = stop
    return True


def _united(text: bytes, hits: list[Hit]) -> list[Hit]:
    """Without overlaps, and without uncovering anything: two that cross become one."""
    hits.sort(key=lambda hit: (hit[0], -hit[1]))  # stable: of equals the first detector's comes first
    united: list[Hit] = []
    end = 0
    for hit in hits:
        start, stop, _, _ = hit
        if start >= end:
            united.append(hit)
        elif stop > end:
            first, _, rule, _ = united[-1]
            united[-1] = (first, stop, rule, text[first:stop])
        end = max(end, stop)
    return united


def _compile(custom: CustomPattern) -> Find:
    if not has(_TYPE_NAME, custom.type.encode()):
        raise ValueError(f"{custom.type!r} is not made of capitals, digits and underscores.")
    if _SPLITS_CHARACTERS in custom.pattern:
        raise BadPattern(r"\C would match parts of characters")
    search = searcher(custom.pattern)
    if has(search, b""):
        raise BadPattern("it matches the empty text")
    rule = Rule("custom", custom.type, "the operator's pattern")

    def find(text: bytes) -> list[Hit]:
        return [(start, end, rule, text[start:end]) for start, end in spans(search, text)]

    return find
