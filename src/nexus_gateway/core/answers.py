"""Reads what an upstream answered: is it complete, what did it cost, whose fault is it.

For:      one verdict per answer or event, the same for every kind of upstream.
Touches:  nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamModelNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from .model import Operation, Usage
from .retry import parse_retry_after
from .sse import MAX_EVENT_BYTES

MAX_TOKENS: Final = 10**9  # of one answer: a thousand times the largest context
MAX_MESSAGE_CHARS: Final = 2000  # of an upstream's own words, relayed to the caller

_STATUS_OF_TYPE: Final = {  # what an error object stands for when it carries no status
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "invalid_prompt": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_denied": 403,
    "permission_error": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "insufficient_quota": 429,
}


class _UsageFields(msgspec.Struct, gc=False):
    prompt_tokens: int | float | None = None  # a number is a number: an answer is not refused for how it is written
    completion_tokens: int | float | None = None

    def as_usage(self) -> Usage | None:
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        prompt, completion = self.prompt_tokens or 0, self.completion_tokens or 0
        if not (0 <= prompt <= MAX_TOKENS and 0 <= completion <= MAX_TOKENS):
            return None  # nobody's limit and no counter moves by what cannot be: it counts as not told
        return Usage(int(prompt), int(completion))


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    choices: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None
    usage: _UsageFields | None = None
    error: Any = None
    object: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _UsageFields | None = None
    error: Any = None
    object: str | None = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode


def read_answer(operation: Operation, body: bytes, upstream: str) -> Usage | None:
    """The usage of a complete plain answer of status 200. Raises an UpstreamError when it is none."""
    try:
        answer = _decode_answer(body)
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _invalid(upstream, "an answer that is not valid JSON of the expected shape") from exc
    if answer.error or answer.object == "error":
        raise read_error_object(body, upstream)
    found = answer.data if operation is Operation.EMBEDDINGS else answer.choices
    if found is None:
        raise _invalid(upstream, "an answer without what was asked for")
    return answer.usage.as_usage() if answer.usage is not None else None


class StreamJudge:
    """Follows the events of one stream: what may go on to the caller, and whether the answer was whole.

    `choices` is how many the caller asked for. `keep_usage`: the caller wants the usage chunk too.
    """

    __slots__ = (
        "_choices",
        "_finished",
        "_keep_usage",
        "_least_bytes",
        "_seen",
        "_total_bytes",
        "_upstream",
        "_usages",
        "all_finished",
        "events",
        "usage",
    )

    def __init__(self, upstream: str, *, choices: int, keep_usage: bool) -> None:
        self._upstream = upstream
        self._choices = choices
        self._keep_usage = keep_usage
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._total_bytes = 0
        self._least_bytes = MAX_EVENT_BYTES
        self._usages: dict[int, Usage] = {}
        self.events = 0
        self.usage: Usage | None = None
        self.all_finished = False  # every choice asked for has its finish_reason

    @property
    def is_complete(self) -> bool:
        """Whether the stream may end here: every choice that began has its finish_reason."""
        return bool(self._seen) and self._seen == self._finished

    @property
    def text_bytes(self) -> int:
        """About how much text the events held: each is as long as the shortest, and the rest is text."""
        return self._total_bytes - self.events * self._least_bytes

    def admit(self, data: bytes) -> bool:
        """Whether this event goes on to the caller. Raises an UpstreamError for an error event or a broken one."""
        try:
            chunk = _decode_chunk(data)
            if not data.isascii():
                data.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _invalid(self._upstream, "an event that is not valid JSON of the expected shape") from exc
        if chunk.error or chunk.object == "error":
            raise read_error_object(data, self._upstream)
        if chunk.choices:
            size = len(data)
            self.events += 1
            self._total_bytes += size
            if size < self._least_bytes:
                self._least_bytes = size
            self._follow(chunk.choices)
        if chunk.usage is None:
            return True
        usage = chunk.usage.as_usage()
        if usage is not None:
            self.usage = self._of_all(chunk.choices, usage) if chunk.choices and self._choices > 1 else usage
        return bool(chunk.choices) or self._keep_usage

    def _of_all(self, choices: list[_Choice], usage: Usage) -> Usage:
        """What stands beside one of several choices (`continuous_usage_stats`) is that one's own; the last event holds
        the sum, and a stream that is cut before it counts as what all of them had come to."""
        self._usages[choices[0].index] = usage
        return Usage(
            max(each.prompt_tokens for each in self._usages.values()),
            sum(each.completion_tokens for each in self._usages.values()),
        )

    def _follow(self, choices: list[_Choice]) -> None:
        for choice in choices:
            if choice.finish_reason:  # servers whose language has no null write an empty one
                self._finished.add(choice.index)
            elif choice.index in self._seen:
                continue
            self._seen.add(choice.index)
            self.all_finished = len(self._finished) >= self._choices and self.is_complete


def read_failure(
    upstream: str, status: int, headers: Mapping[str, str], body: bytes, *, own_name: bool, now_unix_s: float
) -> UpstreamError:
    """What an answer with a status other than 200 means.

    `own_name`: the caller's own model name was sent, so that a 404 is the caller's.
    """
    if 400 <= status < 600 and status != 408:
        return _classify(upstream, status, _error_fields(body), headers, own_name=own_name, now_unix_s=now_unix_s)
    if status == 408:
        return UpstreamUnavailable(f"Upstream '{upstream}' answered HTTP 408.", upstream=upstream, status=status)
    return UpstreamInvalidResponse(
        f"Upstream '{upstream}' answered HTTP {status}, which is not an answer to this request.",
        upstream=upstream,
        status=status,
    )


def read_error_object(data: bytes, upstream: str) -> UpstreamError:
    """What an error object inside a 200 stands for: the status that it should have had."""
    fields = _error_fields(data)
    return _classify(upstream, _status_of(fields), fields, {}, own_name=True, now_unix_s=0.0)


def _classify(
    upstream: str,
    status: int,
    fields: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    own_name: bool,
    now_unix_s: float,
) -> UpstreamError:
    said = f"Upstream '{upstream}' answered HTTP {status}."
    if status in (401, 403, 407):  # 407: a proxy on the way
        return UpstreamAuthError(f"Upstream '{upstream}' refused the gateway's own credential.", upstream=upstream)
    if status == 429:
        wait_s = parse_retry_after(headers.get("retry-after"), now_unix_s)
        return UpstreamRateLimited(f"Upstream '{upstream}' is rate limited.", upstream=upstream, retry_after_s=wait_s)
    if status >= 500:
        return UpstreamUnavailable(said, upstream=upstream, status=status)
    if status == 404 and not own_name:
        return UpstreamModelNotFound(
            f"Upstream '{upstream}' does not know the model it is configured with.", upstream=upstream, status=status
        )
    code = fields.get("code")
    return UpstreamRejected(
        _text(fields.get("message")) or said,
        upstream=upstream,
        status=status,
        type_=_text(fields.get("type")) or "invalid_request_error",
        code=None if code == status else _text(code),
        param=_text(fields.get("param")),
    )


def _error_fields(body: bytes) -> Mapping[str, Any]:
    """The error object in any of its known shapes: nested, flat, a bare string, a framework's `detail`."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    inner = document.get("error", document)
    if isinstance(inner, dict):
        return {"message": inner.get("detail"), **{key: value for key, value in inner.items() if value is not None}}
    return {"message": inner}


def _status_of(fields: Mapping[str, Any]) -> int:
    for key in ("code", "status", "type"):
        value = fields.get(key)
        if isinstance(value, str) and value.isdecimal():
            value = int(value[:4])
        if isinstance(value, int) and 400 <= value < 600:
            return value
        if isinstance(value, str) and (known := _STATUS_OF_TYPE.get(value.lower())):
            return known
    return 500


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value[:MAX_MESSAGE_CHARS] or None
    return str(value) if isinstance(value, int) else None


def _invalid(upstream: str, what: str) -> UpstreamInvalidResponse:
    return UpstreamInvalidResponse(f"Upstream '{upstream}' sent {what}.", upstream=upstream)
