"""Estimates of what a request may cost: near the text, blind to base64, never below what the caller allows."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.body import MAX_COUNT, parse_call
from nexus_gateway.core.model import Operation
from nexus_gateway.core.tokens import Estimate, Estimator

LAYOUT_TOKENS = 20  # of JSON around the text of one message


def estimate(body: dict[str, Any], operation: Operation = Operation.CHAT, **rule: Any) -> Estimate:
    encoded = json.dumps({"model": "m", **body}, ensure_ascii=False).encode()
    return Estimator(**rule).estimate(parse_call(operation, encoded))


def chat(content: Any, **fields: Any) -> Estimate:
    return estimate({"messages": [{"role": "user", "content": content}], **fields})


@given(text=st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cc", "Cs"]), max_size=3000))
def test_a_prompt_is_its_bytes_over_three(text: str) -> None:
    assert 0 <= chat(text).prompt - len(text.encode()) / 3 <= LAYOUT_TOKENS


@given(text=st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=2000))
def test_escaped_text_costs_what_plain_text_costs(text: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    plain, escaped = (
        Estimator().estimate(parse_call(Operation.CHAT, json.dumps(body, ensure_ascii=ascii_only).encode()))
        for ascii_only in (False, True)
    )
    assert plain == escaped


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
@pytest.mark.parametrize("size_bytes", [10, 1_000_000])
def test_media_parts_cost_a_flat_thousand(kind: str, size_bytes: int) -> None:
    part = {"type": kind, kind: {"url": base64.b64encode(bytes(size_bytes)).decode()}}
    prompt = chat([{"type": "text", "text": "what is this?"}, part, part]).prompt
    assert 2000 < prompt < 2000 + 2 * LAYOUT_TOKENS


def test_a_text_that_speaks_of_media_is_text() -> None:
    assert chat('"type": "image_url"' * 10).prompt < 200


def test_tools_are_part_of_the_prompt() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 3000}}
    assert chat("hi", tools=[tool]).prompt - chat("hi").prompt > 1000


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, 1024),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 7, "n": 3}, 27),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": None}, 1024),
        ({"max_tokens": None, "max_completion_tokens": 5}, 5),
        ({"max_tokens": -1}, 1024),
        ({"max_tokens": -(10**40)}, 1024),
        ({"max_tokens": 10**40}, MAX_COUNT),
        ({"n": 4}, 4096),
    ],
)
def test_the_output_is_the_larger_maximum_for_each_choice(fields: dict[str, Any], output: int) -> None:
    estimated = chat("hi", **fields)
    assert estimated.output == output
    assert estimated.cost.tokens == estimated.prompt + output


def test_each_prompt_of_a_batch_has_an_output() -> None:
    batch = estimate({"prompt": ["a", "b", "c"], "max_tokens": 10, "n": 2}, Operation.COMPLETIONS)
    assert batch.output == 60


@pytest.mark.parametrize("numbers", [[1, 22, 333], [[1, 22, 333]], list(range(3))])
def test_tokens_that_come_as_numbers_are_counted(numbers: list[Any]) -> None:
    assert estimate({"prompt": numbers}, Operation.COMPLETIONS).prompt == 3
    assert estimate({"input": numbers}, Operation.EMBEDDINGS).prompt == 3


def test_embeddings_have_no_output() -> None:
    assert estimate({"input": "x" * 298}, Operation.EMBEDDINGS) == Estimate(100, 0)


def test_the_rule_is_configurable() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 1000}, image]}]}
    estimated = estimate(body, bytes_per_token=100.0, default_output=5, media=1)
    assert (estimated.prompt, estimated.output) == (12, 5)


@pytest.mark.parametrize(
    "messages", [[7], [{"content": [7]}], [{"content": {"type": 5}}], [{"type": "x"}], ["type"], []]
)
def test_odd_messages_are_estimated_all_the_same(messages: list[Any]) -> None:
    assert 1 <= estimate({"messages": messages}).prompt < LAYOUT_TOKENS


def test_what_was_sent_is_counted_by_events_or_bytes_whichever_is_more() -> None:
    rule = Estimator()
    assert rule.sent_tokens(0, 0) == 0
    assert rule.sent_tokens(30, 3) == 10
    assert rule.sent_tokens(30, 25) == 25
