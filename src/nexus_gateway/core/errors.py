"""What can go wrong, in our own words. Only `edge.errors` turns a kind into a status and the OpenAI error object.

For:      raising one kind per cause, whatever adapter saw it.
Touches:  nothing. No message here ever holds a secret, a prompt, an upstream's body or a stack.
"""

from typing import ClassVar


class GatewayError(Exception):
    """Base of all kinds. `message` goes to the caller; `param` names the offending field of the body, if one does."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


# ---- the caller's side


class MalformedRequest(GatewayError):
    """The body is not what the API asks for."""


class UnsupportedMediaType(GatewayError):
    """The body is not declared as JSON."""


class BodyTooLarge(GatewayError):
    """The body is over the limit; at most the limit was read."""


class RequestTooSlow(GatewayError):
    """The head or the body did not arrive in time."""


class HeadTooLarge(GatewayError):
    """The header fields are over the limit."""


class TargetTooLong(GatewayError):
    """The request target is over the limit."""


class Unauthenticated(GatewayError):
    """No credential, an unknown one, or two different ones."""


class InvalidToken(GatewayError):
    """A token that is forged, expired, malformed, too large, or not meant for us: which of them is not told."""


class ModelNotAllowed(GatewayError):
    """The caller may not use the model that it names."""


class ModelNotFound(GatewayError):
    """No route leads from the requested model to an upstream."""


class UnknownUpstream(GatewayError):
    """An operator named an upstream that does not exist."""


class UnsupportedEndpoint(GatewayError):
    """A path below /v1 that the gateway does not serve."""


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not. `allowed` lists those that do."""

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class RateLimited(GatewayError):
    """The caller has used up a limit: of "requests", "tokens" or "concurrency". `retry_after_s` is the true wait."""

    def __init__(self, message: str, *, resource: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.resource = resource
        self.retry_after_s = retry_after_s


# ---- the gateway's side


class Draining(GatewayError):
    """The gateway is going away and takes no new work."""


class LimitsUnavailable(GatewayError):
    """The shared store of limits is away, and the configuration lets nobody in without it."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AuditUnavailable(GatewayError):
    """Records cannot be written just now, and the policy is to serve nobody unrecorded."""


class CircuitOpen(GatewayError):
    """Nobody may be asked just now: breakers are open, upstreams cool down. `retry_after_s`: until somebody may."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MaskingFailed(GatewayError):
    """What a detector would have found is unknown, so nothing may be sent."""


class InternalError(GatewayError):
    """A defect of ours; the caller is told the request id only."""


# ---- the upstream's side


class UpstreamError(GatewayError):
    """An attempt failed. `upstream` is its configured name; `status` what it answered, None without a head.

    Adapters raise the subclasses below and nothing else. `outcome` is how an attempt that ended so is counted.
    """

    outcome: ClassVar[str] = "error"

    def __init__(self, message: str, *, upstream: str, status: int | None = None) -> None:
        super().__init__(message)
        self.upstream = upstream
        self.status = status


class UpstreamConnectError(UpstreamError):
    """Refused, unreachable, TLS failed, or reset before the first byte of an answer."""

    outcome = "connect_error"


class UpstreamDnsError(UpstreamError):
    """The upstream's name does not resolve."""

    outcome = "dns_error"


class UpstreamTimeout(UpstreamError):
    """No head, no first event, or no further bytes in time."""

    outcome = "timeout"


class StreamOvertime(UpstreamError):
    """A stream lasted longer than the configuration allows. Its upstream did nothing wrong."""

    outcome = "overtime"


class UpstreamInvalidResponse(UpstreamError):
    """An answer that is not HTTP, not JSON, not SSE, too large, or in an encoding nobody asked for."""

    outcome = "invalid_response"


class UpstreamTruncated(UpstreamError):
    """An answer that was cut: the connection broke, or the stream ended without a finish_reason."""

    outcome = "truncated"


class UpstreamUnavailable(UpstreamError):
    """The upstream answered 5xx or 408, or sent an error of that kind as an event."""

    outcome = "unavailable"


class UpstreamAuthError(UpstreamError):
    """The upstream refused the gateway's own credential (401, 403)."""

    outcome = "auth_error"


class UpstreamModelNotFound(UpstreamError):
    """The upstream does not know the model name that the configuration gave it."""

    outcome = "model_not_found"


class UpstreamBusy(UpstreamError):
    """The upstream's own `max_concurrency` is used up."""

    outcome = "busy"


class UpstreamStarting(UpstreamError):
    """The upstream has not come up yet, within the time that it was given for that. `retry_after_s`: until a look."""

    outcome = "starting"

    def __init__(self, message: str, *, upstream: str, status: int | None = None, retry_after_s: float) -> None:
        super().__init__(message, upstream=upstream, status=status)
        self.retry_after_s = retry_after_s


class UpstreamRateLimited(UpstreamError):
    """The upstream answered 429. `retry_after_s` is its clean, capped wish."""

    outcome = "rate_limited"

    def __init__(self, message: str, *, upstream: str, retry_after_s: float) -> None:
        super().__init__(message, upstream=upstream, status=429)
        self.retry_after_s = retry_after_s


class UpstreamRejected(UpstreamError):
    """The upstream found the caller's request wrong (400, 404, 413, 422, …): relayed in its own words.

    `message`, `type_`, `code` and `param` come from the upstream's error object, whatever its shape was.
    """

    outcome = "rejected"

    def __init__(
        self, message: str, *, upstream: str, status: int, type_: str, code: str | None, param: str | None
    ) -> None:
        super().__init__(message, upstream=upstream, status=status)
        self.status: int = status
        self.type_ = type_
        self.code = code
        self.param = param


def drop_trace(error: BaseException | None) -> None:
    """Let go of the frames that a handled error came through, and those it came from.

    They refer to it in turn, so that the whole request, body and all, would stay until a collection.
    """
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        drop_trace(error.__cause__)
        error = error.__context__
