"""What the mock model answers to a chat or a completion, before it is written.

For:      one decision, written plain or as a stream alike.
Touches:  nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile
from typing import Any, Final

import msgspec

from nexus_gateway.core.model import Operation

from .examples import example
from .requests import (
    CHAT,
    COMPLETION,
    MAX_CHOICES,
    BadRequest,
    ChatRequest,
    CompletionRequest,
    Function,
    Message,
    batch,
    read,
)
from .tokens import Passage, count, split

INTRODUCTION: Final = "This is the mock model of Nexus Gateway."

_TOOL_ROLES: Final = ("tool", "function")


@dataclass(frozen=True, slots=True)
class Choice:
    """`said`: the text, or the arguments for `function` where a tool is called."""

    index: int
    said: Passage
    finish_reason: str
    function: str | None = None
    call_id: str = ""

    @property
    def tokens(self) -> int:
        """A function's name is one token, like any name that a model was trained to say."""
        return self.said.length + (self.function is not None)


@dataclass(frozen=True, slots=True)
class Answer:
    operation: Operation
    id: str
    model: str  # as it was asked for
    choices: Sequence[Choice]
    prompt_tokens: int
    is_stream: bool
    include_usage: bool

    @property
    def usage(self) -> dict[str, int]:
        completion_tokens = sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }


def answer(operation: Operation, body: bytes, length: int | None) -> Answer:
    """To a chat or a completion. `length`: tokens of every text; None: as it comes. Raises BadRequest."""
    digest = blake2b(body, digest_size=12).hexdigest()
    if operation is Operation.CHAT:
        return _answer_chat(read(body, CHAT), digest, length)
    return _answer_completion(read(body, COMPLETION), digest, length)


def _answer_chat(request: ChatRequest, digest: str, length: int | None) -> Answer:
    function = _function_to_call(request)
    total = request.n or 1
    choices = []
    for index in range(total):
        if function is not None:
            arguments = _json(example(function.parameters or {}))
            call_id = f"call_{digest[:20]}{index:04d}"
            choices.append(_choice(index, arguments, None, request.limit, function.name, call_id))
            continue
        form, text = request.response_format, _which(index, total) + _reply_to(request.messages)
        if form is not None and form.type == "json_object":
            choices.append(_choice(index, _json({"answer": text}), None, request.limit))
        elif form is not None and form.type == "json_schema":
            schema = form.json_schema.schema if form.json_schema is not None else None
            choices.append(_choice(index, _json(example(schema or {})), None, request.limit))
        else:
            choices.append(_choice(index, text, length, request.limit))
    return Answer(
        Operation.CHAT,
        f"chatcmpl-{digest}",
        request.model,
        choices,
        sum(map(_prompt_tokens, request.messages)),
        bool(request.stream),
        request.include_usage,
    )


def _answer_completion(request: CompletionRequest, digest: str, length: int | None) -> Answer:
    prompts, each = batch(request.prompt, "prompt"), request.n or 1
    if len(prompts) * each > MAX_CHOICES:
        raise BadRequest(f"'n' times the number of prompts must not be over {MAX_CHOICES}.", "n")
    choices: list[Choice] = []
    for prompt in prompts:
        text = prompt if isinstance(prompt, str) else f"{len(prompt)} tokens"
        choices += [
            _choice(
                len(choices) + index, f"{_which(index, each)}{INTRODUCTION} You wrote: {text}", length, request.limit
            )
            for index in range(each)
        ]
    return Answer(
        Operation.COMPLETIONS,
        f"cmpl-{digest}",
        request.model,
        choices,
        sum(count(prompt) if isinstance(prompt, str) else len(prompt) for prompt in prompts),
        bool(request.stream),
        request.include_usage,
    )


def _choice(
    index: int, text: str, length: int | None, limit: int | None, function: str | None = None, call_id: str = ""
) -> Choice:
    """`text` brought to `length` tokens, and then cut where the caller's `limit` is reached."""
    own = split(text)
    wanted = len(own) if length is None else length
    if limit is not None:
        limit -= function is not None
        if wanted > limit:
            return Choice(index, Passage(own, limit), "length", function, call_id)
    return Choice(index, Passage(own, wanted), "stop" if function is None else "tool_calls", function, call_id)


def _which(index: int, total: int) -> str:
    """Tells the choices of one answer apart."""
    return f"Choice {index + 1} of {total}. " if total > 1 else ""


def _reply_to(messages: Sequence[Message]) -> str:
    results = [message.text for message in takewhile(_is_tool_result, reversed(messages))]
    if results:
        return f"{INTRODUCTION} The tool said: {' '.join(reversed(results))}"
    for message in reversed(messages):
        if message.role == "user":
            return f"{INTRODUCTION} You said: {message.text}"
    return f"{INTRODUCTION} You said nothing."


def _is_tool_result(message: Message) -> bool:
    return message.role in _TOOL_ROLES


def _function_to_call(request: ChatRequest) -> Function | None:
    """The one that was named or else the first; none once its result is there, or an agent would never end."""
    functions = [tool.function for tool in request.tools or () if tool.function is not None]
    wanted = request.tool_choice
    if isinstance(wanted, str) or wanted is None or wanted.function is None:
        named = functions[:1] if wanted != "none" else []
    else:
        named = [function for function in functions if function.name == wanted.function.name]
        if not named:
            raise BadRequest("'tool_choice' names a function that is not among 'tools'.", "tool_choice")
    return None if not named or _is_tool_result(request.messages[-1]) else named[0]


def _prompt_tokens(message: Message) -> int:
    """Its text, one for its role, one for each part that is no text, and the tool calls that it repeats."""
    calls = sum(1 + count(call.function.arguments) for call in message.tool_calls or ())
    return 1 + calls + sum(1 if part.text is None else count(part.text) for part in message.parts)


def _json(value: Any) -> str:
    """Raises BadRequest for what can be read but, a few steps deeper in the stack, not written."""
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError as exc:
        raise BadRequest("The schema is nested too deeply.") from exc
