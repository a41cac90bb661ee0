"""Takes identifiers out of what goes upstream.

For:      a body in which placeholders stand for the caller's values, byte for byte the same everywhere else, and the
          table to turn them back.
Touches:  nothing. Salt and choice of detectors are brought.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

import msgspec

from nexus_gateway.core.errors import MaskingFailed
from nexus_gateway.core.model import Operation

from .arguments import InnerStrings
from .detectors import DEFAULT_DETECTORS, CustomPattern, Detection
from .evidence import Hit
from .fold import Folded
from .placeholders import Placeholders, TypeNames, keyed_digest
from .scan import Kind, scan
from .suspicion import suspect

WHOLE_BYTES: Final = 128 << 10  # up to here one search over the body decides whether to look closer
WINDOW_BYTES: Final = 4 << 10  # what is searched between two pauses: below 5 ms, however many hits it holds
CONTEXT_BYTES: Final = 160  # before a window, for the words that a detector looks for
LONGEST_BYTES: Final = 320  # behind a window, for what begins in it
LONGEST_SECRET_BYTES: Final = 18 << 10  # the same, when something reaches the end of that: keys and tokens
NEAR_THE_END_BYTES: Final = 128  # what ends so close to the end of what was searched may have been cut off there
_NOTHING: Final = Kind.NOTHING  # to look up a member of an enumeration takes Python 3.11 as long as a call
_ARGUMENTS: Final = Kind.ARGUMENTS
_EMBEDDINGS: Final = Operation.EMBEDDINGS
_LONGEST_ESCAPE: Final = 16
_LONGEST_RUN: Final = 64  # of backslashes; a longer one is cut, which harms nothing as no identifier holds one


Window: TypeAlias = tuple[int, list[Hit]]
"""What was found in a part of a body: where the part begins, and hits whose positions count from there."""


class Scope(Enum):
    """Who gets the same placeholder for the same value: one caller in all requests, or everybody."""

    PRINCIPAL = "principal"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class MaskingConfig:
    """What to look for, and what placeholders are made of."""

    salt: bytes = field(repr=False)
    detectors: frozenset[str] = DEFAULT_DETECTORS
    custom: tuple[CustomPattern, ...] = ()
    scope: Scope = Scope.PRINCIPAL


class Masked(NamedTuple):
    """A body with placeholders. `table`: placeholder -> the caller's own text. `counts`: occurrences by type."""

    body: bytes
    table: Mapping[str, str]
    counts: Mapping[str, int]


class MaskedText(NamedTuple):
    """The same of a plain text."""

    text: str
    table: Mapping[str, str]
    counts: Mapping[str, int]


class Finding(NamedTuple):
    """One hit, for people. `start` and `end` count characters of the text."""

    start: int
    end: int
    type: str
    detector: str
    why: str


