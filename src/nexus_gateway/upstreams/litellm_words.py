"""What goes into LiteLLM and what comes out of it, in OpenAI's words.

For:      members of a request that it may see, answers and chunks without anything of its own, errors as answers.
Touches:  nothing.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from nexus_gateway.core.errors import UpstreamError, UpstreamInvalidResponse
from nexus_gateway.core.model import Operation

from .litellm_wire import Wire, causes
from .replies import WholeReply, late

JSON: Final = "application/json"

_SAMPLING: Final = frozenset(
    {"frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "stop", "temperature"}
)
_STREAMING: Final = frozenset({"stream", "stream_options"})
MEMBERS: Final[Mapping[Operation, frozenset[str]]] = {
    Operation.CHAT: frozenset(
        {
            *("messages", "audio", "function_call", "functions", "max_completion_tokens", "modalities"),
            *("parallel_tool_calls", "prediction", "prompt_cache_key", "reasoning_effort", "response_format"),
            *("safety_identifier", "seed", "service_tier", "store", "thinking", "tool_choice", "tools"),
            *("top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
        }
    )
    | _SAMPLING
    | _STREAMING,
    Operation.COMPLETIONS: frozenset({"prompt", "best_of", "echo", "suffix", "top_p", "user"}) | _SAMPLING | _STREAMING,
    Operation.EMBEDDINGS: frozenset({"input", "dimensions", "encoding_format", "user"}),
}
"""The members of a body that the library gets by their names. A name that is missing here may be one of its own
settings, such as another provider's address: callers must not reach those."""

_INTERNAL: Final = frozenset({"provider_specific_fields", "cost"})
_NULLS: Final = frozenset({"content", "finish_reason", "logprobs"})  # null is a word of OpenAI's there
_PREFIX: Final = re.compile(r"^(litellm\.\w+: )*(\w*Exception - )?")
_ADVICE: Final = re.compile(r"[.\s]*\b(To drop these|Pass model as|Learn more|For more|Received Model Group)\b.*", re.S)
_CALLERS: Final = (TypeError, ValueError, LookupError, AttributeError)  # of code that met a body it did not expect


def split_members(operation: Operation, body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members that the library knows, and those that only a server with OpenAI's API may know."""
    members: dict[str, Any] = msgspec.json.decode(body)
    members.pop("model", None)
    known = MEMBERS[operation]
    rest = {name: members.pop(name) for name in list(members) if name not in known}
    return members, rest


def unknown_members(upstream: str, names: Iterable[str]) -> WholeReply:
    """A refusal: what a provider would not understand is not left out in silence."""
    first, *_ = names
    return refusal(upstream, 400, f"Upstream '{upstream}' cannot be sent '{first}'.", param=first)


def whole_body(answer: Any) -> bytes:
    """A plain answer."""
    document = _tidy(answer.model_dump())
    for choice in document.get("choices", ()):
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return msgspec.json.encode(document)


def event(chunk: Any) -> bytes:
    """A chunk of a stream."""
    document = _tidy(chunk.model_dump())
    document.pop("usage", None)
    for choice in document["choices"]:
        delta = choice.get("delta", {})
        if delta.get("content", "") is None:
            del delta["content"]
    return b"data: %b\n\n" % msgspec.json.encode(document)


def usage_event(chunk: Any, usage: Any) -> bytes:
    """The usage, in a chunk like that one."""
    document = {**_tidy(chunk.model_dump()), "choices": [], "usage": _tidy(usage.model_dump())}
    return b"data: %b\n\n" % msgspec.json.encode(document)


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _tidy(member)
            for name, member in value.items()
            if name not in _INTERNAL and (member is not None or name in _NULLS)
        }
    return [_tidy(member) for member in value] if isinstance(value, list) else value


def answer_to(exc: BaseException, wire: Wire) -> WholeReply:
    """What the library's exception stands for: an answer, or the UpstreamError that is raised.

    What happened on the wire decides. Only where nothing did, it is the library's own word.
    """
    name = wire.name
    if wire.failure is not None:
        raise wire.failure from exc
    if wire.status is not None and wire.status >= 300:
        return WholeReply(name, wire.status, wire.headers, bytes(wire.kept))
    if wire.answer is not None and wire.is_openai and wire.answer.is_whole:
        return WholeReply(name, 200, wire.headers, bytes(wire.kept))  # whether it is sound is for others to see
    if wire.status is not None:
        raise unreadable(name) from exc
    return _own_word(exc, name)


def unreadable(upstream: str) -> UpstreamError:
    return UpstreamInvalidResponse(f"Upstream '{upstream}' sent what LiteLLM cannot read.", upstream=upstream)


def _own_word(exc: BaseException, upstream: str) -> WholeReply:
    """A refusal before anything was sent. Its text is told when it is about the request."""
    status = getattr(exc, "status_code", None)
    if status == 408:
        raise late(upstream) from exc
    if isinstance(status, int) and 400 <= status < 500:
        text = _ADVICE.sub("", _PREFIX.sub("", str(getattr(exc, "message", ""))))
        return refusal(upstream, 404 if "LLM Provider NOT provided" in text else status, text)
    if status in (None, 500) and isinstance(causes(exc)[-1], _CALLERS):
        return refusal(upstream, 400, f"LiteLLM cannot put this request to the provider of upstream '{upstream}'.")
    known = status if isinstance(status, int) and 500 <= status < 600 else 500
    return refusal(upstream, known, "LiteLLM could not ask the provider.")


def refusal(upstream: str, status: int, message: str, *, param: str | None = None) -> WholeReply:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": None}}
    return WholeReply(upstream, status, {"content-type": JSON}, msgspec.json.encode(body))
