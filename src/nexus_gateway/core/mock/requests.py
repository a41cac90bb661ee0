"""What the mock model reads of a request, refused in the way a real server refuses.

For:      typed requests, whatever the bytes were.
Touches:  nothing. Fields that it does not know, or does not obey (`stop`, `temperature`, `logprobs`, …), are ignored.
"""

import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

MAX_PROMPTS: Final = 2048  # a batch that the API allows
MAX_CHOICES: Final = 2048  # prompts times `n`: what one answer may cost
MAX_DIMENSIONS: Final = 3072  # of the largest embedding model there is behind this API

R = TypeVar("R")
Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=128)]

_PLACE: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<place>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>\w+)`$")


class BadRequest(ValueError):
    """What a server answers with 400. `param` names the field at fault, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Part(msgspec.Struct):
    """Of a message. One without text is an image, a sound or a file."""

    text: str | None = None


class CalledFunction(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class CalledTool(msgspec.Struct):
    function: CalledFunction = msgspec.field(default_factory=CalledFunction)


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[CalledTool] | None = None

    @property
    def parts(self) -> list[Part]:
        return [Part(self.content)] if isinstance(self.content, str) else self.content or []

    @property
    def text(self) -> str:
        """All that is text of it, in one piece."""
        return " ".join(part.text for part in self.parts if part.text is not None)


class Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """One that is not a function (`type: custom`, …) is never called."""

    function: Function | None = None


class NamedFunction(msgspec.Struct):
    name: str


class ToolChoice(msgspec.Struct):
    function: NamedFunction | None = None


class JsonSchema(msgspec.Struct):
    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct):
    type: str = "text"
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class GenerationRequest(msgspec.Struct, kw_only=True):
    """What chat and completions have in common."""

    model: str
    n: Count | None = None
    max_tokens: Positive | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of one choice at most."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(GenerationRequest, kw_only=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    response_format: ResponseFormat | None = None

    @property
    def limit(self) -> int | None:
        """The newer name wins where both are given."""
        return self.max_completion_tokens or self.max_tokens


Texts = str | list[str | int | list[int]]
"""One text, one text as token numbers, or a batch of either."""


class CompletionRequest(GenerationRequest, kw_only=True):
    prompt: Texts


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    model: str
    input: Texts
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


CHAT: Final = msgspec.json.Decoder(ChatRequest)
COMPLETION: Final = msgspec.json.Decoder(CompletionRequest)
EMBEDDING: Final = msgspec.json.Decoder(EmbeddingRequest)


def read(body: bytes, decoder: msgspec.json.Decoder[R]) -> R:
    """Raises BadRequest."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _name_field(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest("The request body is not valid JSON, or is nested too deeply.") from exc


def batch(given: Texts, field: str) -> list[str | list[int]]:
    """Each text of `given` for itself, as words or as token numbers. Raises BadRequest."""
    if isinstance(given, str):
        return [given]
    if not given or (len(given) > MAX_PROMPTS and not isinstance(given[0], int)):
        raise BadRequest(f"'{field}' must hold 1 to {MAX_PROMPTS} elements.", field)
    numbers = [item for item in given if isinstance(item, int)]
    if len(numbers) == len(given):
        return [numbers]
    texts = [item for item in given if not isinstance(item, int)]
    if len(texts) < len(given) or len({type(text) for text in texts}) > 1:
        raise BadRequest(f"'{field}' must hold elements of one type.", field)
    return texts


def _name_field(complaint: str) -> BadRequest:
    """From the decoder's words to the API's, which name the field."""
    parts = _PLACE.match(complaint)
    what, place = (parts["what"], parts["place"]) if parts is not None else (complaint, None)
    if missing := _MISSING.match(what):
        place = f"{place}.{missing['name']}" if place else missing["name"]
        return BadRequest(f"Missing required parameter: '{place}'.", place)
    what = what[:1].lower() + what[1:].replace("`", "")
    if not place:
        return BadRequest(f"The request body is invalid: {what}.")
    return BadRequest(f"Invalid value for '{place}': {what}.", place)
