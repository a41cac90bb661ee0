"""The application that a server runs: the data plane first, everything else by FastAPI.

For:      keeping the framework off the hot path while `/docs`, lifespan and the probes stay ordinary.
Touches:  the server; `data_plane` is set while the lifespan holds what it needs open.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI

from nexus_gateway.core.errors import Draining

from .asgi import PREFIX, DataPlane
from .errors import render
from .request_id import HEADER, id_source, request_id_of
from .wire import Message, Receive, Scope, Send

DATA_PATHS: Final = PREFIX + "/"


class Gateway(FastAPI):
    """A FastAPI application whose `/v1` is not FastAPI's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            telemetry={"logs": False, "metrics": False, "tracing": False, "auto_configure": False},
            max_body_size=1 << 20,
            redirect_slashes=False,
            **options,
        )
        self.data_plane: DataPlane | None = None
        self._new_id: Callable[[], str] = id_source()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(DATA_PATHS):
            if self.data_plane is not None:
                await self.data_plane(scope, receive, send)
            else:
                await _refuse(scope, receive, with_request_id(scope, send, self._new_id))
        elif scope["type"] == "http":
            await super().__call__(scope, receive, with_request_id(scope, send, self._new_id))
        else:
            await super().__call__(scope, receive, send)


async def _refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
    status, headers, body = render(Draining("The gateway is starting or shutting down."))
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
