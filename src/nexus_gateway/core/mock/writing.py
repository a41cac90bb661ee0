"""The mock model's answers as bytes, in the shapes that OpenAI's API gives them.

For:      a plain body, or the events of a stream: the same content both ways.
Touches:  nothing.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

import msgspec

from nexus_gateway.core.model import Operation

from .answers import Answer, Choice

CREATED: Final = 1_767_225_600  # any fixed instant: the same request has the same answer
FINGERPRINT: Final = "fp_mock"

_json: Final = msgspec.json.Encoder().encode

Document = dict[str, Any]


def write_plain(answer: Answer) -> bytes:
    is_chat = answer.operation is Operation.CHAT
    choices = [
        _choice(choice.index, {"message": _message(choice)} if is_chat else {"text": str(choice.said)}, choice)
        for choice in answer.choices
    ]
    kind = "chat.completion" if is_chat else "text_completion"
    return _json({**_common(answer, kind), "choices": choices, "usage": answer.usage})


def write_events(answer: Answer) -> Iterator[bytes]:
    """One token an event, the choices by turns, `[DONE]` last."""
    is_chat = answer.operation is Operation.CHAT
    common = _common(answer, "chat.completion.chunk" if is_chat else "text_completion")
    usage: Document = {"usage": None} if answer.include_usage else {}
    steps = _chat_steps if is_chat else _text_steps
    for turn in zip_longest(*map(steps, answer.choices)):
        for choice in turn:
            if choice is not None:
                yield _event({**common, "choices": [choice], **usage})
    if answer.include_usage:
        yield _event({**common, "choices": [], "usage": answer.usage})
    yield b"data: [DONE]\n\n"


def _event(document: Document) -> bytes:
    return b"data: %b\n\n" % _json(document)


def _common(answer: Answer, kind: str) -> Document:
    return {
        "id": answer.id,
        "object": kind,
        "created": CREATED,
        "model": answer.model,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(index: int, said: Document, finished: Choice | None = None) -> Document:
    return {
        "index": index,
        **said,
        "logprobs": None,
        "finish_reason": None if finished is None else finished.finish_reason,
    }


def _message(choice: Choice) -> Document:
    if choice.function is None:
        return {"role": "assistant", "content": str(choice.said), "refusal": None}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [_tool_call(choice, str(choice.said))]}


def _tool_call(choice: Choice, arguments: str) -> Document:
    return {
        "id": choice.call_id,
        "type": "function",
        "function": {"name": choice.function, "arguments": arguments},
    }


def _chat_steps(choice: Choice) -> Iterable[Document]:
    """The choice in each of its chunks: the role, every piece, the reason of the end."""
    role: Document = {"role": "assistant", "content": "", "refusal": None}
    if choice.function is not None:
        role = {**role, "content": None, "tool_calls": [{"index": 0, **_tool_call(choice, "")}]}
    yield _choice(choice.index, {"delta": role})
    for piece in choice.said:
        delta: Document = {"content": piece}
        if choice.function is not None:
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        yield _choice(choice.index, {"delta": delta})
    yield _choice(choice.index, {"delta": {}}, choice)


def _text_steps(choice: Choice) -> Iterable[Document]:
    for piece in choice.said:
        yield _choice(choice.index, {"text": piece})
    yield _choice(choice.index, {"text": ""}, choice)
