"""The adapter for workers that speak nexus.worker.v1 over gRPC.

For:      writing the call of an attempt, and turning its answer into OpenAI-shaped bytes.
Touches:  its one channel, which connects by itself. Imported only where such an upstream is configured.
"""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from grpc import StatusCode
from grpc.aio import EOF, AioRpcError, Channel, UnaryStreamCall, UnaryStreamMultiCallable, UnaryUnaryMultiCallable
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from nexus_gateway import __version__
from nexus_gateway.config.runtime import Timeouts, UpstreamSpec
from nexus_gateway.core.errors import UpstreamInvalidResponse, UpstreamUnavailable
from nexus_gateway.core.model import Operation

from .base import Reply, Traits, UpstreamRequest
from .grpc_call import RunningCall, StreamReply, parsed, refusal
from .grpc_status import body_of, error_body, error_status, failure_of, headers_of
from .replies import WholeReply, closed, late, truncated
from .tunnel import authority
from .worker_v1.worker_pb2 import (
    OPERATION_CHAT,
    OPERATION_COMPLETIONS,
    OPERATION_EMBEDDINGS,
    ChatRequest,
    ChatResponse,
    ChatStreamRequest,
    ChatStreamResponse,
)

SERVICE: Final = "/nexus.worker.v1.WorkerService"
HEALTH: Final = "/grpc.health.v1.Health/Check"
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream; charset=utf-8"
TRACE: Final = frozenset({b"traceparent", b"tracestate"})
KEEPALIVE_MS: Final = 330_000
"""Between two pings of a connection that brings nothing. Servers take one in five minutes of silent calls, as is gRPC's
own default, and cut the connection of whoever sends more, with every call on it: a first token may take that long. A
peer that vanished is noticed sooner, by the deadlines of whoever waits and by TCP where something was sent."""

RECONNECT_MS: Final = 2_000  # at most between two attempts to connect: the breaker spares a server that is down

_OPERATIONS: Final = {
    Operation.CHAT: OPERATION_CHAT,
    Operation.COMPLETIONS: OPERATION_COMPLETIONS,
    Operation.EMBEDDINGS: OPERATION_EMBEDDINGS,
}


