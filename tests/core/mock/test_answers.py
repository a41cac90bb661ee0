"""The mock model answers as the API does: its plain answers and its streams say the same, and cost the same."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice

from nexus_gateway.core.mock.model import respond
from nexus_gateway.core.mock.tokens import count, split
from nexus_gateway.core.model import Operation

from .asking import TOOL, chats, completions, lengths, plain, refusal, stream

CHAT, COMPLETIONS = Operation.CHAT, Operation.COMPLETIONS


def put_together(chunks: list[ChatCompletionChunk]) -> dict[int, dict[str, Any]]:
    """What a client makes of the chunks, choice by choice."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk.choices:
            if part.index not in choices:
                assert part.delta.role == "assistant", "a choice begins with its role"
                choices[part.index] = {"content": "", "calls": {}, "finish_reason": None}
            choice = choices[part.index]
            assert choice["finish_reason"] is None, "nothing follows the reason of the end"
            choice["content"] += part.delta.content or ""
            choice["finish_reason"] = part.finish_reason
            for call in part.delta.tool_calls or ():
                assert call.function is not None
                known = choice["calls"].setdefault(call.index, {"id": call.id, "name": call.function.name, "json": ""})
                known["json"] += call.function.arguments or ""
    return choices


@given(body=chats, length=lengths)
def test_a_stream_put_together_is_the_plain_answer(body: dict[str, Any], length: int | None) -> None:
    answer = ChatCompletion.model_validate_json(plain(CHAT, body, length))
    chunks = [ChatCompletionChunk.model_validate_json(event) for event in stream(CHAT, body, length)]
    choices = put_together(chunks)
    assert sorted(choices) == list(range(body.get("n") or 1)) == [choice.index for choice in answer.choices]
    for choice in answer.choices:
        streamed = choices[choice.index]
        assert streamed["finish_reason"] == choice.finish_reason
        assert streamed["content"] == (choice.message.content or "")
        calls = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
        assert [(call["name"], call["json"]) for call in streamed["calls"].values()] == [
            (call.name, call.arguments) for call in calls
        ]
    assert {chunk.model for chunk in chunks} == {answer.model} == {body["model"]}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


@given(body=chats, length=lengths)
def test_usage_counts_what_was_said_and_comes_when_asked_for(body: dict[str, Any], length: int | None) -> None:
    usage = ChatCompletion.model_validate_json(plain(CHAT, body, length)).usage
    chunks = [ChatCompletionChunk.model_validate_json(event) for event in stream(CHAT, body, length)]
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    pieces = [piece for chunk in chunks for piece in pieces_of(chunk)]
    assert usage.completion_tokens == len(pieces)
    assert usage.prompt_tokens >= len(body["messages"])
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    assert [chunk.usage for chunk in chunks if not chunk.choices] == [usage] * asked
    assert all(chunk.usage is None for chunk in chunks if chunk.choices)


def pieces_of(chunk: ChatCompletionChunk) -> list[str]:
    """Each token of a chunk: a piece of text or of arguments, or the name of a function."""
    deltas = [choice.delta for choice in chunk.choices]
    functions = [call.function for delta in deltas for call in delta.tool_calls or () if call.function is not None]
    said = [delta.content for delta in deltas]
    return [text for text in (*said, *(part for one in functions for part in (one.name, one.arguments))) if text]


@given(body=chats, length=lengths)
def test_a_limit_cuts_what_would_be_longer_and_says_so(body: dict[str, Any], length: int | None) -> None:
    free = {name: value for name, value in body.items() if name != "max_tokens"}
    limit = body.get("max_tokens")
    answer = ChatCompletion.model_validate_json(plain(CHAT, body, length))
    longest = ChatCompletion.model_validate_json(plain(CHAT, free, length))
    for cut, uncut in zip(answer.choices, longest.choices, strict=True):
        tokens = split(text_of(uncut))
        room = len(tokens) if limit is None else limit - bool(uncut.message.tool_calls)
        assert text_of(cut) == "".join(tokens[:room])
        assert cut.finish_reason == ("length" if room < len(tokens) else uncut.finish_reason)


def text_of(choice: Choice) -> str:
    calls = choice.message.tool_calls or ()
    said = [call.function.arguments for call in calls if call.type == "function"]
    return "".join(said) if calls else str(choice.message.content)


@given(body=chats, length=lengths)
def test_the_same_request_has_the_same_bytes_and_another_has_another_id(
    body: dict[str, Any], length: int | None
) -> None:
    assert plain(CHAT, body, length) == plain(CHAT, body, length)
    assert stream(CHAT, body, length) == stream(CHAT, body, length)
    other = {**body, "user": "another"}
    assert msgspec.json.decode(plain(CHAT, body))["id"] != msgspec.json.decode(plain(CHAT, other))["id"]


