"""What the built-in mock model says: deterministic, like a real server's answer in every field that clients read.

For:      the first answer a newcomer sees, and the tests' reference of the wire.
Touches:  nothing. The same request gives the same bytes.

A token is a word with the space before it, or one character of a script that is written without spaces: easy to count
by hand. A stream sends one token per event, so its pieces add up to `completion_tokens`.
"""

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from .model import Operation

CREATED: Final = 1_760_000_000  # a fixed instant: answers are reproducible
DIMENSIONS: Final = 64
MAX_DIMENSIONS: Final = 4096
FINGERPRINT: Final = "fp_mock"

_TOKEN: Final = re.compile(r"\s*(?:[가-힣぀-ヿ一-鿿]|[^\s가-힣぀-ヿ一-鿿]+)|\s+$")
_FILLER: Final = "This sentence is here so that the answer has the length that was asked for."


class BadRequest(ValueError):
    """What a real server would answer with 400. `param` names the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice, before it is written plain or as a stream."""

    pieces: tuple[str, ...]  # of the text, or of the tool call's arguments
    finish_reason: str
    function: str | None = None  # the tool called, if one is


@dataclass(frozen=True, slots=True)
class MockAnswer:
    """An answer that is decided but not written."""

    operation: Operation
    id: str
    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    include_usage: bool

    @property
    def usage(self) -> dict[str, int]:
        completion = sum(len(choice.pieces) for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


def tokens_of(text: str) -> tuple[str, ...]:
    """Joined again they give the text."""
    return tuple(_TOKEN.findall(text))


def answer(operation: Operation, request: dict[str, Any], length: int | None) -> MockAnswer:
    """Decide the answer to a chat or completion request. `length`: tokens of each choice; None: as it comes.

    Raises BadRequest.
    """
    digest = hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
    limit = _limit(request)
    count = request.get("n") or 1
    prefix = "chatcmpl" if operation is Operation.CHAT else "cmpl"
    if operation is Operation.CHAT:
        messages = _messages(request)
        prompt = [_text_of(message.get("content")) for message in messages]
        choices = [_chat_choice(request, messages, length, limit)] * count
    else:
        prompt = _prompts(request)
        choices = [_text_choice(f" {text}, and so on.", length, limit) for text in prompt for _ in range(count)]
    return MockAnswer(
        operation,
        f"{prefix}-{digest[:24]}",
        str(request.get("model", "mock")),
        tuple(choices),
        sum(len(tokens_of(text)) for text in prompt),
        bool((request.get("stream_options") or {}).get("include_usage")),
    )


def write_plain(answer: MockAnswer) -> bytes:
    """The body of an answer in one piece."""
    is_chat = answer.operation is Operation.CHAT
    choices = []
    for index, choice in enumerate(answer.choices):
        said: dict[str, Any] = {"message": _message(answer, index)} if is_chat else {"text": "".join(choice.pieces)}
        choices.append({"index": index, **said, "logprobs": None, "finish_reason": choice.finish_reason})
    kind = "chat.completion" if is_chat else "text_completion"
    return _json({**_common(answer, kind), "choices": choices, "usage": answer.usage})


def write_events(answer: MockAnswer) -> Iterator[bytes]:
    """The events of a stream, `[DONE]` last. Choices take turns, as a real server's do."""
    is_chat = answer.operation is Operation.CHAT
    common = _common(answer, "chat.completion.chunk" if is_chat else "text_completion")
    usage = {"usage": None} if answer.include_usage else {}

    def event(index: int, said: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}
        return b"data: %b\n\n" % _json({**common, "choices": [choice], **usage})

    if is_chat:
        for index, choice in enumerate(answer.choices):
            yield event(index, {"delta": _first_delta(answer, index, choice)})
    for turn in range(max((len(choice.pieces) for choice in answer.choices), default=0)):
        for index, choice in enumerate(answer.choices):
            if turn < len(choice.pieces):
                piece = choice.pieces[turn]
                yield event(index, {"delta": _delta(choice, piece)} if is_chat else {"text": piece})
    for index, choice in enumerate(answer.choices):
        yield event(index, {"delta": {}} if is_chat else {"text": ""}, choice.finish_reason)
    if answer.include_usage:
        yield b"data: %b\n\n" % _json({**common, "choices": [], "usage": answer.usage})
    yield b"data: [DONE]\n\n"


def embed(request: dict[str, Any]) -> bytes:
    """The body of an embeddings answer: unit vectors that depend on the text alone. Raises BadRequest."""
    dimensions = request.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise BadRequest(f"'dimensions' must be between 1 and {MAX_DIMENSIONS}.", "dimensions")
    inputs = _prompts(request, "input")
    as_base64 = request.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(inputs):
        vector = _vector(text, dimensions)
        packed = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if as_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": packed})
    count = sum(len(tokens_of(text)) for text in inputs)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return _json({"object": "list", "data": data, "model": request.get("model", "mock"), "usage": usage})


def write_error(status: int, message: str, param: str | None = None) -> bytes:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json({"error": {"message": message, "type": kind, "param": param, "code": None}})


# ---- what is said


def _chat_choice(
    request: dict[str, Any], messages: list[dict[str, Any]], length: int | None, limit: int | None
) -> Choice:
    last = messages[-1]
    function = None if last.get("role") == "tool" else _function_to_call(request)
    if function is not None:
        arguments = json.dumps(_example(function.get("parameters") or {}), ensure_ascii=False)
        return Choice(tokens_of(arguments), "tool_calls", str(function.get("name", "")))
    said = _text_of(last.get("content"))
    form = (request.get("response_format") or {}).get("type")
    if form == "json_schema":
        schema = (request["response_format"].get("json_schema") or {}).get("schema") or {}
        return _text_choice(json.dumps(_example(schema), ensure_ascii=False), None, limit)
    if form == "json_object":
        return _text_choice(json.dumps({"answer": said}, ensure_ascii=False), None, limit)
    if last.get("role") == "tool":
        return _text_choice(f"The tool says: {said}", length, limit)
    return _text_choice(f"This is the mock model of Nexus Gateway. You said: {said}", length, limit)


def _text_choice(text: str, length: int | None, limit: int | None) -> Choice:
    pieces = tokens_of(text)
    if length is not None:
        filler = tokens_of(" " + _FILLER)
        pieces = (pieces + filler * math.ceil(length / len(filler)))[:length]
    if limit is not None and len(pieces) > limit:
        return Choice(pieces[:limit], "length")
    return Choice(pieces, "stop")


def _function_to_call(request: dict[str, Any]) -> dict[str, Any] | None:
    choice = request.get("tool_choice")
    functions: list[dict[str, Any]] = [tool["function"] for tool in request.get("tools") or [] if isinstance(tool.get("function"), dict)]
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        named = (choice.get("function") or {}).get("name")
        return next((function for function in functions if function.get("name") == named), functions[0])
    return functions[0]


def _example(schema: dict[str, Any], depth: int = 0) -> Any:
    """A value that fits the schema, the plainest one."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or list(properties)
        return {name: _example(properties.get(name) or {}, depth + 1) for name in wanted} if depth < 16 else {}
    examples = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}
    return examples.get(kind or "", "example")


# ---- how it is written


def _common(answer: MockAnswer, kind: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": CREATED,
        "model": answer.model,
        "system_fingerprint": FINGERPRINT,
    }


def _message(answer: MockAnswer, index: int) -> dict[str, Any]:
    choice = answer.choices[index]
    text = "".join(choice.pieces)
    if choice.function is None:
        return {"role": "assistant", "content": text, "refusal": None}
    call = {"id": _call_id(answer, index), "type": "function", "function": {"name": choice.function, "arguments": text}}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def _first_delta(answer: MockAnswer, index: int, choice: Choice) -> dict[str, Any]:
    if choice.function is None:
        return {"role": "assistant", "content": ""}
    function = {"name": choice.function, "arguments": ""}
    call = {"index": 0, "id": _call_id(answer, index), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _delta(choice: Choice, piece: str) -> dict[str, Any]:
    if choice.function is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _call_id(answer: MockAnswer, index: int) -> str:
    return f"call_{answer.id[-16:]}{index:02d}"


def _vector(text: str, dimensions: int) -> list[float]:
    numbers: list[float] = []
    for block in range(math.ceil(dimensions / 16)):
        digest = hashlib.sha256(f"{block}:{text}".encode("utf-8", "surrogatepass")).digest()
        numbers += [value / 32768 for value in struct.unpack("<16h", digest)]
    length = math.sqrt(sum(value * value for value in numbers[:dimensions])) or 1.0
    return [round(value / length, 8) for value in numbers[:dimensions]]


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


# ---- what is asked


def _limit(request: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = request.get(name)
        if limit is not None:
            if not isinstance(limit, int) or limit < 1:
                raise BadRequest(f"'{name}' must be a positive integer.", name)
            return limit
    return None


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("'messages' must be an array of at least one message.", "messages")
    return messages


def _prompts(request: dict[str, Any], field: str = "prompt") -> list[str]:
    given = request.get(field)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise BadRequest(f"'{field}' must be a string or an array of at least one.", field)
    if all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in given]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return " ".join(part for part in parts if isinstance(part, str))
