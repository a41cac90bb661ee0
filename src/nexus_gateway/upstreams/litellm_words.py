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
NOT_PUT: Final = "This request cannot be put to the provider."

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

_ANSWER: Final = frozenset(
    {"id", "object", "created", "model", "choices", "data", "usage", "system_fingerprint", "service_tier"}
)
_CHOICE: Final = frozenset({"index", "message", "delta", "text", "finish_reason", "logprobs"})
_SAID: Final = frozenset(
    {
        *("role", "content", "refusal", "tool_calls", "function_call", "audio", "annotations"),
        *("reasoning_content", "thinking_blocks", "images"),  # beyond OpenAI's, and part of what was said
    }
)
_CALL: Final = frozenset({"id", "index", "type", "function", "custom"})
_USAGE: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
"""The members of an answer that go on: what the library adds besides is its own."""

_PREFIX: Final = re.compile(r"^(litellm\.\w+: )*(\w*Exception - )?")
_ADVICE: Final = re.compile(r"[.\s]*\b(To drop these|Pass model as|Learn more|For more|Received Model Group)\b.*", re.S)
_KEYLESS: Final = re.compile(r"missing (\w+ ){0,3}(api.?key|credentials)", re.I)  # in the words of several providers
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
    document = _document(answer)
    for choice in document.get("choices", ()):
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return msgspec.json.encode(document)


def event(chunk: Any) -> bytes:
    """A chunk of a stream."""
    document = _document(chunk)
    document.pop("usage", None)
    return b"data: %b\n\n" % msgspec.json.encode(document)


def usage_event(chunk: Any, usage: Any) -> bytes:
    """The usage, in a chunk like that one."""
    document = {**_document(chunk), "choices": [], "usage": _usage(usage.model_dump())}
    return b"data: %b\n\n" % msgspec.json.encode(document)


def _document(answer: Any) -> dict[str, Any]:
    document = _only(_ANSWER, answer.model_dump())
    if "choices" in document:
        document["choices"] = [_choice(choice) for choice in document["choices"]]
    if "usage" in document:
        document["usage"] = _usage(document["usage"])
    return document


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"finish_reason": None, **_only(_CHOICE, choice)}
    for name in kept.keys() & {"message", "delta"}:
        said = {member: value for member, value in _only(_SAID, kept[name]).items() if value != []}
        if "tool_calls" in said:
            said["tool_calls"] = [_only(_CALL, call) for call in said["tool_calls"]]
        kept[name] = said
    return kept


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    kept = _only(_USAGE, usage)
    details = {name: _only(None, value) for name, value in kept.items() if isinstance(value, Mapping)}
    return {**kept, **details}


def _only(names: frozenset[str] | None, members: Mapping[str, Any]) -> dict[str, Any]:
    """Those that have a value and one of the names, or any name."""
    return {name: value for name, value in members.items() if value is not None and (names is None or name in names)}


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
        if "LLM Provider NOT provided" in text:
            return refusal(upstream, 404, "Nobody knows this model.", param="model")
        return refusal(upstream, status, text if "litellm" not in text.lower() else NOT_PUT)
    root = causes(exc)[-1]
    if _KEYLESS.match(str(root)):
        return refusal(upstream, 401, "There is no key for the provider.")
    if status in (None, 500) and isinstance(root, _CALLERS):
        return refusal(upstream, 400, NOT_PUT)
    known = status if isinstance(status, int) and 500 <= status < 600 else 500
    return refusal(upstream, known, "The provider could not be asked.")


def refusal(upstream: str, status: int, message: str, *, param: str | None = None) -> WholeReply:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": None}}
    return WholeReply(upstream, status, {"content-type": JSON}, msgspec.json.encode(body))
