"""What adapters that stand on a library have in common: an answer that is all there, and why there is none.

For:      the same words for the same fault, whatever the protocol.
Touches:  nothing.
"""

from collections.abc import Awaitable, Callable, Mapping

from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamInvalidResponse,
    UpstreamTimeout,
    UpstreamTruncated,
)


class WholeReply:
    """An answer that came in one message, or a refusal. Implements `base.Reply`."""

    __slots__ = ("_body", "_unread", "_upstream", "headers", "status")

    def __init__(self, upstream: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._upstream = upstream
        self._body = body
        self._unread = True

    async def read_all(self, limit_bytes: int) -> bytes:
        if len(self._body) > limit_bytes:
            raise too_large(self._upstream)
        return self._body

    async def read(self, deadline_s: float) -> bytes:
        was_unread, self._unread = self._unread, False
        return self._body if was_unread else b""

    async def aclose(self) -> None:
        """The call is over already."""


async def joined(
    read: Callable[[float], Awaitable[bytes]], deadline_s: float, limit_bytes: int, upstream: str
) -> bytes:
    """All pieces of a reply, by its own `read`. Raises what that raises, and UpstreamInvalidResponse over the limit."""
    pieces, size = [], 0
    while piece := await read(deadline_s):
        pieces.append(piece)
        size += len(piece)
        if size > limit_bytes:
            raise too_large(upstream)
    return b"".join(pieces)


def late(upstream: str) -> UpstreamTimeout:
    return UpstreamTimeout(f"Upstream '{upstream}' did not answer in time.", upstream=upstream)


def closed(upstream: str) -> UpstreamConnectError:
    return UpstreamConnectError(f"Upstream '{upstream}' is closed.", upstream=upstream)


def truncated(upstream: str) -> UpstreamTruncated:
    return UpstreamTruncated(f"Upstream '{upstream}' cut its answer.", upstream=upstream)


def too_large(upstream: str) -> UpstreamInvalidResponse:
    return UpstreamInvalidResponse(f"Upstream '{upstream}' sent an answer over the limit.", upstream=upstream)
