"""What a caller of the relay sees of an upstream that misbehaves, over real sockets."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamDnsError,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamTimeout,
    UpstreamTruncated,
)
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, Script, answering, chunk, deaf_port, plain
from tests.support.upstream_calls import ask, http_upstream, relay, request

pytestmark = pytest.mark.anyio

SHORT_S = 0.1  # a timeout that is meant to pass
OK = b"HTTP/1.1 200 OK\r\n"


def saying(*pieces: bytes) -> Script:
    """Sends the pieces, each in its own turn of the loop, and closes."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(0)

    return script


def saying_and_staying(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await saying(*pieces)(peer)
        await peer.closed.wait()

    return script


def resetting_after(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await saying(*pieces)(peer)
        peer.reset()

    return script


async def trickling_head(peer: Peer) -> None:
    await peer.receive()
    await peer.send(OK)
    while not peer.closed.is_set():
        await peer.send(b"x: y\r\n")
        await asyncio.sleep(SHORT_S / 20)


async def flooding(peer: Peer, begin: bytes, piece: bytes) -> None:
    await peer.receive()
    await peer.send(begin)
    while peer.written_bytes < 1 << 30:
        await peer.send(piece)


# ---- no answer


async def test_a_refused_connection_is_known_at_once() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can have it
        async with asyncio.timeout(0.05), http_upstream(bound.getsockname()[1]) as upstream:
            with pytest.raises(UpstreamConnectError):
                await ask(upstream)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".invalid"])
async def test_an_unknown_name_is_a_dns_error(host: str) -> None:
    async with http_upstream(80, host=host) as upstream:
        with pytest.raises(UpstreamDnsError):
            await ask(upstream)


async def test_a_silent_network_ends_with_the_connect_timeout() -> None:
    with deaf_port() as port:
        async with http_upstream(port, connect_s=SHORT_S) as upstream:
            with pytest.raises(UpstreamConnectError):
                await ask(upstream)


async def test_the_deadline_holds_while_connecting() -> None:
    with deaf_port() as port:
        async with http_upstream(port) as upstream:
            with pytest.raises(UpstreamTimeout):
                await ask(upstream, within_s=SHORT_S)


async def test_giving_up_while_connecting_leaves_nothing() -> None:
    with deaf_port() as port:
        async with http_upstream(port) as upstream:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_S):
                    await ask(upstream)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "script",
    [
        saying_and_staying(),
        saying_and_staying(OK),
        saying_and_staying(b"HTTP/1.1 100 Continue\r\n\r\n"),
        trickling_head,
    ],
    ids=["nothing", "half a head", "only an interim answer", "a head that trickles"],
)
async def test_no_head_in_time_is_a_timeout_and_closes(script: Script, *, stream: bool) -> None:
    async with relay(script) as (server, upstream):
        with pytest.raises(UpstreamTimeout):
            await ask(upstream, stream=stream, within_s=SHORT_S)
        await server.peers[0].closed.wait()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("script", [saying(), resetting_after()], ids=["closed", "reset"])
async def test_a_fresh_connection_lost_before_the_answer_is_not_tried_again(script: Script, *, stream: bool) -> None:
    async with relay(script) as (server, upstream):
        with pytest.raises(UpstreamConnectError):
            await ask(upstream, stream=stream)
        assert len(server.peers) == 1


