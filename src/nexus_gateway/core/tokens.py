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
_PROMPT: Final = frozenset({"messages", "prompt", "input", "tools", "functions", "response_format"})
_MAY_BE_NUMBERS: Final = frozenset({"prompt", "input"})


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct, gc=False):
    type: str = "text"


_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_parts: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_part: Final = msgspec.json.Decoder(_Part).decode


class Estimate(msgspec.Struct, frozen=True, gc=False):
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
        prompt = 0
        for name, raw in call.members.items():
            if name in _PROMPT:
                prompt += self._prompt_tokens(name, raw)
        if call.operation is Operation.EMBEDDINGS:
            return Estimate(prompt, 0)
        output = call.output_limit if call.output_limit is not None else self.default_output
        return Estimate(prompt, call.choices * output)

    def tokens_of(self, text_bytes: int) -> int:
        return -int(-text_bytes // self.bytes_per_token)

    def sent_tokens(self, text_bytes: int, events: int) -> int:
        """What was sent of an answer whose usage never came. Most servers send a token an event, some send many."""
        return max(events, self.tokens_of(text_bytes))

    def _prompt_tokens(self, name: str, raw: msgspec.Raw) -> int:
        value = bytes(raw)
        if name in _MAY_BE_NUMBERS and b'"' not in value:
            return value.count(b",") + 1  # the tokens themselves
        text_bytes = len(value)
        if b"\\" in value:  # one byte is found ten times faster than two
            text_bytes -= _ESCAPE_EXCESS_BYTES * value.count(b"\\u")
        parts = media_bytes = 0
        if name == "messages" and value.find(b"[", 1) > 0 and b'"type"' in value:
            parts, media_bytes = _measure_media(value)
        return self.tokens_of(max(0, text_bytes - media_bytes)) + parts * self.media


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
