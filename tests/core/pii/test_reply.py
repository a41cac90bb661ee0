"""Answers get the caller's values back, whole or cut into events in any way."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.pii import Restorer
from nexus_gateway.core.pii.reply import ReplyRestorer

TABLE = {"[EMAIL_AAAAAAAAAAAAAAAA]": 'kim"\\@example.com', "[PHONE_BBBBBBBBBBBBBBBB]": "010-1234-5678"}
words = (
    st.lists(
        st.sampled_from([*TABLE, "[EMAIL_CCCCCCCCCCCCCCCC]", "[EMAIL_", "안녕 ", "x", "[", "]", "\n", '"', "\\"]),
        max_size=8,
    )
    .map("".join)
    .filter(lambda text: r"\\" not in text)
)  # which begins a link
cuts = st.lists(st.integers(0, 60), max_size=8)


def restored(text: str) -> str:
    for name, value in TABLE.items():
        text = text.replace(name, value)
    return text


def restorer() -> ReplyRestorer:
    return ReplyRestorer(Restorer(TABLE), says_json=False)


def read(reply: ReplyRestorer, event: dict[str, Any]) -> list[Any]:
    return [json.loads(each) for each in reply.events(json.dumps(event).encode())]


def pieces(text: str, at: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in at), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@given(content=words, reasoning=words)
def test_a_whole_answer(content: str, reasoning: str) -> None:
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning, "x": [1e400, 10**30]}
    body = json.dumps({"id": "[EMAIL_AAAAAAAAAAAAAAAA]", "choices": [{"index": 0, "message": message}]}).encode()
    body = body.replace(b"Infinity", b"1e400")
    after = restorer().whole(body)
    said = json.loads(after)["choices"][0]["message"]
    assert (said["content"], said["reasoning_content"]) == (restored(content), restored(reasoning))
    assert b"1e400" in after, "numbers keep their text"
    assert json.loads(after)["id"] == "[EMAIL_AAAAAAAAAAAAAAAA]", "only what the model said"


@given(texts=st.lists(st.tuples(words, cuts), min_size=1, max_size=3), unfinished=st.sampled_from([{}, None, ""]))
def test_a_stream_says_what_the_whole_would_have_said(texts: list[tuple[str, list[int]]], unfinished: Any) -> None:
    """Several choices take turns; what was held back comes at the latest before the finish_reason."""
    ordered = [
        choice
        for turn in range(20)
        for index, _ in enumerate(texts)
        for choice in [pieces_of(texts[index], index, turn)]
        if choice is not None
    ]
    if unfinished != {}:
        ordered = [{**choice, "finish_reason": unfinished} for choice in ordered]
    ordered += [{"index": index, "delta": {}, "finish_reason": "stop"} for index, _ in enumerate(texts)]
    said = dict.fromkeys(range(len(texts)), "")
    reply = restorer()
    for choice in ordered:
        for event in read(reply, {"choices": [choice], "usage": None}):
            (told,) = event["choices"]
            said[choice["index"]] += told["delta"].get("content", "")
            assert not (told.get("finish_reason") and told["delta"].get("content")), "the end comes alone"
    assert said == {index: restored(text) for index, (text, _) in enumerate(texts)}


def pieces_of(text: tuple[str, list[int]], index: int, turn: int) -> dict[str, Any] | None:
    cut = pieces(*text)
    return {"index": index, "delta": {"content": cut[turn]}} if turn < len(cut) else None


@given(value=st.sampled_from(sorted(TABLE)), at=cuts)
def test_arguments_stay_valid_json(value: str, at: list[int]) -> None:
    arguments = json.dumps({"to": value, "list": [value, "x"]})
    call = {"index": 0, "id": "c", "function": {"name": "send", "arguments": arguments}}
    body = json.dumps({"choices": [{"index": 0, "message": {"content": None, "tool_calls": [call]}}]}).encode()
    whole = json.loads(restorer().whole(body))["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(whole) == {"to": TABLE[value], "list": [TABLE[value], "x"]}
    reply, said = restorer(), ""
    for piece in pieces(arguments, at):
        delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        (event,) = read(reply, {"choices": [{"index": 0, "delta": delta}]})
        said += event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
    last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    for event in read(reply, {"choices": [last]}):
        said += "".join(call["function"]["arguments"] for call in event["choices"][0]["delta"].get("tool_calls", []))
    assert said == whole


def test_what_is_no_choice_goes_on_as_it_is() -> None:
    for body in (b'{"choices":[],"usage":{"x":1.0}}', b'{"object":"list"}', b'{"choices":null}'):
        assert list(map(json.loads, restorer().events(body))) == [json.loads(body)]


@pytest.mark.parametrize("said", [{"delta": {"content": "ab[EMAIL_"}}, {"text": "ab[EMAIL_"}])
def test_text_that_comes_with_the_end_is_said_before_it(said: dict[str, Any]) -> None:
    end = {"index": 0, "finish_reason": "stop", "logprobs": {"x": 1}, **said}
    first, last = read(restorer(), {"id": "x", "choices": [end], "usage": {"y": 1}})
    (text,), (after,) = first["choices"], last["choices"]
    assert text == {"index": 0, "finish_reason": None, "logprobs": {"x": 1}, **said}
    empty: dict[str, Any] = {"delta": {}} if "delta" in said else {"text": ""}
    assert after == {"index": 0, "finish_reason": "stop", "logprobs": None, **empty}
    assert ("usage" in first, last["usage"]) == (False, {"y": 1})
