"""The kinds of upstream that the contract suite runs over: one row each.

A row opens an upstream of its kind before a mock model, in this process or at the far end of a real wire. So every
kind is tried with the same answers and the same faults, and the suite can see what is left under way behind it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from nexus_gateway.config.runtime import MockSpec, Timeouts, UpstreamSpec
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.base import Reply, Upstream, UpstreamRequest
from nexus_gateway.upstreams.grpc import GrpcUpstream
from nexus_gateway.upstreams.http import HttpUpstream
from tests.support.grpc_worker import grpc_worker
from tests.support.openai_server import Seen, openai_server
from tests.support.watched_mock import WatchedMock

NAME: Final = "east"
OWN_KEY: Final = "key-of-the-upstream"
FORWARDED: Final = "x-team"
REQUEST_ID: Final = "req-7"
USUAL: Final = MockSpec()


@dataclass(frozen=True, slots=True)
class Bench:
    """An upstream and the model behind it. `seen`: requests as they came over the wire, None where there is no wire."""

    upstream: Upstream
    model: WatchedMock
    seen: Sequence[Seen] | None = None

    async def send(
        self,
        body: Mapping[str, Any],
        operation: Operation = Operation.CHAT,
        *,
        within_s: float = 5.0,
        headers: Iterable[tuple[bytes, bytes]] = (),
        request_id: str = REQUEST_ID,
    ) -> Reply:
        return await self.upstream.send(
            UpstreamRequest(
                operation=operation,
                model=body.get("model", ""),
                body=msgspec.json.encode(body),
                stream=bool(body.get("stream")),
                headers=tuple(headers),
                request_id=request_id,
                deadline_s=asyncio.get_running_loop().time() + within_s,
            )
        )


class Kind(Protocol):
    def __call__(
        self, behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Bench]:
        """Opens a bench; at its end nothing may be under way any more, and no task left.

        `cut_bytes`: the model's bytes come in pieces of that size, where there is a wire to cut them.
        """
        ...


@asynccontextmanager
async def mock(behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None) -> AsyncIterator[Bench]:
    upstream = WatchedMock(behaviour, name=NAME)
    async with _left_as_found():
        yield Bench(upstream, upstream)
        await upstream.reach(0)
        await upstream.aclose()


@asynccontextmanager
async def http(behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None) -> AsyncIterator[Bench]:
    async with _left_as_found(), openai_server(behaviour, cut_bytes=cut_bytes) as server:
        spec = UpstreamSpec(
            NAME, "http", "127.0.0.1", server.port, "/v1", api_key=OWN_KEY, forward_headers=frozenset({FORWARDED})
        )
        upstream = HttpUpstream(spec, Timeouts(connect_s=1.0))
        yield Bench(upstream, server.model, server.seen)
        await server.model.reach(0)
        await upstream.aclose()


@asynccontextmanager
async def grpc(behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None) -> AsyncIterator[Bench]:
    async with _left_as_found(), grpc_worker(behaviour) as worker:
        upstream = GrpcUpstream(UpstreamSpec(NAME, "grpc", "127.0.0.1", worker.port, ""), Timeouts(connect_s=1.0))
        yield Bench(upstream, worker.model)
        await worker.model.reach(0)
        await upstream.aclose()


KINDS: Final[Mapping[str, Callable[..., AbstractAsyncContextManager[Bench]]]] = {
    "mock": mock,
    "http": http,
    "grpc": grpc,
}


@asynccontextmanager
async def _left_as_found() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert not left, left