class Masker:
    """Compiled once, at start-up: about half a second. Raises ValueError for an unknown detector or a bad pattern."""

    __slots__ = ("_detection", "_digest", "_is_global", "_suspects")

    def __init__(self, config: MaskingConfig) -> None:
        self._detection = Detection(config.detectors, config.custom)
        # An operator's pattern may match what no first look foresees, so everything is looked at closely.
        self._suspects = None if config.custom else suspect(self._detection.hints)
        self._digest = keyed_digest(config.salt)
        self._is_global = config.scope is Scope.GLOBAL

    def mask_body(self, body: bytes, operation: Operation, principal_id: str) -> Masked | None:
        """None when there is nothing to mask. Raises MaskingFailed.

        `body` is valid JSON; it takes up to half a second per megabyte, so larger bodies belong to `mask_steps`.
        """
        if self.needs_steps(body):
            return _finish(self.mask_steps(body, operation, principal_id))
        suspect_at = 0
        if self._suspects is not None:
            suspect_at = self._suspects(body, 0, len(body))[0][0]
            if suspect_at < 0:
                return None
        # No pause is wanted: no text is looked at twice.
        return _finish(self._steps(body, operation, principal_id, WHOLE_BYTES, suspect_at))

    def needs_steps(self, body: bytes) -> bool:
        """Whether `mask_body` would take longer than an event loop should stand still."""
        return len(body) > WHOLE_BYTES

    def mask_steps(self, body: bytes, operation: Operation, principal_id: str) -> Generator[None, None, Masked | None]:
        """The same, pausing after every few milliseconds of work; what it returns is `mask_body`'s result."""
        return self._steps(body, operation, principal_id, WINDOW_BYTES)

    def _steps(
        self, body: bytes, operation: Operation, principal_id: str, window_bytes: int, suspect_at: int = 0
    ) -> Generator[None, None, Masked | None]:
        """What ends before `suspect_at` is known to be clean."""
        names = self._names(operation, principal_id)
        pieces: list[bytes] = []
        done = 0
        try:
            for first, last, kind in scan(body, operation):
                if kind is _NOTHING:
                    yield
                    continue
                if last <= suspect_at:
                    continue
                strings = InnerStrings(body, first, last) if kind is _ARGUMENTS else None
                is_suspect = first <= suspect_at
                for begin, found in self._windows(body, first, last, window_bytes, is_suspect=is_suspect):
                    for start, end, rule, normal in found if strings is None else _placed(found, begin, strings, body):
                        start += begin
                        end += begin
                        raw = body[start:end]
                        name = names.name(rule.type, normal, _original(raw, kind) if b"\\" in raw else raw.decode())
                        if strings is not None and strings.is_bare(start):
                            name = b'\\"%b\\"' % name
                        pieces += body[done:start], name
                        done = end
                    yield
        except Exception as exc:  # whatever it is, the text may not leave
            raise MaskingFailed(f"The request could not be masked ({type(exc).__name__}).") from None
        if not pieces:
            return None
        pieces.append(body[done:])
        return Masked(b"".join(pieces), names.table, names.counts)

    def mask_text(self, text: str, principal_id: str = "") -> MaskedText:
        """Plain text, for the audit log and the command line. Raises MaskingFailed."""
        raw = _encode(text)
        names = self._names(Operation.CHAT, principal_id)
        pieces: list[bytes] = []
        done = 0
        for start, end, rule, normal in self._hits_of(raw):
            pieces += raw[done:start], names.name(rule.type, normal, raw[start:end].decode())
            done = end
        pieces.append(raw[done:])
        return MaskedText(b"".join(pieces).decode(), names.table, names.counts)

    def mask_excerpt(self, raw: bytes, limit_bytes: int, principal_id: str) -> tuple[str, bool]:
        """The first `limit_bytes` of a UTF-8 text, masked, and whether that is all of it. Raises MaskingFailed.

        What follows is looked at too, so that an identifier is masked whole where the limit cuts it.
        """
        end = len(raw) if len(raw) <= limit_bytes else _boundary(raw, limit_bytes, 0)
        names = self._names(Operation.CHAT, principal_id)
        pieces: list[bytes] = []
        done = 0
        ahead = end + LONGEST_SECRET_BYTES
        for start, stop, rule, normal in self._hits_of(raw if ahead >= len(raw) else raw[: _boundary(raw, ahead, end)]):
            if start >= end:
                break
            pieces += raw[done:start], names.name(rule.type, normal, "")
            done = stop
        pieces.append(raw[done:end])
        return b"".join(pieces).decode(), max(done, end) == len(raw)

    def explain(self, text: str) -> list[Finding]:
        """What would be masked in a plain text, by which detector, and why. Raises MaskingFailed."""
        raw = _encode(text)
        findings = []
        chars = counted = 0
        for start, end, rule, _ in self._hits_of(raw):
            first = chars + len(raw[counted:start].decode())
            chars, counted = first + len(raw[start:end].decode()), end
            findings.append(Finding(first, chars, rule.type, rule.detector, rule.why))
        return findings

    def _names(self, operation: Operation, principal_id: str) -> Placeholders:
        kind = TypeNames if operation is _EMBEDDINGS else Placeholders
        return kind(self._digest, "" if self._is_global else principal_id)

    def _is_clean(self, body: bytes, start: int, end: int) -> bool:
        return self._suspects is not None and self._suspects(body, start, end)[0][0] < 0

    def _hits_of(self, raw: bytes) -> list[Hit]:
        try:
            return [
                (begin + start, begin + end, rule, normal)
                for begin, hits in self._windows(raw, 0, len(raw), WHOLE_BYTES)
                for start, end, rule, normal in hits
            ]
        except Exception as exc:
            raise MaskingFailed(f"The text could not be masked ({type(exc).__name__}).") from None

    def _windows(
        self, body: bytes, start: int, end: int, window_bytes: int = WINDOW_BYTES, *, is_suspect: bool = False
    ) -> Iterable[Window]:
        """The hits in a part of the body, window by window."""
        if end - start > window_bytes + LONGEST_BYTES:
            return self._window_by_window(body, start, end, window_bytes)
        is_clean = not is_suspect and self._is_clean(body, start, end)
        return ((start, [] if is_clean else self._find(body[start:end])),)

    def _window_by_window(self, body: bytes, start: int, end: int, window_bytes: int) -> Iterator[Window]:
        """None splits an escape nor a character."""
        at = covered = start
        while at < end:
            stop = end if end - at <= window_bytes + LONGEST_BYTES else _boundary(body, at + window_bytes, at)
            covered = max(covered, at)
            begin, hits = self._search(body, at, stop, (start, end))
            hits = [hit for hit in hits if covered <= begin + hit[0] < stop]
            covered = begin + hits[-1][1] if hits else covered
            at = stop
            yield begin, hits

    def _search(self, body: bytes, at: int, stop: int, limits: tuple[int, int]) -> Window:
        """Hits that begin between `at` and `stop`, and maybe some around."""
        first = max(limits[0], at - CONTEXT_BYTES)
        if first > limits[0]:
            first = _boundary(body, first, limits[0])
        hits: list[Hit] = []
        for ahead in (LONGEST_BYTES, LONGEST_SECRET_BYTES):
            last = limits[1] if stop + ahead >= limits[1] else _boundary(body, stop + ahead, stop)
            if self._is_clean(body, first, last):
                return first, []
            hits = self._find(body[first:last])
            most, near_the_end = stop - first, last - first - NEAR_THE_END_BYTES
            if last == limits[1] or not any(hit[0] < most and hit[1] > near_the_end for hit in hits):
                break
        return first, hits

    def _find(self, raw: bytes) -> list[Hit]:
        folded = Folded(raw)
        hits = self._detection.find(folded.text)
        if not folded.is_mapped:
            return hits
        return [(*folded.source_span(start, end), rule, normal) for start, end, rule, normal in hits]


