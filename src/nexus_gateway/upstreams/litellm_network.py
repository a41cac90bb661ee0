"""The connections below LiteLLM, of one upstream.

For:      requests that go out as those of any upstream do: its certificates, its proxy, no redirects.
Touches:  one pool of connections, made and closed on the running loop.
"""

import ssl
from typing import Final, Protocol

import httpx

from nexus_gateway.config.runtime import Timeouts, UpstreamSpec

from .base import PASSED_HEADERS
from .tunnel import authority

IDLE_S: Final = 50.0  # that a connection is kept for the next request; many load balancers close after 60

_BODY_HEADERS: Final = frozenset({b"content-type", b"accept"})  # whoever writes the body sets these


class Connections(Protocol):
    """Where an attempt's requests go out. `forwarded`: headers of the caller that travel on."""

    name: str
    forwarded: frozenset[bytes]
    max_answer_bytes: int

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """The head of an answer. Raises httpx.HTTPError."""
        ...


class Network:
    """The connections of one upstream. No redirects, no encodings, and no proxy but a configured one."""

    def __init__(self, spec: UpstreamSpec, timeouts: Timeouts, max_answer_bytes: int) -> None:
        self.name = spec.name
        self.max_answer_bytes = max_answer_bytes
        self.forwarded = (PASSED_HEADERS - _BODY_HEADERS) | {name.encode() for name in spec.forward_headers}
        self.timeouts = {"connect": timeouts.connect_s, "read": None, "write": None, "pool": None}
        self._transport = httpx.AsyncHTTPTransport(
            verify=_tls(spec),
            trust_env=False,
            proxy=_proxy(spec),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_S),
        )

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """The head of an answer. A kept connection that was closed just now is no failure: it is asked once more."""
        for is_again in (False, True):
            seen: list[str] = []

            async def trace(event: str, _: object, seen: list[str] = seen) -> None:
                seen.append(event)

            request.extensions = {**request.extensions, "timeout": self.timeouts, "trace": trace}
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if is_again or any(event.startswith("connection.") for event in seen):
                    raise
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        await self._transport.aclose()


class Nowhere:
    """Where everybody is refused and nothing goes out, for rehearsals."""

    forwarded: frozenset[bytes] = frozenset()
    max_answer_bytes = 1 << 20

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"error": {"message": "This is a rehearsal."}})


def _tls(spec: UpstreamSpec) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=spec.ca_file)
    if spec.cert_file is not None:
        context.load_cert_chain(spec.cert_file, spec.key_file)
    return context


def _proxy(spec: UpstreamSpec) -> httpx.Proxy | None:
    if spec.proxy is None:
        return None
    shown = {} if spec.proxy.authorization is None else {"proxy-authorization": spec.proxy.authorization}
    return httpx.Proxy(f"http://{authority(spec.proxy.host, spec.proxy.port)}", headers=shown)