# ---- half an answer


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("begin", [b"H", OK + b"content-le", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("end", [saying, resetting_after])
async def test_a_connection_lost_inside_the_head(begin: bytes, end: Callable[..., Script], *, stream: bool) -> None:
    async with relay(end(begin)) as (_, upstream):
        with pytest.raises(UpstreamTruncated):
            await upstream.send(request(stream=stream))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("begin", [plain(b"hello", status=503)[:-1], STREAM_HEAD.replace(b"200", b"503") + b"5\r\nhel"])
@pytest.mark.parametrize("end", [saying, resetting_after])
async def test_a_connection_lost_inside_the_body_leaves_the_status(
    begin: bytes, end: Callable[..., Script], *, stream: bool
) -> None:
    async with relay(end(begin)) as (_, upstream):
        reply = await upstream.send(request(stream=stream))
        assert reply.status == 503
        with pytest.raises(UpstreamTruncated):
            await reply.read_all(1000)
        await reply.aclose()


async def test_a_plain_body_that_stalls_times_out_and_leaves_the_status() -> None:
    async with relay(saying_and_staying(plain(status=429)[:-1])) as (server, upstream):
        reply = await upstream.send(request(within_s=SHORT_S))
        assert reply.status == 429
        with pytest.raises(UpstreamTimeout) as raised:
            await reply.read_all(1000)
        assert raised.value.status == 429
        await server.peers[0].closed.wait()


# ---- a wrong answer


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
        b"<html>hi</html>",
        plain(b"hi", b"content-encoding: gzip"),
        plain(b"hi", b"content-encoding: br"),
        plain(b"hi", b"content-encoding: zstd"),
        OK + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
        OK + b"x: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20 + plain(b"hi"),
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
    ids=lambda answer: answer[:40].decode(),
)
async def test_an_ambiguous_answer_is_refused_and_its_connection_closed(answer: bytes, *, stream: bool) -> None:
    async with relay(saying_and_staying(answer)) as (server, upstream):
        with pytest.raises(UpstreamInvalidResponse):
            await upstream.send(request(stream=stream))
        await server.peers[0].closed.wait()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_bad_chunk_inside_the_body(*, stream: bool) -> None:
    script = saying_and_staying(STREAM_HEAD + chunk(b"hello"), b"zz\r\nhello\r\n")
    async with relay(script) as (server, upstream):
        reply = await upstream.send(request(stream=stream))
        with pytest.raises(UpstreamInvalidResponse):
            await reply.read_all(1000)
        await server.peers[0].closed.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"hello") + LAST_CHUNK,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 16 + plain(b"hello", b"connection: close"),
        plain(b"hello") + b"HTTP/1.1 200 OK\r\n",
        plain(b"hello") + b"surplus",
    ],
    ids=["1.0", "1.0 to the end", "1.1 to the end", "close", "interim answers", "a second answer", "surplus bytes"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_odd_answer_is_delivered_and_its_connection_not_used_again(answer: bytes, *, stream: bool) -> None:
    async with relay(saying(answer)) as (server, upstream):
        assert await ask(upstream, stream=stream) == b"hello"
        assert await ask(upstream, stream=stream) == b"hello"
        assert len(server.peers) == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body(status: int) -> None:
    answer = b"HTTP/1.1 %d Nothing\r\n\r\n" % status
    async with relay(answering(answer)) as (server, upstream):
        assert await ask(upstream) == b""
        assert await ask(upstream, stream=True) == b""
        assert len(server.peers) == 1


@pytest.mark.parametrize("status", [302, 307, 308])
async def test_a_redirect_is_an_answer_and_not_followed(status: int) -> None:
    elsewhere = plain(b"moved", b"location: http://127.0.0.1:1/", status=status)
    async with relay(answering(elsewhere)) as (server, upstream):
        reply = await upstream.send(request())
        assert (reply.status, await reply.read_all(10)) == (status, b"moved")
        assert len(server.peers[0].requests) == 1


# ---- too much of an answer


@pytest.mark.parametrize("begin", [OK + b"content-length: 1073741824\r\n\r\n", STREAM_HEAD, OK + b"\r\n"])
@pytest.mark.parametrize("piece", [chunk(b"x" * 60_000), chunk(b"x") * 10_000], ids=["large", "tiny"])
async def test_a_huge_plain_answer_is_refused_with_bounded_memory(begin: bytes, piece: bytes) -> None:
    async def script(peer: Peer) -> None:
        await flooding(peer, begin, piece)

    async with relay(script, max_answer_bytes=1 << 20) as (server, upstream):
        with pytest.raises(UpstreamInvalidResponse):
            await ask(upstream)
        await server.peers[0].closed.wait()
        assert server.peers[0].written_bytes < 32 << 20  # most of it in the kernel's buffers


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_reader_may_ask_for_less_than_the_relay_takes(*, stream: bool) -> None:
    async with relay(answering(plain(b"x" * 1000))) as (_, upstream):
        assert len(await ask(upstream, stream=stream, limit_bytes=1000)) == 1000
        with pytest.raises(UpstreamInvalidResponse):
            await ask(upstream, stream=stream, limit_bytes=999)


# ---- an early answer


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_an_answer_before_the_end_of_the_request_is_delivered(*, stream: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive_head()
        peer.pause()
        await peer.send(plain(b"too much", status=413))
        await answered.wait()
        peer.resume()
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        for number in range(2):
            answered = asyncio.Event()
            reply = await upstream.send(request(stream=stream, body=b"x" * (32 << 20)))
            assert (reply.status, await reply.read_all(100)) == (413, b"too much")
            await reply.aclose()
            answered.set()
            await server.peers[number].closed.wait()  # it is still inside a request, so never used again


# ---- what is said of it


@pytest.mark.parametrize(
    "script",
    [
        saying(),
        saying(OK),
        saying(b"<html>secret</html>"),
        saying_and_staying(plain(b"secret", b"content-encoding: x")),
    ],
)
async def test_errors_name_the_upstream_and_nothing_else(script: Script) -> None:
    async with relay(script, api_key="sk-secret") as (server, upstream):
        with pytest.raises(UpstreamError) as raised:
            await ask(upstream, within_s=SHORT_S)
    assert raised.value.upstream == "east"
    assert "'east'" in raised.value.message
    for told in (str(server.port), "127.0.0.1", "secret", "/v1"):
        assert told not in raised.value.message


async def test_closing_the_upstream_cuts_what_is_under_way_and_refuses_more() -> None:
    async with relay(saying_and_staying()) as (server, upstream):
        asking = asyncio.ensure_future(ask(upstream))
        await (await server.peer(0)).received.wait()
        await upstream.aclose()
        with pytest.raises(UpstreamError):
            await asking
        await server.peers[0].closed.wait()
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)
