"""Turns a kind of error into what an OpenAI client understands. The only file that knows status codes.

For:      JSON error bodies and SSE error events, from one table.
Touches:  nothing.
Source:   the API's error object; `x-should-retry` as the official SDKs read it (`_base_client.py`).
"""

import math
from typing import Final

import msgspec

from nexus_gateway.core import errors
from nexus_gateway.core.errors import GatewayError

Rendered = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers but for the length, body

MAX_SDK_WAIT_S: Final = 60  # a client's library waits no longer than this; told more, it would come back too early

RENDERED: Final[dict[type[GatewayError], tuple[int, str, str]]] = {  # status, type, code
    errors.MalformedRequest: (400, "invalid_request_error", "invalid_request"),
    errors.Unauthenticated: (401, "invalid_request_error", "invalid_api_key"),
    errors.InvalidToken: (401, "invalid_request_error", "invalid_token"),
    errors.ModelNotAllowed: (403, "permission_denied", "model_not_allowed"),
    errors.ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.UnknownUpstream: (404, "invalid_request_error", "upstream_not_found"),
    errors.UnsupportedEndpoint: (404, "invalid_request_error", "unsupported_endpoint"),
    errors.MethodNotAllowed: (405, "invalid_request_error", "method_not_allowed"),
    errors.RequestTooSlow: (408, "invalid_request_error", "request_timeout"),
    errors.BodyTooLarge: (413, "invalid_request_error", "request_too_large"),
    errors.TargetTooLong: (414, "invalid_request_error", "uri_too_long"),
    errors.UnsupportedMediaType: (415, "invalid_request_error", "unsupported_media_type"),
    errors.HeadTooLarge: (431, "invalid_request_error", "headers_too_large"),
    errors.RateLimited: (429, "requests", "rate_limit_exceeded"),
    errors.MaskingFailed: (500, "server_error", "masking_failed"),
    errors.InternalError: (500, "server_error", "internal_error"),
    errors.Draining: (503, "server_error", "shutting_down"),
    errors.LimitsUnavailable: (503, "server_error", "limits_unavailable"),
    errors.AuditUnavailable: (503, "server_error", "audit_unavailable"),
    errors.CircuitOpen: (503, "server_error", "circuit_open"),
    errors.UpstreamConnectError: (502, "server_error", "upstream_connect_error"),
    errors.UpstreamDnsError: (502, "server_error", "upstream_dns_error"),
    errors.UpstreamTimeout: (504, "server_error", "upstream_timeout"),
    errors.StreamOvertime: (504, "server_error", "stream_too_long"),
    errors.UpstreamInvalidResponse: (502, "server_error", "upstream_invalid_response"),
    errors.UpstreamTruncated: (502, "server_error", "upstream_truncated"),
    errors.UpstreamUnavailable: (502, "server_error", "upstream_error"),
    errors.UpstreamAuthError: (502, "server_error", "upstream_auth_error"),
    errors.UpstreamModelNotFound: (502, "server_error", "upstream_model_not_found"),
    errors.UpstreamBusy: (503, "server_error", "overloaded"),
    errors.UpstreamStarting: (503, "server_error", "upstream_starting"),
    errors.UpstreamRateLimited: (429, "requests", "rate_limit_exceeded"),
    errors.UpstreamRejected: (400, "invalid_request_error", "upstream_rejected"),  # status and words are its own
}

_JSON: Final = (b"content-type", b"application/json")
_CHALLENGE: Final = (b"www-authenticate", b"Bearer")
_DO_NOT_RETRY: Final = (b"x-should-retry", b"false")
_BUSY_WAIT_S: Final = 1.0
_TELLING_THE_WAIT: Final = (
    errors.RateLimited,
    errors.UpstreamRateLimited,
    errors.UpstreamStarting,
    errors.CircuitOpen,
    errors.LimitsUnavailable,
)


def code_of(error: GatewayError) -> str:
    """The `code` that the caller is told; a closed set but for what an upstream itself called its rejection."""
    return RENDERED[type(error)][2]


def render(error: GatewayError) -> Rendered:
    """The whole answer. What the attempts used up is marked so that a client's own retries do not multiply them."""
    status, type_, code = RENDERED[type(error)]
    headers = [_JSON]
    if isinstance(error, errors.UpstreamRejected):
        status = error.status
    if status == 401:
        headers.append(_CHALLENGE)
    elif status in (502, 504) or isinstance(error, errors.MaskingFailed):
        headers.append(_DO_NOT_RETRY)
    elif isinstance(error, errors.MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode("ascii")))
    if (wait_s := _wait_s(error)) is not None:
        headers += _wait_headers(wait_s)
    body = _body(error, type_, code)
    return status, headers, body


def render_event(error: GatewayError) -> bytes:
    """The event that ends a stream which can no longer be whole."""
    _, type_, code = RENDERED[type(error)]
    return b"data: %b\n\n" % _body(error, type_, code)


def _body(error: GatewayError, type_: str, code: str | None) -> bytes:
    if isinstance(error, errors.UpstreamRejected):
        type_, code = error.type_, error.code
    elif isinstance(error, errors.RateLimited):
        type_ = "tokens" if error.resource == "tokens" else "requests"
    return msgspec.json.encode({"error": {"message": error.message, "type": type_, "param": error.param, "code": code}})


def _wait_s(error: GatewayError) -> float | None:
    if isinstance(error, _TELLING_THE_WAIT):
        return error.retry_after_s
    return _BUSY_WAIT_S if isinstance(error, errors.UpstreamBusy | errors.Draining | errors.AuditUnavailable) else None


def _wait_headers(wait_s: float) -> list[tuple[bytes, bytes]]:
    headers = []
    if math.isfinite(wait_s):
        headers = [(b"retry-after", b"%d" % math.ceil(wait_s)), (b"retry-after-ms", b"%d" % math.ceil(wait_s * 1000))]
    if wait_s > MAX_SDK_WAIT_S:
        headers.append(_DO_NOT_RETRY)
    return headers
