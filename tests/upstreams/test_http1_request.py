"""What goes out: one well-formed request, and nothing of the caller's but what is allowed."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway import __version__
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.base import UpstreamRequest
from tests.support.raw_server import RawRequest, RawServer, answering, plain
from tests.support.upstream_calls import ask, http_upstream, relay, request

pytestmark = pytest.mark.anyio

CALLERS_OWN = [
    (b"host", b"gateway.example"),
    (b"authorization", b"Bearer caller"),
    (b"x-api-key", b"caller"),
    (b"api-key", b"caller"),
    (b"cookie", b"caller=1"),
    (b"proxy-authorization", b"Basic caller"),
    (b"connection", b"keep-alive, x-secret"),
    (b"transfer-encoding", b"chunked"),
    (b"content-length", b"999"),
    (b"content-encoding", b"gzip"),
    (b"accept-encoding", b"gzip, br"),
    (b"content-type", b"application/json; charset=utf-8"),
    (b"expect", b"100-continue"),
    (b"te", b"trailers"),
    (b"upgrade", b"websocket"),
    (b"x-request-id", b"the-callers"),
    (b"x-forwarded-for", b"10.0.0.1"),
    (b"x-secret", b"1"),
]


async def sent(headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b"{}", **spec: Any) -> RawRequest:
    """What an upstream receives of a request."""
    async with relay(answering(plain()), **spec) as (server, upstream):
        await ask(upstream, headers=headers, body=body)
        return server.peers[0].requests[0]


async def test_without_headers_of_the_callers_this_is_all() -> None:
    got = await sent(body=b'{"model":"m"}')
    assert (got.method, got.target, got.body) == ("POST", "/v1/chat/completions", b'{"model":"m"}')
    assert got.headers["host"].startswith("127.0.0.1:")
    assert {name: value for name, value in got.headers.items() if name != "host"} == {
        "content-type": "application/json",
        "content-length": "13",
        "accept-encoding": "identity",
        "user-agent": f"nexus-gateway/{__version__}",
        "x-request-id": "req-1",
    }


async def test_the_upstreams_own_key_is_the_only_credential() -> None:
    got = await sent(CALLERS_OWN, api_key="sk-upstream")
    assert got.headers["authorization"] == "Bearer sk-upstream"
    assert "caller" not in str(got.headers)


@pytest.mark.parametrize("forwarded", [frozenset(), frozenset(name.decode() for name, _ in CALLERS_OWN) - {"x-secret"}])
async def test_what_is_not_allowed_does_not_travel_whatever_is_configured(forwarded: frozenset[str]) -> None:
    got = await sent(CALLERS_OWN, forward_headers=forwarded)
    allowed = {"host", "content-type", "content-length", "accept-encoding", "user-agent", "x-request-id"}
    assert got.headers.keys() - allowed == forwarded & {"x-forwarded-for"}
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-id"] == "req-1"


async def test_what_is_allowed_travels_as_it_is() -> None:
    allowed = [
        (b"accept", b"text/event-stream"),
        (b"user-agent", b"OpenAI/Python 1.0"),
        (b"openai-beta", b"assistants=v2"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b"vendor=\xe9"),
        (b"x-tenant", b"blue"),
    ]
    got = await sent(allowed, forward_headers=frozenset({"x-tenant"}))
    for name, value in allowed:
        assert got.headers[name.decode()].encode("latin-1") == value


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\0"])
async def test_a_value_that_would_begin_a_new_line_is_dropped(end: bytes) -> None:
    got = await sent([(b"accept", b"a" + end + b"x-injected: 1")])
    assert "accept" not in got.headers
    assert "x-injected" not in got.headers


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 10 << 20])
async def test_a_body_arrives_whole_whatever_its_size(size: int) -> None:
    assert (await sent(body=b"\xff" * size)).body == b"\xff" * size


@pytest.mark.parametrize("base_path", ["", "/v1", "/some/prefix/v1"])
@pytest.mark.parametrize("operation", Operation)
async def test_the_path_is_the_configured_one_and_the_operation(base_path: str, operation: Operation) -> None:
    async with relay(answering(plain()), base_path=base_path) as (server, upstream):
        call = request()
        await upstream.send(
            UpstreamRequest(
                operation, call.model, call.body, call.stream, call.headers, call.request_id, call.deadline_s
            )
        )
        assert server.peers[0].requests[0].target == base_path + operation.value


async def test_an_ipv6_literal() -> None:
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(RawServer(answering(plain()), host="::1"))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        upstream = await stack.enter_async_context(http_upstream(server.port, host="::1"))
        await ask(upstream)
        assert server.peers[0].requests[0].headers["host"] == f"[::1]:{server.port}"


async def test_the_traits_are_the_configured_ones() -> None:
    async with http_upstream(1, model="meta/llama", timeout_s=3.0, max_concurrency=4, stream_usage=False) as upstream:
        assert upstream.name == "east"
        traits = upstream.traits
        assert (traits.model, traits.timeout_s, traits.max_concurrency) == ("meta/llama", 3.0, 4)
        assert not traits.stream_usage


@given(
    st.lists(
        st.tuples(st.sampled_from([b"accept", b"x-tenant", b"tracestate", b"cookie"]), st.binary(max_size=20)),
        max_size=6,
    ),
    st.binary(max_size=50),
)
def test_no_header_and_no_body_ever_begins_a_second_request(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    async def exchange() -> None:
        async with RawServer(answering(plain())) as server:
            async with http_upstream(server.port, forward_headers=frozenset({"x-tenant"})) as upstream:
                await ask(upstream, headers=headers, body=body)
            assert [got.body for peer in server.peers for got in peer.requests] == [body]
            assert "cookie" not in server.peers[0].requests[0].headers

    asyncio.run(exchange())
