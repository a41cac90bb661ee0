"""The litellm rows of the contract suite: the real library, a real wire, a mock model at its far end.

The library asks some providers by OpenAI's client and others by its own: a row for each.
"""

import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from nexus_gateway.config.runtime import MockSpec, Timeouts, UpstreamSpec
from nexus_gateway.upstreams.base import UpstreamRequest
from nexus_gateway.upstreams.litellm import LiteLLMUpstream
from tests.support import upstream_calls
from tests.support.openai_server import openai_server
from tests.upstreams.kinds import FORWARDED, NAME, OWN_KEY, USUAL, USUAL_LIMIT_BYTES, Bench, closing, left_as_found


def adapter(model: str | None, *, limit_bytes: int = USUAL_LIMIT_BYTES, **spec: Any) -> LiteLLMUpstream:
    fields = UpstreamSpec(NAME, "litellm", "", 0, "", model=model, **spec)
    return LiteLLMUpstream(fields, Timeouts(connect_s=2.0), max_answer_bytes=limit_bytes)


def request(**call: Any) -> UpstreamRequest:
    """An attempt with time enough for the library on a busy machine."""
    return upstream_calls.request(**{"within_s": 20.0, **call})


@asynccontextmanager
async def litellm(
    behaviour: MockSpec = USUAL,
    *,
    cut_bytes: int | None = None,
    limit_bytes: int = USUAL_LIMIT_BYTES,
    model: str = "openai/m",
) -> AsyncIterator[Bench]:
    async with left_as_found(), openai_server(behaviour, cut_bytes=cut_bytes) as server:
        upstream = adapter(
            model,
            limit_bytes=limit_bytes,
            api_base=f"http://127.0.0.1:{server.port}/v1",
            api_key=OWN_KEY,
            forward_headers=frozenset({FORWARDED}),
        )
        travelling = frozenset({"user-agent", "openai-beta", "traceparent", FORWARDED})
        async with closing(upstream):
            yield Bench(
                upstream, server.model, lambda: server.seen, travelling, has_key=True, wire=server, rewrites=True
            )
            await server.model.reach(0)


KINDS: Final[Mapping[str, Callable[..., AbstractAsyncContextManager[Bench]]]] = {
    "litellm": litellm,
    "litellm, its own client": functools.partial(litellm, model="hosted_vllm/m"),
}
