"""What operators may see and change while the gateway runs. The routes exist only with an admin key.

For:      the page `/admin` and, behind the key, `/admin/*`: traffic, upstreams, keys and failures, and taking an
          upstream out by hand.
Touches:  the health of upstreams; the log, for every change. Everything else it only reads.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from nexus_gateway import __version__
from nexus_gateway.core.account import Use
from nexus_gateway.core.errors import Draining, MalformedRequest, UnknownUpstream
from nexus_gateway.core.model import OPERATION_NAMES
from nexus_gateway.observe.failures import Failure, Failures, asked_last
from nexus_gateway.observe.recent import Recent
from nexus_gateway.pipeline.callers import Caller, Callers
from nexus_gateway.pipeline.endpoint import Endpoint

from .operations import require_key
from .pages import load

OWN_SCOPE: Final = "this process"  # whose breakers and isolation these are
SHARED_SCOPE: Final = "all processes through Redis"
KEYS_TOLD: Final = 200  # in one answer: with Redis each is one small question
ASKS_FOR_KEY: Final[dict[str, Any]] = {"security": [{"bearer": []}]}  # so that `/docs` sends it
MAX_DIGITS: Final = 9

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desk:
    """What lies before the operator while the gateway is open. `opened_at` is Unix time."""

    endpoints: Mapping[str, Endpoint]
    recent: Recent
    failures: Failures
    callers: Callers
    opened_at: float


def add_admin(app: FastAPI, desk: Callable[[], Desk | None], key_digest: bytes) -> None:
    """`desk` gives None while the gateway is not open."""

    def authorize(request: Request) -> None:
        require_key(request.headers.get("authorization", ""), key_digest)

    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(authorize)])

    def present() -> Desk:
        there = desk()
        if there is None:
            raise Draining("The gateway is starting or shutting down.")
        return there

    def find(name: str) -> Endpoint:
        endpoint = present().endpoints.get(name)
        if endpoint is None:
            raise UnknownUpstream(f"There is no upstream '{name[:128]}'.")
        return endpoint

    @router.get("/traffic", openapi_extra=ASKS_FOR_KEY, summary="What went through this process in the last minutes")
    async def traffic() -> dict[str, Any]:
        there = present()
        up_s = round(time.time() - there.opened_at, 3)
        return {"scope": OWN_SCOPE, "version": __version__, "up_s": up_s, **there.recent.tell()}

    @router.get("/upstreams", openapi_extra=ASKS_FOR_KEY, summary="How every upstream stands")
    async def upstreams() -> dict[str, Any]:
        now_s, known = time.monotonic(), present().endpoints.values()
        scope = SHARED_SCOPE if any(endpoint.sharing.is_shared for endpoint in known) else OWN_SCOPE
        return {"scope": scope, "upstreams": [describe(endpoint, now_s) for endpoint in known]}

    @router.post("/upstreams/{name:path}/isolate", openapi_extra=ASKS_FOR_KEY, summary="Take an upstream out")
    async def isolate(name: str) -> dict[str, Any]:
        endpoint = find(name)
        endpoint.isolate()
        log.warning("upstream_isolated", extra={"upstream": name})
        return describe(endpoint, time.monotonic())

    @router.post(
        "/upstreams/{name:path}/restore", openapi_extra=ASKS_FOR_KEY, summary="Let an upstream take part again"
    )
    async def restore(name: str) -> dict[str, Any]:
        endpoint = find(name)
        endpoint.restore()
        log.warning("upstream_restored", extra={"upstream": name})
        return describe(endpoint, time.monotonic())

    @router.get(
        "/keys", openapi_extra=ASKS_FOR_KEY, summary="Keys and tokens with their limits, and what of these is used"
    )
    async def keys(first: str = "0") -> dict[str, Any]:
        """At most 200 from `first` on, in the order of the configuration."""
        there, begin, now_unix_s = present(), _whole(first), time.time()
        told = await there.callers.use(begin, KEYS_TOLD)
        seconds, asked = there.recent.tell_callers()
        return {
            "first": begin,
            "total": len(there.callers),
            "lately_s": round(seconds, 3),
            "keys": [describe_caller(caller, used, asked, now_unix_s) for caller, used in told],
        }

    @router.get(
        "/errors",
        openapi_extra=ASKS_FOR_KEY,
        summary="Kinds of failures that this process met of late, the newest first",
    )
    async def failures() -> dict[str, Any]:
        there = present()
        told = [
            {"name": there.callers.name_of(failure.last.key_id), **describe_failure(failure)}
            for failure in there.failures
        ]
        return {"scope": OWN_SCOPE, "errors": told}

    app.include_router(router)
    page = load("admin")

    @app.get("/admin", include_in_schema=False)
    async def admin() -> Response:
        """No data is in it: it asks for the key, and with it for the routes above."""
        return page.response()


def describe(endpoint: Endpoint, now_s: float) -> dict[str, Any]:
    """Times in seconds; `wait_s` is null where nobody knows how long."""
    health = endpoint.health
    breaker = health.breaker.snapshot(now_s)
    wait_s = health.wait_s(now_s)
    return {
        "name": endpoint.name,
        "available": wait_s <= 0,
        "wait_s": wait_s if wait_s < float("inf") else None,
        "breaker": {
            "state": breaker.state.value,
            "failures": breaker.failures,
            "wait_s": breaker.wait_s,
            "share": breaker.share,
            "probing": breaker.is_probing,
        },
        "cooling_s": health.cooling_s(now_s),
        "isolated": health.is_isolated,
        "failing_checks": health.is_failing_checks,
        "starting": health.is_starting(now_s),
        "in_flight": health.load.in_flight,
        "first_token_ewma_s": health.load.first_token_s,
        "last_error": endpoint.last_error,
    }


def describe_caller(
    caller: Caller, used: Use | None, asked: Mapping[str, tuple[int, int]], now_unix_s: float
) -> dict[str, Any]:
    """`asked`: requests and tokens of late, by label. A limit of null is none. `used` is null where there is no limit,
    or nobody knows. `basis` says what it rests on: "whole", "share" (this process alone: Redis is away), "none"."""
    policy, principal = caller.policy, caller.principal
    lately = None if principal is None else asked.get(principal.label, (0, 0))
    requests, tokens, in_flight = (None, None, None) if used is None else (used.requests, used.tokens, used.in_flight)
    return {
        "kind": "key" if caller.subject is None else "token",
        "key_id": caller.key_id,
        "subject": caller.subject,
        "name": policy.name,
        "state": _state_of(caller, now_unix_s),
        "expires_at": policy.expires_at,
        "allowed_models": None if policy.allowed_models is None else policy.allowed_models.words,
        "clamp": policy.clamps_output,
        "requests_per_minute": {"limit": policy.requests_per_minute, "used": requests},
        "tokens_per_minute": {"limit": policy.tokens_per_minute, "used": tokens},
        "concurrency": {"limit": policy.max_concurrency, "used": in_flight},
        "lately": None if lately is None else dict(zip(("requests", "tokens"), lately, strict=True)),
        "basis": "none" if used is None else used.basis.value,
    }


def describe_failure(failure: Failure) -> dict[str, Any]:
    """`count` equal failures since `first_at`; all else is of the request that met it last. Instants are Unix time."""
    record = failure.last
    seconds = record.finished_at_s - record.started_at_s
    return {
        "count": failure.count,
        "first_at": failure.first_at,
        "at": record.received_at + seconds,
        "status": record.status,
        "code": record.error_code,
        "key_id": record.key_id,
        "operation": OPERATION_NAMES[record.operation],
        "model": record.model,
        "route": record.route,
        "upstream": asked_last(record),
        "stream": record.stream,
        "seconds": round(seconds, 6),
        "request_id": record.request_id,
        "attempts": [
            {"upstream": each.upstream, "outcome": each.outcome, "status": each.status, "seconds": each.seconds}
            for each in record.attempts
        ],
    }


def _state_of(caller: Caller, now_unix_s: float) -> str:
    if caller.policy.admits(now_unix_s):
        return "active"
    return "disabled" if caller.policy.disabled else "expired"


def _whole(word: str) -> int:
    if word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS:
        return int(word)
    raise MalformedRequest("'first' must be a whole number, 0 or more.", param="first")