class GrpcUpstream:
    """One configured worker. Made and closed on the running loop. Implements `base.Upstream`."""

    def __init__(self, spec: UpstreamSpec, timeouts: Timeouts, *, max_answer_bytes: int = 128 << 20) -> None:
        self.name = spec.name
        self.traits = Traits(spec.model, spec.stream_usage, spec.timeout_s, spec.max_concurrency, spec.mask)
        self._stream_max_s = timeouts.stream_max_s
        self._channel = _open(spec, timeouts.connect_s, max_answer_bytes)
        self._chat: UnaryUnaryMultiCallable[ChatRequest, bytes]
        self._chat = self._channel.unary_unary(f"{SERVICE}/Chat", ChatRequest.SerializeToString)
        self._chat_stream: UnaryStreamMultiCallable[ChatStreamRequest, Any]
        self._chat_stream = self._channel.unary_stream(f"{SERVICE}/ChatStream", ChatStreamRequest.SerializeToString)
        self._health = self._channel.unary_unary(
            HEALTH, HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        self._under_way: set[RunningCall] = set()
        self._is_closed = False

    async def send(self, request: UpstreamRequest) -> Reply:
        left_s = request.deadline_s - asyncio.get_running_loop().time()
        if self._is_closed:
            raise closed(self.name)
        if left_s <= 0:
            raise late(self.name)
        return await (self._stream(request, left_s) if request.stream else self._ask(request, left_s))

    async def check(self, deadline_s: float) -> None:
        """By the standard health protocol. A worker that does not speak it has nothing to say."""
        if self._is_closed:
            raise closed(self.name)
        left_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
        call = self._health(HealthCheckRequest(), timeout=left_s)
        try:
            answer = await RunningCall(call, self.name, self._under_way).wait(call, deadline_s)
        except AioRpcError as exc:
            if exc.code() is StatusCode.UNIMPLEMENTED:
                return
            raise failure_of(exc, self.name, answered=False) or self._unwell() from exc
        if answer.status != HealthCheckResponse.SERVING:
            raise self._unwell()

    async def aclose(self) -> None:
        self._is_closed = True
        under_way = tuple(self._under_way)
        for running in under_way:
            running.give_up(closed)
        await asyncio.gather(*(running.over() for running in under_way))  # the library may outlive this loop
        await self._channel.close()

    async def _ask(self, request: UpstreamRequest, left_s: float) -> Reply:
        message = ChatRequest(
            request_id=request.request_id,
            model=request.model,
            operation=_OPERATIONS[request.operation],
            body=request.body,
        )
        call = self._chat(message, timeout=left_s, metadata=_metadata(request))
        running = RunningCall(call, self.name, self._under_way)
        try:
            raw = await running.wait(call, request.deadline_s)
        except AioRpcError as exc:
            return self._refused(exc)
        answer = parsed(ChatResponse, raw, self.name)
        headers = headers_of(await call.initial_metadata(), JSON)
        if answer.HasField("error"):
            return WholeReply(self.name, error_status(answer.error), headers, error_body(answer.error))
        return WholeReply(self.name, 200, headers, body_of(answer, self.name))

    async def _stream(self, request: UpstreamRequest, left_s: float) -> Reply:
        """The head is known with the first message: only that tells an answer from a refusal."""
        message = ChatStreamRequest(
            request_id=request.request_id,
            model=request.model,
            operation=_OPERATIONS[request.operation],
            body=request.body,
        )
        metadata = (*_metadata(request), ("nexus-first-event-timeout-ms", str(round(left_s * 1000))))
        timeout_s = None if self._stream_max_s is None else left_s + self._stream_max_s
        call = self._chat_stream(message, timeout=timeout_s, metadata=metadata)
        running = RunningCall(call, self.name, self._under_way)
        try:
            return await self._begin(call, running, request.deadline_s)
        except UpstreamInvalidResponse:
            running.give_up(truncated)
            raise

    async def _begin(self, call: "UnaryStreamCall[Any, Any]", running: RunningCall, deadline_s: float) -> Reply:
        try:
            raw: Any = await running.wait(call.read(), deadline_s)
        except AioRpcError as exc:
            failure = failure_of(exc, self.name, answered=False)
            began = exc.initial_metadata()
            if exc.code() is StatusCode.UNAVAILABLE and began:
                return StreamReply(self.name, call, running, headers_of(began, EVENTS), None, deadline_s)
            return self._refused(exc, failure)
        headers = headers_of(await call.initial_metadata(), EVENTS)
        if raw is EOF:
            return WholeReply(self.name, 200, headers, b"")
        first = parsed(ChatStreamResponse, raw, self.name)
        if first.HasField("error"):
            running.give_up(truncated)
            headers["content-type"] = JSON
            return WholeReply(self.name, error_status(first.error), headers, error_body(first.error))
        return StreamReply(self.name, call, running, headers, first, deadline_s)

    def _refused(self, exc: AioRpcError, failure: Any = None) -> Reply:
        failure = failure or failure_of(exc, self.name, answered=False)
        if failure is not None:
            raise failure from exc
        told = (*exc.initial_metadata(), *exc.trailing_metadata())
        return refusal(self.name, exc, headers_of(told, JSON))

    def _unwell(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(f"Upstream '{self.name}' does not call itself well.", upstream=self.name)


def _metadata(request: UpstreamRequest) -> Sequence[tuple[str, str]]:
    """The request's id and the trace it belongs to, never a credential."""
    told = [("x-request-id", request.request_id)]
    for name, value in request.headers:
        if name in TRACE and value.isascii() and (text := value.decode("ascii")).isprintable():
            told.append((name.decode("ascii"), text))
    return told


def _open(spec: UpstreamSpec, connect_s: float, max_answer_bytes: int) -> Channel:
    options = [
        ("grpc.max_receive_message_length", max_answer_bytes),
        ("grpc.max_send_message_length", -1),  # a body is bounded where it comes in
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.min_reconnect_backoff_ms", max(1, round(connect_s * 1000))),  # how long one attempt to connect may take
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.service_config_disable_resolution", 1),  # retries are the gateway's, not of a TXT record
        ("grpc.enable_http_proxy", 0),  # by the environment
        ("grpc.use_local_subchannel_pool", 1),  # one connection per upstream, whatever else has the same address
        ("grpc.primary_user_agent", f"nexus-gateway/{__version__}"),
    ]
    server = near = authority(spec.host, spec.port)
    if spec.proxy is not None:
        near = authority(spec.proxy.host, spec.proxy.port)
        options += [("grpc.http_connect_server", server), ("grpc.default_authority", server)]
        if spec.proxy.authorization is not None:
            options.append(("grpc.http_connect_headers", f"proxy-authorization:{spec.proxy.authorization}"))
    if spec.kind == "grpcs":
        return grpc.aio.secure_channel(f"dns:///{near}", _credentials(spec), options)
    return grpc.aio.insecure_channel(f"dns:///{near}", options)


def _credentials(spec: UpstreamSpec) -> grpc.ChannelCredentials:
    if spec.cert_file is None:
        return grpc.ssl_channel_credentials(_authorities(spec))
    certificate = Path(spec.cert_file).read_bytes()
    key = certificate if spec.key_file is None else Path(spec.key_file).read_bytes()
    return grpc.ssl_channel_credentials(_authorities(spec), key, certificate)


def _authorities(spec: UpstreamSpec) -> bytes | None:
    """`ca_file` alone, or the system's; None, where it has none, means those that the library brings."""
    path = spec.ca_file or ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path is not None else None
