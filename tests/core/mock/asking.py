"""Requests of every sort for the mock model, and its streams put together again."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from nexus_gateway.core.mock.model import respond
from nexus_gateway.core.model import Operation

TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"가격": {"type": "number"}, "tags": {"type": "array", "minItems": 2, "items": {"type": "string"}}},
    "required": ["가격", "tags"],
}

texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["hello, world", "안녕하세요 여러분", " a  b\n"]
)
parts = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, texts)
    | st.just({"type": "image_url", "image_url": {"url": "data:,x"}}),
    max_size=3,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])}, optional={"content": texts | parts}
    ),
    min_size=1,
    max_size=4,
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | st.integers(1, 4),
        "max_tokens": st.integers(1, 12),
        "stream_options": st.sampled_from([None, {"include_usage": True}, {"include_usage": False}]),
    },
)
forms = st.sampled_from(
    [
        {},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "find"}}},
    ]
)
lengths = st.none() | st.integers(0, 40)
chats = st.builds(
    lambda said, limit, form: {"model": "any/name", "messages": said, **limit, **form}, messages, limits, forms
)
prompts = (
    texts
    | st.lists(texts, min_size=1, max_size=3)
    | st.lists(st.integers(0, 99), min_size=1)
    | st.lists(st.lists(st.integers(0, 99), min_size=1), min_size=1, max_size=3)
)
completions = st.builds(lambda prompt, limit: {"model": "m", "prompt": prompt, **limit}, prompts, limits)


def plain(operation: Operation, body: dict[str, Any], length: int | None = None) -> bytes:
    response = respond(operation, msgspec.json.encode(body), length)
    pieces = list(response.pieces)
    assert (response.status, response.is_stream, len(pieces)) == (200, False, 1)
    return pieces[0]


def stream(operation: Operation, body: dict[str, Any], length: int | None = None) -> list[bytes]:
    """The data of each event but the last, which says that it is over."""
    response = respond(operation, msgspec.json.encode({**body, "stream": True}), length)
    events = list(response.pieces)
    assert (response.status, response.is_stream) == (200, True)
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 for event in events)
    assert events.pop() == b"data: [DONE]\n\n"
    return [event[6:-2] for event in events]


def refusal(operation: Operation, body: bytes) -> dict[str, Any]:
    """The error object of a request that is refused."""
    response = respond(operation, body)
    assert (response.status, response.is_stream) == (400, False)
    error: dict[str, Any] = msgspec.json.decode(b"".join(response.pieces))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error
