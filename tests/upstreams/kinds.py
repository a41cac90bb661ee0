"""The kinds of upstream that the contract suite runs over: one row each.

A row opens an upstream of its kind before a mock model, in this process or at the far end of a real wire. So every
kind is tried with the same answers and the same faults, and the suite can see what is left under way behind it.

With NEXUS_TEST_ENGINE_URL set there is one row more: whatever runs there, written as in GATEWAY_UPSTREAMS, options
included (`http://localhost:8001?model=…&api_key_env=…`). What needs a model that obeys is left out for it.
"""

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec
import openai
import pytest
import trustme

from nexus_gateway.config.problems import Report
from nexus_gateway.config.runtime import MockSpec, Timeouts, UpstreamSpec
from nexus_gateway.config.upstreams import compile_upstreams
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.base import Reply, Upstream, UpstreamRequest
from nexus_gateway.upstreams.grpc import GrpcUpstream
from nexus_gateway.upstreams.http import HttpUpstream
from tests.support.grpc_worker import Worker, grpc_worker
from tests.support.openai_server import Seen, openai_server
from tests.support.watched_mock import WatchedMock

NAME: Final = "east"
OWN_KEY: Final = "key-of-the-upstream"
FORWARDED: Final = "x-team"
REQUEST_ID: Final = "req-7"
USUAL: Final = MockSpec()
LEISURELY: Final = MockSpec(chunk_delay_s=11.0)  # a stream that is not over when it is left, or at least need not be
ENGINE_URL: Final = os.environ.get("NEXUS_TEST_ENGINE_URL")
ENGINE_PATIENCE_S: Final = 25.0  # a cold model takes its time
USUAL_LIMIT_BYTES: Final = 128 << 20
HTTP: Final = ("http", "https")


class Model(Protocol):
    async def reach(self, count: int) -> None:
        """Return once so many requests are under way there. Raises TimeoutError."""
        ...


class Unwatched:
    """A model that does not let us look."""

    async def reach(self, count: int) -> None:
        await asyncio.sleep(0)


class Wire(Protocol):
    is_garbling: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """An upstream and the model behind it.

    `seen`: requests as they came over the wire, None where nobody looks; `travelling`: the caller's headers that must
    be among theirs; `has_key`: our own credential too. `wire`: what can be told to send garbage.
    `echoes`: the model repeats its question, and answers the same question with the same words. `rewrites`: what the
    model is asked is not what was sent, byte for byte.
    """

    upstream: Upstream
    model: Model
    seen: Callable[[], Sequence[Seen]] | None = None
    travelling: frozenset[str] = frozenset()
    has_key: bool = False
    wire: Wire | None = None
    echoes: bool = True
    rewrites: bool = False
    patience_s: float = 5.0
    engine_model: str | None = None

    async def send(
        self,
        body: Mapping[str, Any],
        operation: Operation = Operation.CHAT,
        *,
        within_s: float | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        request_id: str = REQUEST_ID,
    ) -> Reply:
        if self.engine_model is not None:
            body = _for_engine(body, self.engine_model, operation)
        wait_s = self.patience_s if within_s is None else within_s
        return await self.upstream.send(
            UpstreamRequest(
                operation=operation,
                model=body.get("model", ""),
                body=msgspec.json.encode(body),
                stream=bool(body.get("stream")),
                headers=tuple(headers),
                request_id=request_id,
                deadline_s=asyncio.get_running_loop().time() + wait_s,
            )
        )

    async def send_bytes(self, body: bytes) -> Reply:
        """A chat that is written already."""
        if self.engine_model is not None:
            pytest.skip("an engine has a model of its own to be asked for")
        deadline_s = asyncio.get_running_loop().time() + self.patience_s
        return await self.upstream.send(UpstreamRequest(Operation.CHAT, "m", body, False, (), REQUEST_ID, deadline_s))


class Kind(Protocol):
    def __call__(
        self, behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None, limit_bytes: int = USUAL_LIMIT_BYTES
    ) -> AbstractAsyncContextManager[Bench]:
        """Opens a bench; at its end nothing may be under way any more, and no task left.

        `cut_bytes`: the model's bytes come in pieces of that size, where there is a wire to cut them. `limit_bytes`:
        the largest answer that the gateway is configured to take.
        """
        ...


@asynccontextmanager
async def closing(upstream: Upstream) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await upstream.aclose()


@asynccontextmanager
async def mock(
    behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None, limit_bytes: int = USUAL_LIMIT_BYTES
) -> AsyncIterator[Bench]:
    upstream = WatchedMock(behaviour, name=NAME)
    async with left_as_found(), closing(upstream):
        yield Bench(upstream, upstream)
        await upstream.reach(0)


