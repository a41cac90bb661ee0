"""Runs the contract over an upstream that is traced: it is an upstream like any other, and no attempt is lost or told
twice."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import msgspec
import pytest

from nexus_gateway.config.runtime import MockSpec
from nexus_gateway.core.model import CallRecord, Operation
from nexus_gateway.core.tracing import Sampling, Target, TracedHeaders
from nexus_gateway.observe.tracing import FinishedSpan, Recorder
from nexus_gateway.upstreams.base import Reply, Upstream, UpstreamRequest
from nexus_gateway.upstreams.traced import TracedUpstream

from .contract import UpstreamContract
from .kinds import NAME, USUAL, USUAL_LIMIT_BYTES, Bench, Kind, http


class Asking(TracedUpstream):
    """Gives each request a trace. As with mirrored ones, a span is there when the attempt is over."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream, Target(NAME, is_mirror=True))
        self.begun = 0
        self.spans: list[FinishedSpan] = []
        self._recorder = Recorder(Sampling(), self.spans.append, time.monotonic, Random(7).getrandbits)

    async def send(self, request: UpstreamRequest) -> Reply:
        self.begun += 1
        trace = self._recorder.begin(CallRecord("r", Operation.CHAT, time.time(), time.monotonic()), None)
        return await super().send(msgspec.structs.replace(request, headers=TracedHeaders(request.headers, trace)))


@asynccontextmanager
async def traced_http(
    behaviour: MockSpec = USUAL, *, cut_bytes: int | None = None, limit_bytes: int = USUAL_LIMIT_BYTES
) -> AsyncIterator[Bench]:
    async with http(behaviour, cut_bytes=cut_bytes, limit_bytes=limit_bytes) as bench:
        asking = Asking(bench.upstream)
        yield replace(bench, upstream=asking, travelling=bench.travelling - {"traceparent"})
    assert len({span.place.span_id for span in asking.spans}) == len(asking.spans) == asking.begun
    assert all(span.began_ns <= span.ended_ns for span in asking.spans)


@pytest.fixture(params=["traced http"])
def kind() -> Kind:
    return traced_http


class TestTracedUpstream(UpstreamContract):
    """One row."""
