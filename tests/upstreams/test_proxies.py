"""Upstreams behind an HTTP proxy: asked for, every byte goes through it; not asked for, none does."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
import trustme

from nexus_gateway.config.runtime import ProxySpec, Timeouts, UpstreamSpec
from nexus_gateway.core.answers import read_failure
from nexus_gateway.core.errors import UpstreamAuthError, UpstreamConnectError, UpstreamDnsError, UpstreamError
from nexus_gateway.upstreams.base import Upstream
from nexus_gateway.upstreams.grpc import GrpcUpstream
from nexus_gateway.upstreams.http import HttpUpstream
from tests.support.grpc_worker import grpc_worker
from tests.support.openai_server import openai_server
from tests.support.proxy import proxy
from tests.support.raw_server import Peer, RawServer
from tests.support.upstream_calls import ask, request

from .calls import now_s, read_stream

pytestmark = pytest.mark.anyio

KINDS = ["http", "https", "grpc", "grpcs"]
BEHIND = "model.internal"  # a name that only the proxy knows
CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}'
KNOWN = "Basic dXNlcjpwYSBzcw=="  # user:pa ss


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA) -> Iterator[str]:
    with authority.cert_pem.tempfile() as path:
        yield str(Path(path))


def adapter(spec: UpstreamSpec, connect_s: float = 5.0) -> Upstream:
    timeouts = Timeouts(connect_s=connect_s)
    return GrpcUpstream(spec, timeouts) if spec.kind.startswith("grpc") else HttpUpstream(spec, timeouts)


@asynccontextmanager
async def behind(kind: str, authority: trustme.CA, ca_file: str) -> AsyncIterator[UpstreamSpec]:
    """A model server that only BEHIND names, and how to configure it but for the proxy."""
    issued = authority.issue_cert(BEHIND)
    async with AsyncExitStack() as stack:
        if kind.startswith("grpc"):
            pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
            credentials = grpc.ssl_server_credentials([pair]) if kind == "grpcs" else None
            port = (await stack.enter_async_context(grpc_worker(credentials=credentials))).port
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            issued.configure_cert(context)
            tls = context if kind == "https" else None
            port = (await stack.enter_async_context(openai_server(tls=tls))).port
        base_path = "" if kind.startswith("grpc") else "/v1"
        known = ca_file if kind in ("https", "grpcs") else None
        yield UpstreamSpec("east", kind, BEHIND, port, base_path, ca_file=known, health_path="/health")


@asynccontextmanager
async def opened(spec: UpstreamSpec, **changes: Any) -> AsyncIterator[Upstream]:
    upstream = adapter(replace(spec, **changes))
    try:
        yield upstream
    finally:
        await upstream.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_and_streams_come_through_it(kind: str, authority: trustme.CA, ca_file: str) -> None:
    async with (
        behind(kind, authority, ca_file) as spec,
        proxy(wanted=KNOWN) as through,
        opened(spec, proxy=ProxySpec("127.0.0.1", through.port, KNOWN)) as upstream,
    ):
        assert msgspec.json.decode(await ask(upstream, body=CHAT))["object"] == "chat.completion"
        reply = await upstream.send(request(stream=True, body=STREAM))
        assert (await read_stream(reply))[-1] == b"[DONE]"
        await reply.aclose()
    (asked,) = through.requests  # one connection served both
    server = f"{BEHIND}:{spec.port}"
    if kind == "http":
        assert (asked.method, asked.target) == ("POST", f"http://{server}/v1/chat/completions")
    else:
        assert (asked.method, asked.target) == ("CONNECT", server)
    assert (asked.headers.get("host", server), asked.headers["proxy-authorization"]) == (server, KNOWN)


@pytest.mark.parametrize("kind", ["http", "https"])
async def test_checks_go_through_it_too(kind: str, authority: trustme.CA, ca_file: str) -> None:
    async with behind(kind, authority, ca_file) as spec, proxy(wanted=KNOWN) as through:
        async with opened(spec, proxy=ProxySpec("127.0.0.1", through.port, KNOWN)) as upstream:
            await upstream.check(now_s() + 2)
        async with opened(spec, proxy=ProxySpec("127.0.0.1", through.port)) as upstream:
            with pytest.raises(UpstreamError):
                await upstream.check(now_s() + 2)
    assert through.requests[0].target.startswith("http://" if kind == "http" else BEHIND)


@pytest.mark.parametrize("kind", KINDS)
async def test_variables_mean_nothing_unless_asked_for(
    kind: str, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind(kind, authority, ca_file) as spec, proxy() as through:
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{through.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{through.port}")
        async with opened(spec, host="127.0.0.1") as upstream:
            if spec.ca_file is not None:  # its certificate is for another name
                with pytest.raises(UpstreamConnectError):
                    await ask(upstream, body=CHAT)
            else:
                assert await ask(upstream, body=CHAT)
    assert not through.requests


@pytest.mark.parametrize("kind", KINDS)
async def test_a_proxy_that_is_named_is_used_whatever_the_variables_except(
    kind: str, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("no_grpc_proxy", "*")
    async with (
        behind(kind, authority, ca_file) as spec,
        proxy() as through,
        opened(spec, proxy=ProxySpec("127.0.0.1", through.port)) as upstream,
    ):
        assert await ask(upstream, body=CHAT)
    assert len(through.requests) == 1


@pytest.mark.parametrize("kind", ["https", "grpcs"])
async def test_what_is_behind_it_must_show_its_own_certificate(kind: str, authority: trustme.CA, ca_file: str) -> None:
    async with behind(kind, authority, ca_file) as spec, proxy() as through:
        named = ProxySpec("127.0.0.1", through.port)
        async with opened(spec, host="other.internal", proxy=named) as upstream:
            with pytest.raises(UpstreamConnectError):
                await ask(upstream, body=CHAT)


async def test_a_proxy_that_wants_a_credential_is_told_apart(authority: trustme.CA, ca_file: str) -> None:
    async with behind("https", authority, ca_file) as spec, proxy(wanted=KNOWN) as through:
        async with opened(spec, proxy=ProxySpec("127.0.0.1", through.port)) as upstream:
            with pytest.raises(UpstreamAuthError, match="proxy of upstream 'east'"):
                await ask(upstream, body=CHAT)
        async with opened(spec, kind="http", proxy=ProxySpec("127.0.0.1", through.port)) as upstream:
            reply = await upstream.send(request(body=CHAT))
            await reply.aclose()
        async with opened(spec, kind="grpcs", proxy=ProxySpec("127.0.0.1", through.port)) as upstream:
            with pytest.raises(UpstreamConnectError):
                await ask(upstream, body=CHAT)
    assert reply.status == 407
    failure = read_failure("east", reply.status, {}, b"", own_name=True, now_unix_s=0.0)
    assert isinstance(failure, UpstreamAuthError), "not the caller's fault"


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nand a surplus",
        b"HTTP/2 200\r\n\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 20_000,
    ],
)
async def test_whatever_else_it_says_is_no_connection(says: bytes, authority: trustme.CA, ca_file: str) -> None:
    async with (
        behind("https", authority, ca_file) as spec,
        proxy(says=says) as through,
        opened(spec, proxy=ProxySpec("127.0.0.1", through.port)) as upstream,
    ):
        with pytest.raises(UpstreamConnectError):
            await ask(upstream, body=CHAT)
        assert not through.requests[0].headers.keys() - {"host"}, "no word of the request itself"


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_proxy_that_stalls_ends_with_the_connect_timeout(begins: bytes, ca_file: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(begins)
        await peer.closed.wait()

    async with RawServer(script) as server:
        spec = UpstreamSpec("east", "https", BEHIND, 443, "/v1", proxy=ProxySpec("127.0.0.1", server.port))
        upstream = adapter(spec, connect_s=0.1)
        with pytest.raises(UpstreamConnectError):
            await ask(upstream, body=CHAT)
        await server.all_closed()
        await upstream.aclose()


async def test_a_proxy_that_hangs_up(ca_file: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()

    async with RawServer(script) as server:
        spec = UpstreamSpec("east", "https", BEHIND, 443, "/v1", proxy=ProxySpec("127.0.0.1", server.port))
        async with opened(spec) as upstream:
            with pytest.raises(UpstreamConnectError):
                await ask(upstream, body=CHAT)


async def test_a_proxy_that_does_not_resolve_is_named() -> None:
    spec = UpstreamSpec("east", "http", "127.0.0.1", 80, "/v1", proxy=ProxySpec("no-such-host.invalid", 3128))
    async with opened(spec) as upstream:
        with pytest.raises(UpstreamDnsError, match="proxy of upstream"):
            await ask(upstream, body=CHAT)