def _finish(steps: Generator[None, None, Masked | None]) -> Masked | None:
    try:
        while True:
            next(steps)
    except StopIteration as done:
        masked: Masked | None = done.value
        return masked


def _placed(hits: list[Hit], begin: int, strings: InnerStrings, body: bytes) -> Iterator[Hit]:
    """The hits as the inner JSON allows them to be replaced: no string's border is crossed."""
    for start, end, rule, normal in hits:
        places = strings.places(begin + start, begin + end)
        for first, last in places:
            yield first - begin, last - begin, rule, normal if len(places) == 1 else body[first:last]


def _boundary(body: bytes, at: int, floor: int) -> int:
    """The last place at or before `at` that is no part of a character or of an escape."""
    while at > floor and body[at] & 0xC0 == 0x80:
        at -= 1
    backslash = body.rfind(b"\\", max(floor, at - _LONGEST_ESCAPE), at)
    if backslash < 0:
        return at
    lowest = max(floor, at - _LONGEST_RUN)
    while backslash > lowest and body[backslash - 1 : backslash] == b"\\":
        backslash -= 1
    return backslash if backslash > floor else at


def _original(raw: bytes, kind: Kind) -> str:
    """The caller's own text, as a person would read it."""
    text: str = msgspec.json.decode(b'"' + raw + b'"')
    if kind is _ARGUMENTS and "\\" in text:
        try:
            text = msgspec.json.decode(f'"{text}"')
        except msgspec.DecodeError:  # not JSON after all
            return text
    return text


def _encode(text: str) -> bytes:
    """Half a surrogate pair, which JSON can say and UTF-8 cannot, becomes the replacement character."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
