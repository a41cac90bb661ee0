"""The application that a server runs: the data plane first, everything else by FastAPI.

For:      keeping the framework off the hot path while `/docs`, lifespan and the probes stay ordinary.
Touches:  the server; `data_plane` and, for operators, `desk` are set while the lifespan holds open what they need.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from nexus_gateway.core.errors import BodyTooLarge, Draining, GatewayError, UnsupportedEndpoint
from nexus_gateway.core.outbox import Outbox

from .admin import Desk
from .asgi import PREFIX, DataPlane
from .errors import render
from .protocol import SERVING
from .request_id import HEADER, id_source, request_id_of
from .wire import Message, Scope, Send

DATA_PATHS: Final = PREFIX + "/"
MAX_BODY_BYTES: Final = 1 << 20  # beside the API, where nothing asks for a body
PUBLIC_PATHS: Final = frozenset(
    {"/", "/healthz", "/readyz"}
)  # besides the API, where operators have a port of their own


class Gateway(FastAPI):
    """A FastAPI application whose `/v1` is not FastAPI's.

    `ops_apart`: what operators ask for is answered on their own port only; a server without one answers it nowhere.
    """

    def __init__(self, *, ops_apart: bool = False, **options: Any) -> None:
        super().__init__(
            telemetry={"logs": False, "metrics": False, "tracing": False, "auto_configure": False},
            max_body_size=MAX_BODY_BYTES,
            redirect_slashes=False,
            **options,
        )
        self.data_plane: DataPlane | None = None
        self.desk: Desk | None = None
        self.outbox: Outbox | None = None
        self._ops_apart = ops_apart
        self._new_id: Callable[[], str] = id_source()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._ops_apart and scope["type"] == "http" and _is_elsewhere(scope):
            await _refuse(UnsupportedEndpoint("This path is not served on this port."), self._named(scope, send))
        elif scope["type"] == "http" and scope["path"].startswith(DATA_PATHS):
            if self.data_plane is not None:
                await self.data_plane(scope, receive, send)
            else:
                await _refuse(Draining("The gateway is starting or shutting down."), self._named(scope, send))
        elif scope["type"] == "http":
            send = self._named(scope, send)
            if int(dict(scope["headers"]).get(b"content-length", 0)) > MAX_BODY_BYTES:  # Starlette would say it in text
                await _refuse(BodyTooLarge(f"The request body is over the limit of {MAX_BODY_BYTES} bytes."), send)
            else:
                await super().__call__(_as_get(scope), receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _named(self, scope: Scope, send: Send) -> Send:
        return with_request_id(scope, send, self._new_id)


def _as_get(scope: Scope) -> Scope:
    """Every page has a head: FastAPI's routes know no HEAD, and the server sends no body in answer to one."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def _is_elsewhere(scope: Scope) -> bool:
    """Whether the path belongs to the other port."""
    path: str = scope["path"]
    serving = scope.get("extensions", {}).get(SERVING)
    if serving is not None and serving.for_operators:
        return path == PREFIX or path.startswith(DATA_PATHS)
    return not (path in PUBLIC_PATHS or path == PREFIX or path.startswith(DATA_PATHS))


async def _refuse(error: GatewayError, send: Send) -> None:
    status, headers, body = render(error)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def with_request_id(scope: Scope, send: Send, new_id: Callable[[], str]) -> Send:
    """Name every answer, also those that no exchange made."""
    request_id = request_id_of(dict(scope["headers"]), new_id).encode("ascii")

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (HEADER, request_id)]
        await send(message)

    return named
