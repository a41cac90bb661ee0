"""How the answer of a shadow target differs from the one that the caller got.

For:      one line of figures per mirrored request.
Touches:  nothing.

No text is kept: an answer is read once, plain or event by event, into lengths and digests, so that an answer of any
length takes a few hundred bytes. Two answers are the same in text when every choice says the same, however it was cut
into events. Tool calls are the same when each choice calls the same functions with the same arguments, in the same
order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from .model import Usage

Aspect = Literal["status", "finish_reason", "tool_calls", "text"]

MAX_PARTS: Final = 1024  # choices, and tool calls of one choice: more of them are not told apart


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: Any = None
    refusal: Any = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    text: Any = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    data: list[Any] | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


class _Text:
    """A text that comes in pieces."""

    __slots__ = ("_hash", "chars")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.chars = 0

    def add(self, piece: object) -> None:
        """A list of content parts counts as its JSON."""
        if piece is None:
            return
        if isinstance(piece, str):
            encoded = piece.encode("utf-8", "surrogatepass")
        else:
            encoded = msgspec.json.encode(piece, order="deterministic")
        self._hash.update(encoded)
        self.chars += len(piece) if isinstance(piece, str) else len(encoded)

    def digest(self) -> bytes:
        return self._hash.digest()


@dataclass(slots=True)
class _Part:
    """What is known of one choice."""

    text: _Text = field(default_factory=_Text)
    finish_reason: str | None = None
    calls: dict[int, tuple[_Text, _Text]] = field(default_factory=dict)  # names and arguments

    def add(self, choice: _Choice) -> None:
        self.text.add(choice.text)
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason
        message = choice.delta or choice.message
        if message is None:
            return
        self.text.add(message.content)
        self.text.add(message.refusal)
        for place, call in enumerate(message.tool_calls or ()):
            number = _bounded(call.index if call.index is not None else place)
            name, arguments = self.calls.setdefault(number, (_Text(), _Text()))
            if call.function is not None:
                name.add(call.function.name)
                arguments.add(call.function.arguments)


def _bounded(index: int) -> int:
    return max(0, min(index, MAX_PARTS))


class Sketch:
    """What is kept of an answer. Feed it the body of a plain answer, or the data of each event."""

    __slots__ = ("_parts", "_vectors")

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}
        self._vectors = _Text()

    def add(self, document: bytes) -> None:
        """Take in a body or an event. What cannot be read adds nothing: the upstream's judge has spoken already."""
        try:
            answer = _decode(document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for choice in answer.choices or ():
            self._parts.setdefault(_bounded(choice.index), _Part()).add(choice)
        for vector in answer.data or ():
            self._vectors.add(vector)

    @property
    def chars(self) -> int:
        """Length of the text in all choices; of embeddings, of their JSON."""
        return sum(part.text.chars for part in self._parts.values()) + self._vectors.chars

    def text(self) -> tuple[object, ...]:
        texts = [(number, part.text.digest()) for number, part in sorted(self._parts.items())]
        return (*texts, self._vectors.digest())

    def finish_reasons(self) -> tuple[object, ...]:
        return tuple((number, part.finish_reason) for number, part in sorted(self._parts.items()))

    def tool_calls(self) -> tuple[object, ...]:
        return tuple(
            (number, call, name.digest(), arguments.digest())
            for number, part in sorted(self._parts.items())
            for call, (name, arguments) in sorted(part.calls.items())
        )


@dataclass(slots=True)
class Observed:
    """One answer as it came. `status`: None without a head. Times in seconds from the start of the request."""

    status: int | None
    outcome: str  # "ok", or the code of a failure
    sketch: Sketch
    usage: Usage | None = None
    first_token_s: float | None = None
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """`differs` lists what is not the same, in a fixed order. Other figures are those of the shadow less the primary's,
    None where one of the two has none."""

    differs: tuple[Aspect, ...]
    chars: int
    completion_tokens: int | None
    first_token_s: float | None
    total_s: float

    @property
    def is_identical(self) -> bool:
        return not self.differs


def compare(primary: Observed, shadow: Observed) -> Comparison:
    """An answer that failed differs in status, even if its head said 200."""
    ours, theirs = primary.sketch, shadow.sketch
    same: Mapping[Aspect, bool] = {
        "status": (primary.status, primary.outcome) == (shadow.status, shadow.outcome),
        "finish_reason": ours.finish_reasons() == theirs.finish_reasons(),
        "tool_calls": ours.tool_calls() == theirs.tool_calls(),
        "text": ours.text() == theirs.text(),
    }
    tokens = None
    if primary.usage is not None and shadow.usage is not None:
        tokens = shadow.usage.completion_tokens - primary.usage.completion_tokens
    first_token_s = None
    if primary.first_token_s is not None and shadow.first_token_s is not None:
        first_token_s = shadow.first_token_s - primary.first_token_s
    return Comparison(
        tuple(aspect for aspect, is_same in same.items() if not is_same),
        theirs.chars - ours.chars,
        tokens,
        first_token_s,
        shadow.total_s - primary.total_s,
    )
