"""What operators ask for: probes, metrics, the API's description.

For:      the paths beside `/v1`. Served by FastAPI; none of them is hot.
Touches:  the metrics registry, by reading.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from starlette.exceptions import HTTPException

from nexus_gateway.core.credentials import INVALID_KEY
from nexus_gateway.core.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    Unauthenticated,
    UnsupportedEndpoint,
)

from .errors import render
from .protocol import SERVING

OK: Final = "ok"
DEGRADED: Final = "degraded"
OPENMETRICS: Final = "application/openmetrics-text"
SAMPLES_AT_ONCE: Final = 200  # about a millisecond's worth
HEAD_LINES: Final = 2  # HELP and TYPE, of each metric once
GET_AND_HEAD: Final = "GET, HEAD"  # whatever answers the one answers the other, see `gateway`


def add_operations(
    app: FastAPI, readiness: Callable[[], str], registry: CollectorRegistry, metrics_key_digest: bytes | None
) -> None:
    """`readiness` says "ok", "degraded", or why no traffic should come: "starting", "draining"."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Is the process alive")
    async def healthz() -> dict[str, str]:
        return {"status": OK}

    @router.get("/readyz", summary="Should traffic come here", responses={503: {"description": "Not now."}})
    async def readyz(request: Request) -> JSONResponse:
        serving = request.scope.get("extensions", {}).get(SERVING)
        state = "draining" if serving is not None and serving.draining else readiness()
        return JSONResponse({"status": state}, 200 if state in (OK, DEGRADED) else 503)

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        if metrics_key_digest is not None:
            require_key(request.headers.get("authorization", ""), metrics_key_digest)
        body, content_type = await expose(registry, request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    app.include_router(router)
    _answer_errors_in_our_shape(app)


class _Only:
    """As much of a registry as an encoder asks for."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> tuple[Metric, ...]:
        return self._metrics


async def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The metrics in the format that is asked for, and its name. Requests get their turns after every few hundred
    samples: with a thousand callers the whole takes longer than a first byte may."""
    wants_openmetrics = any(kind.partition(";")[0].strip().lower() == OPENMETRICS for kind in accept.split(","))
    encode, content_type = choose_encoder(OPENMETRICS if wants_openmetrics else "")  # it fails on odd parameters
    end = encode(_Only())
    pieces = []
    for metric in registry.collect():
        samples = metric.samples
        for start in range(0, max(1, len(samples)), SAMPLES_AT_ONCE):
            metric.samples = samples[start : start + SAMPLES_AT_ONCE]
            piece = encode(_Only(metric)).removesuffix(end)
            pieces.append(piece if start == 0 else piece.split(b"\n", HEAD_LINES)[HEAD_LINES])
            await asyncio.sleep(0)
    return b"".join(pieces) + end, content_type


def require_key(authorization: str, digest: bytes) -> None:
    """Raises Unauthenticated unless the Bearer credential has this digest."""
    key = authorization[7:] if authorization[:7].lower() == "bearer " else ""
    if not hmac.compare_digest(hashlib.sha256(key.encode()).digest(), digest):
        raise Unauthenticated(INVALID_KEY)


def _answer_errors_in_our_shape(app: FastAPI) -> None:
    def answer(error: GatewayError) -> Response:
        status, headers, body = render(error)
        return Response(body, status, {name.decode(): value.decode() for name, value in headers})

    @app.exception_handler(GatewayError)
    async def _ours(_request: Request, error: Exception) -> Response:
        return answer(error if isinstance(error, GatewayError) else InternalError("The gateway failed."))

    @app.exception_handler(HTTPException)
    async def _framework(_request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            methods = set((error.headers or {}).get("Allow", "GET").split(", "))
            allowed = GET_AND_HEAD if "GET" in methods else ", ".join(sorted(methods))
            return answer(MethodNotAllowed(f"This path answers {allowed} only.", allowed=allowed))
        return answer(
            UnsupportedEndpoint("There is nothing at this path; the API lives below /v1, its description at /docs.")
        )
