"""Whatever the body is, the mock model answers it or refuses it, and then it names the field."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.mock.model import respond
from nexus_gateway.core.model import Operation

from .asking import refusal

CHAT, COMPLETIONS, EMBEDDINGS = Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS
HELLO = [{"role": "user", "content": "hello"}]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = [
    *("model", "messages", "n", "max_tokens", "max_completion_tokens", "tools", "tool_choice", "response_format"),
    *("stream", "stream_options", "prompt", "input", "dimensions", "encoding_format"),
]
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys(names, values))
likely = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "messages": st.just(HELLO),
        "prompt": st.just("p"),
        "input": st.just("i"),
    },
    optional=dict.fromkeys(names[2:10], values),
)


@given(operation=st.sampled_from(Operation), body=bodies | likely)
def test_any_document_is_answered_or_refused(operation: Operation, body: dict[str, Any]) -> None:
    response = respond(operation, msgspec.json.encode(body))
    written = b"".join(response.pieces)
    assert response.status in (200, 400)
    assert (b'"error":' in written) == (response.status == 400)


@given(operation=st.sampled_from(Operation), body=st.binary(max_size=50))
def test_any_bytes_are_refused(operation: Operation, body: bytes) -> None:
    assert refusal(operation, body)["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"model":"m","messages":' + b'[{"a":' * 100_000])
def test_endless_nesting_is_refused(body: bytes) -> None:
    assert refusal(CHAT, body)["param"] is None


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        (CHAT, {"messages": HELLO}, "model"),
        (CHAT, {"model": "m"}, "messages"),
        (CHAT, {"model": "m", "messages": []}, "messages"),
        (CHAT, {"model": "m", "messages": {}}, "messages"),
        (CHAT, {"model": "m", "messages": [{"content": "x"}]}, "messages[0].role"),
        (CHAT, {"model": "m", "messages": [*HELLO, {"role": "user", "content": 5}]}, "messages[1].content"),
        (CHAT, {"model": 5, "messages": HELLO}, "model"),
        (CHAT, {"model": "m", "messages": HELLO, "n": 0}, "n"),
        (CHAT, {"model": "m", "messages": HELLO, "n": 129}, "n"),
        (CHAT, {"model": "m", "messages": HELLO, "stream": "yes"}, "stream"),
        (CHAT, {"model": "m", "messages": HELLO, "max_tokens": 0}, "max_tokens"),
        (CHAT, {"model": "m", "messages": HELLO, "max_completion_tokens": -1}, "max_completion_tokens"),
        (CHAT, {"model": "m", "messages": HELLO, "tools": [{"function": {}}]}, "tools[0].function.name"),
        (CHAT, {"model": "m", "messages": HELLO, "response_format": "json"}, "response_format"),
        (COMPLETIONS, {"model": "m"}, "prompt"),
        (COMPLETIONS, {"model": "m", "prompt": []}, "prompt"),
        (COMPLETIONS, {"model": "m", "prompt": ["a", 1]}, "prompt"),
        (COMPLETIONS, {"model": "m", "prompt": ["a", [1]]}, "prompt"),
        (COMPLETIONS, {"model": "m", "prompt": ["a"] * 2049}, "prompt"),
        (COMPLETIONS, {"model": "m", "prompt": ["a"] * 2048, "n": 2}, "n"),
        (EMBEDDINGS, {"model": "m"}, "input"),
        (EMBEDDINGS, {"model": "m", "input": {}}, "input"),
        (EMBEDDINGS, {"model": "m", "input": "x", "dimensions": 0}, "dimensions"),
        (EMBEDDINGS, {"model": "m", "input": ["x"] * 1000, "dimensions": 3000}, "dimensions"),
        (EMBEDDINGS, {"model": "m", "input": "x", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_the_field_at_fault_is_named(operation: Operation, body: dict[str, Any], param: str) -> None:
    error = refusal(operation, msgspec.json.encode(body))
    assert error["param"] == param
    assert f"'{param}'" in error["message"]


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"5", b"null"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(CHAT, body)["param"] is None


def test_fields_that_it_does_not_know_are_ignored() -> None:
    body = {"model": "m", "messages": HELLO, "stop": ["x"], "top_k": 5, "chat_template_kwargs": {"a": [1, None]}}
    assert respond(CHAT, msgspec.json.encode(body)).status == 200