@asynccontextmanager
async def http(
    behaviour: MockSpec = USUAL,
    *,
    cut_bytes: int | None = None,
    limit_bytes: int = USUAL_LIMIT_BYTES,
    tls: ssl.SSLContext | None = None,
    **spec: Any,
) -> AsyncIterator[Bench]:
    async with left_as_found(), openai_server(behaviour, cut_bytes=cut_bytes, tls=tls) as server:
        forwarded = frozenset({FORWARDED})
        fields = {"kind": "http", "base_path": "/v1", "api_key": OWN_KEY, "forward_headers": forwarded, **spec}
        upstream = HttpUpstream(
            UpstreamSpec(NAME, host="127.0.0.1", port=server.port, **fields),
            Timeouts(connect_s=5.0),
            max_answer_bytes=limit_bytes,
        )
        travelling = frozenset({"user-agent", "openai-beta", "traceparent", FORWARDED})
        async with closing(upstream):
            yield Bench(upstream, server.model, lambda: server.seen, travelling, has_key=True, wire=server)
            await server.model.reach(0)


@asynccontextmanager
async def https(
    behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None, limit_bytes: int = USUAL_LIMIT_BYTES
) -> AsyncIterator[Bench]:
    known, tls = authority()
    with known.cert_pem.tempfile() as ca_file:
        options: dict[str, Any] = {"kind": "https", "ca_file": ca_file}
        async with http(behaviour, cut_bytes=cut_bytes, limit_bytes=limit_bytes, tls=tls, **options) as bench:
            yield bench


@asynccontextmanager
async def grpc(
    behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None, limit_bytes: int = USUAL_LIMIT_BYTES
) -> AsyncIterator[Bench]:
    async with left_as_found(), grpc_worker(behaviour) as worker:
        spec = UpstreamSpec(NAME, "grpc", "127.0.0.1", worker.port, "")
        upstream = GrpcUpstream(spec, Timeouts(connect_s=5.0), max_answer_bytes=limit_bytes)
        async with closing(upstream):
            yield Bench(upstream, worker.model, lambda: _seen(worker), frozenset({"traceparent"}), wire=worker)
            await worker.model.reach(0)


@asynccontextmanager
async def engine(
    behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None, limit_bytes: int = USUAL_LIMIT_BYTES
) -> AsyncIterator[Bench]:
    if behaviour not in (USUAL, LEISURELY) or cut_bytes is not None:
        pytest.skip("an engine behaves as it likes")
    spec = _engine_spec()
    async with left_as_found():
        adapter = HttpUpstream if spec.kind in HTTP else GrpcUpstream
        upstream: Upstream = adapter(spec, Timeouts(connect_s=5.0), max_answer_bytes=limit_bytes)
        model = spec.model or _served(spec)
        async with closing(upstream):
            yield Bench(upstream, Unwatched(), echoes=False, patience_s=ENGINE_PATIENCE_S, engine_model=model)


KINDS: Final[Mapping[str, Callable[..., AbstractAsyncContextManager[Bench]]]] = {
    "mock": mock,
    "http": http,
    "https": https,
    "grpc": grpc,
    **({"engine": engine} if ENGINE_URL else {}),
}


def _seen(worker: Worker) -> list[Seen]:
    return [Seen("", b"", dict(called.metadata), called.message.body) for called in worker.called]


@functools.cache
def authority() -> tuple[trustme.CA, ssl.SSLContext]:
    """One for all: making keys takes a while."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return authority, context


@functools.cache
def _engine_spec() -> UpstreamSpec:
    report = Report()
    upstreams = compile_upstreams({NAME: ENGINE_URL}, "NEXUS_TEST_ENGINE_URL", os.environ, report)
    if report.problems:
        pytest.fail("\n".join(map(str, report.problems)), pytrace=False)
    return replace(upstreams.specs[0], mask=False)


@functools.cache
def _served(spec: UpstreamSpec) -> str:
    """The first model that the engine says it serves."""
    if spec.kind not in HTTP or spec.ca_file is not None:
        pytest.fail("NEXUS_TEST_ENGINE_URL names no model: add model=", pytrace=False)
    url = f"{spec.kind}://{spec.host}:{spec.port}{spec.base_path}"
    with openai.OpenAI(base_url=url, api_key=spec.api_key or "none") as client:
        return client.models.list().data[0].id


def _for_engine(body: Mapping[str, Any], model: str, operation: Operation) -> Mapping[str, Any]:
    """The same question for a model that has to be paid for every word."""
    brief = {} if operation is Operation.EMBEDDINGS else {"max_tokens": 256, "temperature": 0}
    return {**brief, **body, "model": model}


@asynccontextmanager
async def left_as_found() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before
    assert not left, left
