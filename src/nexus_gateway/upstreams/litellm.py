"""The adapter for providers that LiteLLM speaks to, in this process.

For:      putting an attempt to the library, and its answer into OpenAI-shaped bytes.
Touches:  its own connections, below the library. Imported only where such an upstream is configured, off the loop: the
          library takes seconds (docs/adr/0003).
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from nexus_gateway.config.runtime import Timeouts, UpstreamSpec
from nexus_gateway.core.model import Operation

from .base import Reply, Traits, UpstreamRequest
from .litellm_call import Call, Tasks, begun, context_of
from .litellm_library import litellm
from .litellm_network import Network, Nowhere
from .litellm_stream import Relayed, Source, StreamReply, Translated
from .litellm_wire import Wire
from .litellm_words import JSON, refusal, split_members, unknown_members, whole_body
from .replies import WholeReply, closed, late

EVENTS: Final = "text/event-stream; charset=utf-8"
CLOSING_S: Final = 2.0  # for what the library is busy with when its upstream is closed
USUAL_MODEL: Final = "openai/gpt-4o-mini"  # stands for any, in a rehearsal
LONG_S: Final = 86_400.0  # for the library: deadlines are the gateway's, and a client is kept for each of its timeouts

ASK: Final[dict[Operation, Callable[..., Any]]] = {
    Operation.CHAT: litellm.acompletion,
    Operation.COMPLETIONS: litellm.atext_completion,
    Operation.EMBEDDINGS: litellm.aembedding,
}
OPENAI_LIKE: Final = frozenset({"openai", "azure", "text-completion-openai", *litellm.openai_compatible_providers})


class LiteLLMUpstream:
    """One configured model, or any (`litellm://`). Made and closed on the running loop. Implements `base.Upstream`."""

    def __init__(self, spec: UpstreamSpec, timeouts: Timeouts, *, max_answer_bytes: int = 128 << 20) -> None:
        self.name = spec.name
        self.traits = Traits(spec.model, spec.stream_usage, spec.timeout_s, spec.max_concurrency, spec.mask)
        self._network = Network(spec, timeouts, max_answer_bytes)
        self._settings = _settings_of(spec)
        self._speaks_openai = spec.model is not None and _speaks_openai(spec.model)
        self._tasks = Tasks()
        self._calls: set[Call] = set()
        self._streams: set[StreamReply] = set()
        self._is_closed = False

    async def send(self, request: UpstreamRequest) -> Reply:
        if self._is_closed:
            raise closed(self.name)
        if request.deadline_s <= asyncio.get_running_loop().time():
            raise late(self.name)
        model = self.traits.model or request.model
        if self.traits.model is None and "://" in model:  # some providers take an address for a model
            return refusal(self.name, 404, "This is not the name of a model.", param="model")
        arguments, rest = split_members(request.operation, request.body)
        speaks_openai = self._speaks_openai if self.traits.model is not None else _speaks_openai(model)
        if rest and not speaks_openai:
            return unknown_members(self.name, rest)
        arguments.update(self._settings, model=model)
        if rest:
            arguments["extra_body"] = rest
        if request.operation is Operation.CHAT:
            arguments["_skip_mcp_handler"] = True  # tools are called by whoever asked
        has_tools = bool(arguments.get("tools"))
        wire = Wire(self._network, request, speaks_openai=speaks_openai, has_tools=has_tools)
        call = Call(self._ask(request, arguments, wire), wire, self._tasks)
        self._calls.add(call)
        try:
            return await call.wait(request.deadline_s)
        finally:
            self._calls.discard(call)

    async def check(self, deadline_s: float) -> None:
        """Providers have nothing to ask without a request that costs."""

    async def aclose(self) -> None:
        self._is_closed = True
        for call in tuple(self._calls):
            call.give_up(closed)
        for stream in tuple(self._streams):
            stream.give_up(closed)
        await self._tasks.over(CLOSING_S)
        await self._network.aclose()

    async def _ask(self, request: UpstreamRequest, arguments: dict[str, Any], wire: Wire) -> Reply:
        """Runs as a task in the call's own context."""
        if request.stream:
            return await self._ask_for_stream(request, arguments, wire)
        result = await ASK[request.operation](**arguments)
        if wire.is_openai:
            return WholeReply(self.name, 200, wire.headers, bytes(wire.kept))
        return WholeReply(self.name, 200, {**wire.headers, "content-type": JSON}, whole_body(result))

    async def _ask_for_stream(self, request: UpstreamRequest, arguments: dict[str, Any], wire: Wire) -> Reply:
        async def ask() -> tuple[Any, Any]:
            """The stream, and its first chunk if it asks only when it is read."""
            stream = await ASK[request.operation](**arguments)
            return stream, await anext(stream, None) if wire.answer is None else None

        result = await begun(ask(), wire)
        source: Source
        if wire.answer is not None and wire.is_openai:
            source, headers = Relayed(wire.answer, wire), wire.headers
        else:
            stream, first = result or (None, None)
            wants_usage = bool((arguments.get("stream_options") or {}).get("include_usage"))
            source = Translated(stream, first, wire, self._tasks, wants_usage=wants_usage)
            headers = {**wire.headers, "content-type": EVENTS}
        reply = StreamReply(wire.name, headers, source, self._tasks, self._streams, request.deadline_s)
        self._streams.add(reply)
        return reply


def _speaks_openai(model: str) -> bool:
    """Whether the model's provider has OpenAI's API: members that the library does not know reach it as they are."""
    try:
        _, provider, *_ = litellm.get_llm_provider(model=model)
    except litellm.BadRequestError:
        return False  # nobody knows the model: so will the call say
    return provider in OPENAI_LIKE


def rehearse(specs: Iterable[UpstreamSpec]) -> dict[str, str]:
    """Have the library import what it only imports when it is asked, without a network: seconds, so off the loop.

    Returns the upstreams that it could not even begin to ask, each with the name of what was raised: a key is missing,
    or a package, or nobody knows the model.
    """
    return asyncio.run(_rehearse(list(specs)))


async def _rehearse(specs: list[UpstreamSpec]) -> dict[str, str]:
    unready = {}
    for spec in specs:
        for stream in (True, False):
            arguments = {**_settings_of(spec), "messages": [{"role": "user", "content": "hi"}], "stream": stream}
            arguments["model"] = spec.model or USUAL_MODEL
            if spec.model is None:
                arguments["api_key"] = "none"
            wire = Wire(Nowhere(spec.name), _rehearsal(stream))
            asking = asyncio.get_running_loop().create_task(litellm.acompletion(**arguments), context=context_of(wire))
            await asyncio.wait({asking})
            exc = asking.exception()
            if exc is not None and wire.status is None:
                unready[spec.name] = type(exc).__name__
    return unready


def _rehearsal(stream: bool) -> UpstreamRequest:
    return UpstreamRequest(Operation.CHAT, "", b"", stream, (), "rehearsal", 0.0)


def _settings_of(spec: UpstreamSpec) -> dict[str, Any]:
    """What the library is told with every request."""
    return {
        "api_key": spec.api_key,
        "api_base": spec.api_base,
        "mock_response": spec.mock_response,
        "timeout": LONG_S,
        "max_retries": 0,
        "num_retries": 0,
    }
