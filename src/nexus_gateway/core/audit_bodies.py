"""What auditors may read of a prompt and of its answer: text, masked, and no more than so much of it.

For:      `GATEWAY_AUDIT_BODIES=masked`. The loop keeps bytes that exist anyway; the audit's thread makes text of them.
Touches:  nothing. The masking is brought.

What cannot be masked is not told. No identifier is cut in two, neither where the text ends nor between two events of a
stream, whose pieces are put together first.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from .errors import MaskingFailed
from .model import Told
from .pii.linear import searcher, spans
from .sse import DONE

MAX_TOLD_BYTES: Final = 64 << 10  # of the prompt, and of the answer
MAX_EVENTS_BYTES: Final = 4 << 20  # of one stream until it is put together; about 20,000 tokens
MAX_KEPT_BYTES: Final = 64 << 20  # of all requests together
UNSURE_BYTES: Final = 512  # at the end of a text that was cut: what stands there may be half of something

Mask: TypeAlias = Callable[[bytes, int, str], tuple[str, bool]]
"""Text, how much of it to tell, for whom: the masked text, and whether that is all of it. Raises MaskingFailed."""

_BASE64: Final = searcher(r'[",](?:[A-Za-z0-9+/=_\-]|\\/){1000,}"')  # images, sound and files, as strings hold them
_SAID_ONCE: Final = frozenset(("role", "id", "type", "name"))  # though some servers say them in every event
_SAID_AGAIN: Final = "logprobs"  # the answer, token by token: no detector would know an identifier in it

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode


class Room:
    """How many bytes are kept in all, whoever takes and gives back: the loop, or the audit's thread."""

    __slots__ = ("_lock", "left_bytes")

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self.left_bytes = max_bytes
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether so much may be kept."""
        with self._lock:
            fits = size <= self.left_bytes
            if fits:
                self.left_bytes -= size
        return fits

    def give_back(self, size: int) -> None:
        with self._lock:
            self.left_bytes += size


class Kept:
    """The bodies of one request: bytes at first, then what is told of them. `tell`, or `free`, gives the room back."""

    __slots__ = (
        "_answer",
        "_answer_bytes",
        "_is_cut",
        "_is_stream",
        "_mask",
        "_prompt",
        "_prompt_bytes",
        "_room",
        "_says_vectors",
        "_taken_bytes",
        "_told",
    )

    def __init__(self, room: Room, mask: Mask, *, says_vectors: bool) -> None:
        self._room = room
        self._mask = mask
        self._says_vectors = says_vectors
        self._taken_bytes = 0
        self._prompt: bytes | None = None
        self._prompt_bytes: int | None = None  # None: it never came
        self._answer: list[bytes] = []
        self._answer_bytes: int | None = None
        self._is_stream = False
        self._is_cut = False  # the end of the stream was not kept
        self._told: tuple[Told | None, Told | None] | None = None

    # ---- on the loop

    def take_prompt(self, body: bytes) -> None:
        self._prompt_bytes = len(body)
        if self._take(len(body)):
            self._prompt = body

    def take_answer(self, body: bytes) -> None:
        """A whole one."""
        self._answer_bytes = len(body)
        if not self._says_vectors and self._take(len(body)):
            self._answer.append(body)

    def take_piece(self, piece: bytes) -> None:
        """Of a stream: one or more whole events."""
        self._is_stream = True
        self._answer_bytes = (self._answer_bytes or 0) + len(piece)
        self._is_cut = self._is_cut or self._answer_bytes > MAX_EVENTS_BYTES or not self._take(len(piece))
        if not self._is_cut:
            self._answer.append(piece)

    def _take(self, size: int) -> bool:
        taken = self._room.take(size)
        if taken:
            self._taken_bytes += size
        return taken

    # ---- on any thread, one after the other

    def free(self) -> None:
        taken, self._taken_bytes = self._taken_bytes, 0
        self._room.give_back(taken)
        self._prompt = None
        self._answer.clear()

    def tell(self, key_id: str) -> tuple[Told | None, Told | None]:
        """What to say of the prompt and of the answer. Masks when it is first asked, which takes up to 0.2 s."""
        if self._told is None:
            self._told = self._tell_prompt(key_id), self._tell_answer(key_id)
            self.free()
        return self._told

    def _tell_prompt(self, key_id: str) -> Told | None:
        if self._prompt_bytes is None:
            return None
        if self._prompt is None:
            return Told(self._prompt_bytes, lacks="overload")
        return self._tell(self._prompt_bytes, self._prompt, key_id)

    def _tell_answer(self, key_id: str) -> Told | None:
        size = self._answer_bytes
        if size is None:
            return None
        if not self._answer:
            return Told(size, lacks="vectors" if self._says_vectors else "overload")
        try:
            document = joined(self._answer) if self._is_stream else without_repetition(self._answer[0])
            if self._is_cut:
                document = _mapped(document, lambda text: self._without_end(text, key_id))
        except MaskingFailed:
            return Told(size, lacks="masking_failed")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Told(size, lacks="unreadable")
        told = self._tell(size, _encode(document), key_id)
        if self._is_cut and told.lacks is None:
            told.lacks = "rest"
        return told

    def _without_end(self, text: str, key_id: str) -> str:
        """Masked, without what could be the begin of an identifier whose rest was not kept."""
        raw = text.encode()
        return self._mask(raw, max(0, len(raw) - UNSURE_BYTES), key_id)[0]

    def _tell(self, size: int, body: bytes, key_id: str) -> Told:
        try:
            body.decode()
        except UnicodeDecodeError:
            return Told(size, lacks="binary")
        try:
            text, is_whole = self._mask(without_base64(body), MAX_TOLD_BYTES, key_id)
        except MaskingFailed:
            return Told(size, lacks="masking_failed")
        return Told(size, text, None if is_whole else "rest")


def without_base64(body: bytes) -> bytes:
    """With the size of images, sound and files in their place."""
    pieces: list[bytes] = []
    done = 0
    for start, end in spans(_BASE64, body):
        pieces += body[done : start + 1], b"(%d bytes)" % (end - start - 2)
        done = end - 1
    return b"".join((*pieces, body[done:])) if pieces else body


def without_repetition(body: bytes) -> dict[str, Any]:
    """A plain answer."""
    document = _decode(body)
    for choice in _choices(document):
        choice.pop(_SAID_AGAIN, None)
    return document


def joined(pieces: list[bytes]) -> dict[str, Any]:
    """The events of a stream as the one answer that they are together. An event that cannot be read is left out."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for block in b"".join(pieces).split(b"\n\n"):
        data = block.removeprefix(b"data: ")
        if not data or data == DONE:
            continue
        try:
            event = _decode(data)
        except msgspec.DecodeError:
            continue
        for number, choice in enumerate(_choices(event)):
            choice.pop(_SAID_AGAIN, None)
            index = choice.get("index")
            _add(choices.setdefault(index if isinstance(index, int) else number, {}), choice)
        answer.update({name: value for name, value in event.items() if name != "choices"})
    return {**answer, "choices": [_finished(choice) for _, choice in sorted(choices.items())]}


def _choices(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


class _Pieces(list[str]):
    """A string that is still growing."""


class _Elements(dict[int, dict[str, Any]]):
    """A list whose elements say which they are, such as tool calls."""


def _add(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Take in a further piece of an object: strings grow, objects and elements are looked into, all else replaced."""
    for name, value in part.items():
        known = whole.get(name)
        if isinstance(value, str):
            if not isinstance(known, _Pieces):
                whole[name] = _Pieces([value])
            elif name not in _SAID_ONCE:
                known.append(value)
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = whole[name] = {}
            _add(known, value)
        elif isinstance(value, list) and value and all(isinstance(element, dict) for element in value):
            if not isinstance(known, _Elements):
                known = whole[name] = _Elements()
            for number, element in enumerate(value):
                index = element.get("index")
                _add(known.setdefault(index if isinstance(index, int) else number, {}), element)
        elif value is not None or known is None:
            whole[name] = value


def _finished(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, _Elements):
        return [_finished(element) for _, element in sorted(value.items())]
    if isinstance(value, dict):
        return {name: _finished(member) for name, member in value.items()}
    return value


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every string changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(member, change) for name, member in value.items()}
    if isinstance(value, list):
        return [_mapped(element, change) for element in value]
    return value
