"""The usual way from a connection of ours to the application: ASGI.

For:      everything that is not inference. uvicorn's own cycle, but for how an answer ends.
Touches:  the connection's transport.
"""

import asyncio
import logging
import urllib.parse
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from nexus_gateway.core.errors import Draining, GatewayError, InternalError

from .errors import render

log = logging.getLogger(__name__)


class Outlet:
    """The transport as an answer sees it. Whether to close behind the answer is the connection's decision."""

    __slots__ = ("abort", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.abort = transport.abort

    def close(self) -> None:
        """The cycle calls `on_response` next, which sees `keep_alive` and that the body may not have come yet."""


class AsgiAnswer(RequestResponseCycle):
    """One request and its answer. A shutdown cancels it; a client who leaves is told of by `receive`."""

    async def run_asgi(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:  # the drain limit: this task ends here as it was told to, but not without a word
            await self._fail(Draining("The gateway is shutting down."))
        except Exception:
            log.exception("application_failed", extra={"path": self.scope["path"]})
            await self._fail(InternalError("The gateway failed."))
        finally:
            if not (self.response_complete or self.disconnected):
                self.transport.abort()

    async def _fail(self, error: GatewayError) -> None:
        if self.response_started:
            return
        status, headers, body = render(error)
        headers.append((b"content-length", b"%d" % len(body)))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def target_of(url: bytes) -> dict[str, Any]:
    """The parts of an ASGI scope that come from the request target. Raises what httptools raises on a bad one."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return {
        "path": urllib.parse.unquote(path) if "%" in path else path,
        "raw_path": parsed.path,
        "query_string": parsed.query or b"",
    }
