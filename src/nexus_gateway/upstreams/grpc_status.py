"""What a worker's gRPC status and messages mean in the gateway's own words.

For:      one table from status codes to HTTP ones, and the bodies that go with them.
Touches:  nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from grpc import StatusCode
from grpc.aio import AioRpcError

from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamDnsError,
    UpstreamError,
    UpstreamInvalidResponse,
)

from .replies import late, too_large, truncated
from .worker_v1.worker_pb2 import ChatResponse, ChatStreamResponse, Error, Usage

STATUS_OF: Final[Mapping[StatusCode, int]] = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNKNOWN: 500,
    StatusCode.INTERNAL: 500,
    StatusCode.DATA_LOSS: 500,
    StatusCode.UNIMPLEMENTED: 501,  # not the caller's 404: whoever configured this upstream meant another server
    StatusCode.ABORTED: 503,
}
"""The codes that are an answer. The others say that there is none: UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED."""

_TOLD: Final = frozenset({"x-request-id", "openai-processing-ms", "retry-after"})
_TOO_LARGE: Final = "message larger than max"  # the library's words, on either side; there is no code for it
_UNRESOLVED: Final = ("DNS resolution failed", "errors resolving")  # likewise, and it has two resolvers


def failure_of(exc: AioRpcError, upstream: str, *, answered: bool) -> UpstreamError | None:
    """Why there is no answer; None when the status is one. `answered`: part of an answer had come before."""
    code, details = exc.code(), exc.details() or ""
    if code is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details and not details.startswith("SERVER"):
        return too_large(upstream)
    if code is StatusCode.DEADLINE_EXCEEDED:
        return late(upstream)
    if answered:
        return truncated(upstream)
    if code in STATUS_OF:
        return None
    if details.startswith(_UNRESOLVED):
        return UpstreamDnsError(f"The name of upstream '{upstream}' does not resolve.", upstream=upstream)
    return UpstreamConnectError(f"Upstream '{upstream}' cannot be reached.", upstream=upstream)


def error_of(exc: AioRpcError) -> Error:
    """The status as the contract's own error object."""
    details = exc.details() or ""
    if exc.code() is StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return Error(status=413, message="The request is too large for this upstream.", code="request_too_large")
    return Error(status=STATUS_OF[exc.code()], message=details)


def error_status(error: Error) -> int:
    """The HTTP status that it stands for. A number that is none of HTTP's, or a success, is a fault of the worker's."""
    return error.status if 300 <= error.status < 600 else 500


def error_body(error: Error) -> bytes:
    """An OpenAI error object. Below 400 there is nothing to say."""
    status = error_status(error)
    if status < 400:
        return b""
    kind = "invalid_request_error" if status < 500 else "server_error"
    fields = {
        "message": error.message,
        "type": error.type or kind,
        "param": error.param or None,
        "code": error.code or None,
        "status": status,
    }
    return msgspec.json.encode({"error": fields})


def headers_of(metadata: Iterable[tuple[str, str | bytes]], content_type: str) -> dict[str, str]:
    """What the gateway looks at, of a worker's metadata."""
    told = {name: value for name, value in metadata if name in _TOLD and isinstance(value, str)}
    return {"content-type": content_type, **told}


def body_of(message: ChatResponse | ChatStreamResponse, upstream: str) -> bytes:
    """The JSON object of a message, in one line, with the usage that was told beside it.

    Raises UpstreamInvalidResponse when it has to be touched and is not JSON; whether it is sound is for others to see.
    """
    body = message.body
    try:
        if message.HasField("usage"):
            body = _with_usage(body, message.usage)
        if b"\n" in body or b"\r" in body:
            body = msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamInvalidResponse(f"Upstream '{upstream}' sent what is not JSON.", upstream=upstream) from exc
    return body


def _with_usage(body: bytes, usage: Usage) -> bytes:
    members: dict[str, Any] = _decode_members(body) if body else {"object": "chat.completion.chunk", "choices": []}
    told = members.get("usage")
    if told is not None and bytes(told) != b"null":
        return body
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    members["usage"] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return msgspec.json.encode(members)


_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
