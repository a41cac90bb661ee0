"""What a request will cost in tokens, before anyone has counted them; and what it cost where nobody ever did.

For:      reserving enough without a tokenizer: an estimate is settled by the upstream's own usage.
Touches:  nothing.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from .account import Cost
from .model import Call, Operation

MEDIA_TOKENS: Final = 1000  # for an image, audio or file part, however long its base64 is

_ARRAY: Final = ord("[")
_ESCAPE_EXCESS_BYTES: Final = 3  # `\ud55c` takes six bytes, the letter three
_TEXT_PARTS: Final = frozenset({"text", "input_text", "refusal"})
_LIMIT_MEMBERS: Final = ("max_tokens", "max_completion_tokens")
_PROMPT_MEMBERS: Final = ("messages", "prompt", "input", "tools", "functions", "response_format")


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct, gc=False):
    type: str = "text"


_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_parts: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_part: Final = msgspec.json.Decoder(_Part).decode
_count: Final = msgspec.json.Decoder(int).decode


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens. `output` is for all choices together."""

    prompt: int
    output: int

    @property
    def cost(self) -> Cost:
        return Cost(self.prompt + self.output)


@dataclass(frozen=True, slots=True)
class Estimator:
    """How tokens are guessed. Three bytes a token is on the safe side of English (four) and right for Korean."""

    bytes_per_token: float = 3.0
    default_output: int = 1024  # for a caller that names no maximum
    media: int = MEDIA_TOKENS

    def estimate(self, call: Call) -> Estimate:
        """What `call` may come to: its prompt, and the most output that it allows, for each choice."""
        text_bytes, media = _measure(call)
        prompt = self.tokens_of(text_bytes) + media * self.media
        if call.operation is Operation.EMBEDDINGS:
            return Estimate(prompt, 0)
        return Estimate(prompt, call.choices * self._output_limit(call))

    def tokens_of(self, text_bytes: int) -> int:
        return -int(-text_bytes // self.bytes_per_token)

    def sent_tokens(self, text_bytes: int, events: int) -> int:
        """What was sent of an answer whose usage never came. Most servers send a token an event, some send many."""
        return max(events, self.tokens_of(text_bytes))

    def _output_limit(self, call: Call) -> int:
        """The larger of both names, for a server may obey either."""
        given = [_read_count(call.members[name]) for name in _LIMIT_MEMBERS if name in call.members]
        return max([count for count in given if count is not None], default=self.default_output)


def _read_count(raw: msgspec.Raw) -> int | None:
    """None for what is no count: the upstream will say what it thinks of it."""
    try:
        count = _count(raw)
    except msgspec.DecodeError:
        return None
    return count if count >= 0 else None


def _measure(call: Call) -> tuple[int, int]:
    """Bytes of text in the prompt and the number of its media parts."""
    text_bytes = media = 0
    for name in _PROMPT_MEMBERS:
        raw = call.members.get(name)
        if raw is None:
            continue
        value = bytes(raw)
        text_bytes += len(value) - _ESCAPE_EXCESS_BYTES * value.count(b"\\u")
        if name == "messages" and b'"type"' in value:
            media_parts, media_bytes = _measure_media(value)
            media += media_parts
            text_bytes -= media_bytes
    return max(text_bytes, 1), media


def _measure_media(messages: bytes) -> tuple[int, int]:
    """How many parts are no text, and their bytes. What cannot be read is taken for text."""
    parts = size_bytes = 0
    try:
        for message in _messages(messages):
            if memoryview(message.content)[0] != _ARRAY:
                continue
            for raw in _parts(message.content):
                if _part(raw).type not in _TEXT_PARTS:
                    parts += 1
                    size_bytes += memoryview(raw).nbytes
    except msgspec.DecodeError:
        return parts, size_bytes
    return parts, size_bytes
