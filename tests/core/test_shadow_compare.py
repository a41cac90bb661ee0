"""Two answers are compared by what they say, however they came."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.model import Usage
from nexus_gateway.core.shadow_compare import Observed, Sketch, compare

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CALLS = st.lists(st.tuples(st.sampled_from(["search", "run"]), TEXTS), max_size=3)
CHOICES = st.lists(st.tuples(TEXTS, CALLS, st.sampled_from(["stop", "length", "tool_calls"])), min_size=1, max_size=3)
Choices = list[tuple[str, list[tuple[str, str]], str]]


def sketch_of(documents: Iterable[object]) -> Sketch:
    sketch = Sketch()
    for document in documents:
        sketch.add(document if isinstance(document, bytes) else json.dumps(document).encode())
    return sketch


def plain(choices: Choices) -> dict[str, Any]:
    return {
        "choices": [
            {
                "index": index,
                "finish_reason": reason,
                "message": {
                    "content": text,
                    "tool_calls": [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls],
                },
            }
            for index, (text, calls, reason) in enumerate(choices)
        ]
    }


def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


def streamed(choices: Choices, cut: int) -> list[dict[str, Any]]:
    """As events with `cut` characters each."""
    events = []
    for index, (text, calls, reason) in enumerate(choices):
        events.append(chunk(index, {"role": "assistant", "content": ""}))
        events += [chunk(index, {"content": text[at : at + cut]}) for at in range(0, len(text), cut)]
        for number, (name, arguments) in enumerate(calls):
            events.append(
                chunk(index, {"tool_calls": [{"index": number, "function": {"name": name, "arguments": ""}}]})
            )
            events += [
                chunk(index, {"tool_calls": [{"index": number, "function": {"arguments": arguments[at : at + cut]}}]})
                for at in range(0, len(arguments), cut)
            ]
        events.append(chunk(index, {}, reason))
    return [*events, {"choices": [], "usage": {"completion_tokens": 3}}]


def observed(sketch: Sketch, status: int | None = 200, outcome: str = "ok", **more: Any) -> Observed:
    return Observed(status, outcome, sketch, **more)


@given(choices=CHOICES, cut=st.integers(1, 20), other_cut=st.integers(1, 20))
def test_an_answer_is_the_same_however_it_is_cut(choices: Choices, cut: int, other_cut: int) -> None:
    ways = [sketch_of([plain(choices)]), sketch_of(streamed(choices, cut)), sketch_of(streamed(choices, other_cut))]
    for one in ways:
        for other in ways:
            comparison = compare(observed(one), observed(other))
            assert comparison.is_identical
            assert comparison.chars == 0


@given(choices=CHOICES, others=CHOICES)
def test_exactly_what_differs_is_told(choices: Choices, others: Choices) -> None:
    comparison = compare(observed(sketch_of([plain(choices)])), observed(sketch_of(streamed(others, 3))))
    same_number = len(choices) == len(others)
    expected = {
        "text": not same_number or [text for text, _, _ in choices] != [text for text, _, _ in others],
        "finish_reason": [reason for _, _, reason in choices] != [reason for _, _, reason in others],
        "tool_calls": _numbered(choices) != _numbered(others),
    }
    assert set(comparison.differs) == {aspect for aspect, differs in expected.items() if differs}
    assert comparison.chars == sum(len(text) for text, _, _ in others) - sum(len(text) for text, _, _ in choices)


def _numbered(choices: Choices) -> list[tuple[int, tuple[str, str]]]:
    return [(index, call) for index, (_, calls, _) in enumerate(choices) for call in calls]


@pytest.mark.parametrize(
    ("status", "outcome"), [(500, "unavailable"), (None, "connect_error"), (200, "truncated"), (404, "model_not_found")]
)
def test_a_shadow_that_failed_differs_in_status(status: int | None, outcome: str) -> None:
    whole = sketch_of([plain([("hello", [], "stop")])])
    assert "status" in compare(observed(whole), observed(whole, status, outcome)).differs
    assert "text" in compare(observed(whole), observed(Sketch(), status, outcome)).differs


def test_figures_are_those_of_the_shadow_less_the_primarys() -> None:
    primary = observed(sketch_of([]), usage=Usage(5, 10), first_token_s=0.5, total_s=2.0)
    shadow = observed(sketch_of([]), usage=Usage(5, 14), first_token_s=0.25, total_s=3.0)
    comparison = compare(primary, shadow)
    assert (comparison.completion_tokens, comparison.first_token_s, comparison.total_s) == (4, -0.25, 1.0)
    shadow.usage = shadow.first_token_s = None
    comparison = compare(primary, shadow)
    assert (comparison.completion_tokens, comparison.first_token_s) == (None, None)


def test_completions_and_embeddings_are_compared_too() -> None:
    def text(said: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "text": said, "finish_reason": "stop"}]}

    def vector(*numbers: float) -> dict[str, Any]:
        return {"data": [{"index": 0, "embedding": numbers}]}

    assert compare(observed(sketch_of([text("ab")])), observed(sketch_of([text("a"), text("b")]))).is_identical
    assert compare(observed(sketch_of([text("a")])), observed(sketch_of([text("b")]))).differs == ("text",)
    assert compare(observed(sketch_of([vector(1, 2)])), observed(sketch_of([vector(1, 2)]))).is_identical
    assert compare(observed(sketch_of([vector(1, 2)])), observed(sketch_of([vector(2, 1)]))).differs == ("text",)


def test_content_in_parts_is_compared_by_its_json() -> None:
    def parts(*said: str) -> dict[str, Any]:
        content = [{"type": "text", "text": each} for each in said]
        return {"choices": [{"index": 0, "message": {"content": content}, "finish_reason": "stop"}]}

    assert compare(observed(sketch_of([parts("a", "b")])), observed(sketch_of([parts("a", "b")]))).is_identical
    assert compare(observed(sketch_of([parts("a")])), observed(sketch_of([parts("b")]))).differs == ("text",)


@given(st.binary(max_size=200))
def test_what_cannot_be_read_adds_nothing_and_raises_nothing(junk: bytes) -> None:
    sketch_of([junk, b"[" * 5000, b'{"choices":[{"index":"x"}]}'])


def test_a_sketch_does_not_grow_with_wild_indexes() -> None:
    wild = [chunk(index, {"content": "x"}) for index in range(-5000, 5000)]
    assert len(sketch_of(wild).text()) <= 1100
