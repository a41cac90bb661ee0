"""The adapter for OpenAI-compatible servers, over http and https.

For:      writing the request of an attempt; the rest is the pool's and the connection's.
Touches:  its pool of connections.
"""

import ssl
from typing import Final

from nexus_gateway import __version__
from nexus_gateway.config.runtime import Timeouts, UpstreamSpec
from nexus_gateway.core.errors import UpstreamUnavailable
from nexus_gateway.core.model import Operation
from nexus_gateway.core.outbox import Outbox

from .base import PASSED_HEADERS, Traits, UpstreamRequest, select_headers
from .http1 import HttpReply, StaleConnection
from .pool import ConnectionPool

CHECK_BYTES: Final = 64 << 10  # of the answer to a check: nobody reads it
JOINED_BYTES: Final = 48 << 10  # up to here copying a body behind its head costs less than two pieces; and it is held
CR, LF, NUL = b"\r\n\0"  # as integers: looking one up in bytes takes a seventh of the time of a bytes object
USER_AGENT: Final = f"user-agent: nexus-gateway/{__version__}\r\n".encode("ascii")

_NEVER_PASSED: Final = frozenset(
    (
        *(
            b"content-type",
            b"content-length",
            b"content-encoding",
            b"accept-encoding",
            b"host",
            b"x-request-id",
        ),  # ours
        *(b"authorization", b"x-api-key", b"api-key", b"cookie", b"proxy-authorization"),  # the caller's credentials
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),  # of one hop
    )
)
"""Whatever `forward_headers=` says: these would break the framing, name another caller, or give a credential away."""


class HttpUpstream:
    """One configured server. Made and closed on the running loop. Implements `base.Upstream`."""

    def __init__(
        self,
        spec: UpstreamSpec,
        timeouts: Timeouts,
        *,
        max_answer_bytes: int = 128 << 20,
        answers: Outbox | None = None,
    ) -> None:
        self.name = spec.name
        self.traits = Traits(spec.model, spec.stream_usage, spec.timeout_s, spec.max_concurrency, spec.mask)
        self._max_answer_bytes = max_answer_bytes
        self._passed = (PASSED_HEADERS | {name.encode() for name in spec.forward_headers}) - _NEVER_PASSED
        self._heads = {operation: _head(spec, operation) for operation in Operation}
        self._check = _check_request(spec)
        self._pool = ConnectionPool(
            spec.name,
            spec.host.strip("[]"),
            spec.port,
            tls=_tls(spec) if spec.kind == "https" else None,
            connect_timeout_s=timeouts.connect_s,
            proxy=spec.proxy,
            answers=answers,
        )

    @property
    def open_connections(self) -> int:
        return self._pool.open_connections

    @property
    def free_connections(self) -> int:
        """Those of the open ones that wait for a request."""
        return self._pool.free_connections

    async def send(self, request: UpstreamRequest) -> HttpReply:
        wire = self._write(request)
        limit_bytes = None if request.stream else self._max_answer_bytes
        connection = self._pool.take()
        if connection is not None:
            try:
                return await connection.exchange(wire, request.deadline_s, limit_bytes=limit_bytes)
            except StaleConnection:
                pass  # nothing was answered, so nothing is lost by asking once more
        connection = await self._pool.connect(request.deadline_s)
        return await connection.exchange(wire, request.deadline_s, limit_bytes=limit_bytes)

    async def check(self, deadline_s: float) -> None:
        if self._check is None:
            return
        connection = await self._pool.connect(deadline_s)
        reply = await connection.exchange([self._check], deadline_s, limit_bytes=CHECK_BYTES)
        await reply.aclose()
        if not 200 <= reply.status < 300:
            what = f"Upstream '{self.name}' answered its check with HTTP {reply.status}."
            raise UpstreamUnavailable(what, upstream=self.name, status=reply.status)

    async def aclose(self) -> None:
        self._pool.aclose()

    def _write(self, request: UpstreamRequest) -> list[bytes]:
        """The request as it goes over the wire, in pieces to be written together."""
        agent, passed = USER_AGENT, b""
        for name, value in select_headers(request.headers, self._passed):
            if LF in value or CR in value or NUL in value:
                continue  # a server refuses these; whoever calls us otherwise must not add a header by one
            if name == b"user-agent":
                agent = b""
            passed += b"%b: %b\r\n" % (name, value)
        body = request.body
        ours = b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (request.request_id.encode(), len(body))
        head = b"".join((self._heads[request.operation], passed, agent, ours))
        return [head + body] if len(body) <= JOINED_BYTES else [head, body]


def _check_request(spec: UpstreamSpec) -> bytes | None:
    """The request that asks the server how it is. Without the credential: who it is asked for is nobody's business."""
    if spec.health_path is None:
        return None
    origin, credential = _for_proxy(spec)
    agent = USER_AGENT.decode("ascii")
    head = f"GET {origin}{spec.health_path} HTTP/1.1\r\nhost: {_authority(spec)}\r\n{credential}{agent}\r\n"
    return head.encode("ascii")


def _authority(spec: UpstreamSpec) -> str:
    host = f"[{spec.host}]" if ":" in spec.host and not spec.host.startswith("[") else spec.host
    return host if spec.port == {"http": 80, "https": 443}[spec.kind] else f"{host}:{spec.port}"


def _head(spec: UpstreamSpec, operation: Operation) -> bytes:
    """All that is the same for every request of an operation."""
    origin, for_proxy = _for_proxy(spec)
    credential = f"authorization: Bearer {spec.api_key}\r\n" if spec.api_key is not None else ""
    return (
        f"POST {origin}{spec.base_path}{operation.value} HTTP/1.1\r\nhost: {_authority(spec)}\r\n"
        f"{for_proxy}{credential}content-type: application/json\r\naccept-encoding: identity\r\n"
    ).encode()


def _for_proxy(spec: UpstreamSpec) -> tuple[str, str]:
    """What a proxy that reads the request has to find in it: the origin, and a header field with our credential."""
    if spec.proxy is None or spec.kind == "https":
        return "", ""
    told = spec.proxy.authorization
    return f"http://{_authority(spec)}", "" if told is None else f"proxy-authorization: {told}\r\n"


def _tls(spec: UpstreamSpec) -> ssl.SSLContext:
    """Verifies names and certificates, by the system's authorities or by `ca_file` alone. Shows our own, if any."""
    context = ssl.create_default_context(cafile=spec.ca_file)
    if spec.cert_file is not None:
        context.load_cert_chain(spec.cert_file, spec.key_file)
    context.set_alpn_protocols(["http/1.1"])
    return context