@given(body=completions, length=lengths)
def test_a_streamed_completion_put_together_is_the_plain_one(body: dict[str, Any], length: int | None) -> None:
    answer = Completion.model_validate_json(plain(COMPLETIONS, body, length))
    texts, reasons = [""] * len(answer.choices), [None] * len(answer.choices)
    for event in stream(COMPLETIONS, body, length):
        for part in msgspec.json.decode(event)["choices"]:
            assert reasons[part["index"]] is None, "nothing follows the reason of the end"
            texts[part["index"]] += part["text"]
            reasons[part["index"]] = part["finish_reason"]
    assert texts == [choice.text for choice in answer.choices]
    assert reasons == [choice.finish_reason for choice in answer.choices]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(count(text) for text in texts)


@pytest.mark.parametrize(
    "body", [{"messages": [{"role": "user", "content": "x"}], "n": 3}, {"prompt": ["x", "y", "z"]}]
)
def test_choices_take_turns(body: dict[str, Any]) -> None:
    operation = CHAT if "messages" in body else COMPLETIONS
    events = [msgspec.json.decode(event) for event in stream(operation, {"model": "m", **body})]
    assert [event["choices"][0]["index"] for event in events[:6]] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hello", "hello"),
        ([{"type": "text", "text": "look:"}, {"type": "image_url", "image_url": {"url": "x"}}], "look:"),
        ([{"type": "text", "text": "안녕"}, {"type": "text", "text": "하세요"}], "안녕 하세요"),
    ],
)
def test_it_says_what_it_is_and_repeats_the_last_user(content: Any, said: str) -> None:
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": content}, {"role": "system"}]
    answer = msgspec.json.decode(plain(CHAT, {"model": "m", "messages": messages}))
    expected = f"This is the mock model of Nexus Gateway. You said: {said}"
    assert answer["choices"][0]["message"]["content"] == expected


def test_a_tool_is_called_until_its_result_is_there() -> None:
    asked = [{"role": "user", "content": "where?"}]
    call = msgspec.json.decode(plain(CHAT, {"model": "m", "messages": asked, "tools": [TOOL]}))["choices"][0]
    assert call["finish_reason"] == "tool_calls"
    assert msgspec.json.decode(call["message"]["tool_calls"][0]["function"]["arguments"]) == {"what": "example"}
    result = {"role": "tool", "tool_call_id": call["message"]["tool_calls"][0]["id"], "content": "here"}
    told = {"model": "m", "messages": [*asked, call["message"], result], "tools": [TOOL], "tool_choice": "required"}
    answer = msgspec.json.decode(plain(CHAT, told))["choices"][0]
    assert answer["finish_reason"] == "stop"
    assert answer["message"]["content"].endswith("The tool said: here")


def test_the_named_tool_is_called() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [TOOL, other]}
    named = {**body, "tool_choice": {"type": "function", "function": {"name": "other"}}}
    for request, name in ((body, "find"), (named, "other")):
        (call,) = msgspec.json.decode(plain(CHAT, request))["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == name


def test_every_choice_has_a_call_of_its_own() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "n": 3}
    choices = msgspec.json.decode(plain(CHAT, body))["choices"]
    assert len({choice["message"]["tool_calls"][0]["id"] for choice in choices}) == 3


def test_a_long_stream_is_made_while_it_is_read() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    response = respond(CHAT, msgspec.json.encode(body), 10**9)
    for _, event in zip(range(100), response.pieces, strict=False):
        assert event.startswith(b"data: {")


def test_the_wish_for_a_tool_that_is_not_there_is_refused() -> None:
    wish = {"type": "function", "function": {"name": "none such"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "tool_choice": wish}
    assert refusal(CHAT, msgspec.json.encode(body))["param"] == "tool_choice"


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [({"max_tokens": 3}, 3), ({"max_completion_tokens": 4}, 4), ({"max_tokens": 3, "max_completion_tokens": 4}, 4)],
)
def test_both_names_of_the_limit_count_and_the_newer_one_wins(limits: dict[str, int], tokens: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **limits}
    assert msgspec.json.decode(plain(CHAT, body))["usage"]["completion_tokens"] == tokens


def test_a_prompt_can_be_counted_by_hand() -> None:
    messages = [
        {"role": "system", "content": "be brief"},  # 1 for the role, 2 for the words
        {"role": "user", "content": [{"type": "text", "text": "안녕!"}, {"type": "image_url"}]},  # 1 + 3 + 1
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},  # 1+1+2
        {"role": "tool"},  # 1
    ]
    assert msgspec.json.decode(plain(CHAT, {"model": "m", "messages": messages}))["usage"]["prompt_tokens"] == 13
    prompts: dict[str, Any] = {"model": "m", "prompt": [[1, 2], [3]]}
    assert msgspec.json.decode(plain(COMPLETIONS, prompts))["usage"]["prompt_tokens"] == 3
