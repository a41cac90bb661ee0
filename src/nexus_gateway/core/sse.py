"""Server-sent events, cut anywhere on their way, put together again.

For:      finding the data of each event in whatever dialect an upstream writes (CRLF, BOM, comments, `event:` lines).
Touches:  nothing.
Source:   WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

import re
from typing import Final

MAX_EVENT_BYTES: Final = 8 << 20  # an image in one delta; a longer line is a fault, not an answer
DONE: Final = b"[DONE]"

_LF: Final = ord("\n")
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


class EventTooLong(ValueError):
    """An event is over MAX_EVENT_BYTES."""


class EventSplitter:
    """Turns pieces of a stream into the data of its events, each in one line. Comments and other fields are dropped."""

    __slots__ = ("_held", "_held_bytes", "_saw_cr", "_started")

    def __init__(self) -> None:
        self._held: list[bytes] = []  # the beginning of an event whose end has not come
        self._held_bytes = 0
        self._saw_cr = False
        self._started = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that `piece` completed. Raises EventTooLong."""
        if self._started and not (self._held or self._saw_cr) and _is_one_event(piece):
            return [piece[6:-2]]
        if not self._started:
            piece = self._strip_bom(piece)
        if self._saw_cr or b"\r" in piece:
            piece = self._normalise(piece)
        if self._held:
            if not self._may_complete(piece):
                self._hold(piece)
                return []
            piece = b"".join((*self._held, piece))
            self._held.clear()
            self._held_bytes = 0
        blocks = piece.split(b"\n\n")
        if rest := blocks.pop():
            self._hold(rest)
        return [data for block in blocks if (data := _data_of(block))]

    def finish(self) -> list[bytes]:
        """What stood at the end without the empty line that should have followed it."""
        rest = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return [data] if (data := _data_of(rest)) else []

    def _may_complete(self, piece: bytes) -> bool:
        return b"\n\n" in piece or (piece.startswith(b"\n") and self._held[-1].endswith(b"\n"))

    def _hold(self, piece: bytes) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise EventTooLong

    def _strip_bom(self, piece: bytes) -> bytes:
        """A byte order mark may itself come in pieces: what could still become one is held back by its caller."""
        whole = b"".join((*self._held, piece))
        self._held.clear()
        self._held_bytes = 0
        if len(whole) < len(_BOM) and _BOM.startswith(whole):
            self._hold(whole)
            return b""
        self._started = True
        return whole.removeprefix(_BOM)

    def _normalise(self, piece: bytes) -> bytes:
        """All line ends become LF. A CR at the end of a piece is one at once; the LF that may follow is dropped."""
        if self._saw_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._saw_cr = piece.endswith(b"\r") if piece else self._saw_cr
        return _LINE_END.sub(b"\n", piece)


def _is_one_event(piece: bytes) -> bool:
    """Whether it is one event as most servers write it: all of it, in one line, and nothing else."""
    end = len(piece) - 2
    return (
        piece.startswith(b"data: ") and end > 6 and piece.find(b"\n") == end and piece[-1] == _LF and b"\r" not in piece
    )


def _data_of(block: bytes) -> bytes:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b" ".join(lines)  # between two tokens of JSON a space is as good as a line end
