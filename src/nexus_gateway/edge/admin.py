"""What operators may see and change while the gateway runs. The routes exist only with an admin key.

For:      `GET /admin/upstreams`, and taking an upstream out by hand.
Touches:  the health of upstreams; the log, for every action.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request

from nexus_gateway.core.errors import UnknownUpstream
from nexus_gateway.pipeline.endpoint import Endpoint

from .operations import require_key

OWN_SCOPE: Final = "this process"  # whose breakers and isolation these are
SHARED_SCOPE: Final = "all processes through Redis"

log = logging.getLogger(__name__)


def add_admin(app: FastAPI, endpoints: Callable[[], Mapping[str, Endpoint]], key_digest: bytes) -> None:
    """`endpoints` gives those that are open now."""

    def authorize(request: Request) -> None:
        require_key(request.headers.get("authorization", ""), key_digest)

    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(authorize)])

    def find(name: str) -> Endpoint:
        endpoint = endpoints().get(name)
        if endpoint is None:
            raise UnknownUpstream(f"There is no upstream '{name[:128]}'.")
        return endpoint

    @router.get("/upstreams", summary="How every upstream stands")
    async def upstreams() -> dict[str, Any]:
        now_s, known = time.monotonic(), endpoints().values()
        scope = SHARED_SCOPE if any(endpoint.sharing.is_shared for endpoint in known) else OWN_SCOPE
        return {"scope": scope, "upstreams": [describe(endpoint, now_s) for endpoint in known]}

    @router.post("/upstreams/{name:path}/isolate", summary="Take an upstream out")
    async def isolate(name: str) -> dict[str, Any]:
        endpoint = find(name)
        endpoint.isolate()
        log.warning("upstream_isolated", extra={"upstream": name})
        return describe(endpoint, time.monotonic())

    @router.post("/upstreams/{name:path}/restore", summary="Let an upstream take part again")
    async def restore(name: str) -> dict[str, Any]:
        endpoint = find(name)
        endpoint.restore()
        log.warning("upstream_restored", extra={"upstream": name})
        return describe(endpoint, time.monotonic())

    app.include_router(router)


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
