"""Calls of an upstream adapter, short enough to be read inside a test."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from nexus_gateway.config.runtime import Timeouts, UpstreamSpec
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.base import Upstream, UpstreamRequest
from nexus_gateway.upstreams.http import HttpUpstream
from tests.support.raw_server import RawServer, Script

SPEC = UpstreamSpec(name="east", kind="http", host="127.0.0.1", port=0, base_path="/v1")


@asynccontextmanager
async def http_upstream(
    port: int, *, connect_s: float = 5.0, max_answer_bytes: int = 1 << 20, **spec: Any
) -> AsyncIterator[HttpUpstream]:
    """An adapter for 127.0.0.1:`port`, closed at the end. `spec` changes fields of its UpstreamSpec."""
    upstream = HttpUpstream(
        replace(SPEC, port=port, **spec), Timeouts(connect_s=connect_s), max_answer_bytes=max_answer_bytes
    )
    try:
        yield upstream
    finally:
        await upstream.aclose()


@asynccontextmanager
async def relay(
    script: Script, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[RawServer, HttpUpstream]]:
    """A server that follows the script, and an adapter for it. At the end nothing of the adapter's may be left open."""
    async with RawServer(script, tls=tls) as server:
        async with http_upstream(server.port, **options) as upstream:
            yield server, upstream
        async with asyncio.timeout(2):
            await server.all_closed()


def request(
    *, stream: bool = False, within_s: float = 2.0, body: bytes = b"{}", headers: Iterable[tuple[bytes, bytes]] = ()
) -> UpstreamRequest:
    """An attempt that begins now."""
    return UpstreamRequest(
        operation=Operation.CHAT,
        model="m",
        body=body,
        stream=stream,
        headers=tuple(headers),
        request_id="req-1",
        deadline_s=asyncio.get_running_loop().time() + within_s,
    )


async def ask(upstream: Upstream, *, limit_bytes: int = 1 << 20, **call: Any) -> bytes:
    """Send, read the whole answer, close."""
    reply = await upstream.send(request(**call))
    try:
        return await reply.read_all(limit_bytes)
    finally:
        await reply.aclose()


async def until(holds: Callable[[], bool], *, turns: int = 100_000) -> None:
    """Let the loop turn until something holds that has no event to wait for."""
    for _ in range(turns):
        if holds():
            return
        await asyncio.sleep(0)
    raise TimeoutError
