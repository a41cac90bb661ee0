"""Kept connections: used again when that is safe, replaced when it is not, and never one caller's answer to another."""

import asyncio
import random
from typing import Final

import pytest

from nexus_gateway.core.errors import UpstreamConnectError, UpstreamTruncated
from nexus_gateway.upstreams.http import JOINED_BYTES, HttpUpstream
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, answering, chunk, plain
from tests.support.upstream_calls import ask, relay, request, until

pytestmark = pytest.mark.anyio

CALLERS: Final = 64
CALLS_EACH: Final = 100


async def test_one_caller_needs_one_connection() -> None:
    async with relay(answering(plain(b"one"), STREAM_HEAD + chunk(b"two") + LAST_CHUNK)) as (server, upstream):
        assert await ask(upstream) == b"one"
        for _ in range(5):
            assert await ask(upstream, stream=True) == b"two"
        assert [len(peer.requests) for peer in server.peers] == [6]


async def test_the_connection_used_last_is_used_first() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await release.wait()
        await peer.send(plain())
        await answering(plain())(peer)

    async with relay(script) as (server, upstream):
        together = asyncio.gather(*(ask(upstream) for _ in range(3)))
        await (await server.peer(2)).received.wait()
        release.set()
        await together
        for _ in range(5):
            await ask(upstream)
        assert sorted(len(peer.requests) for peer in server.peers) == [1, 1, 6]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_connection_closed_as_it_is_used_again_is_replaced_once(how: str, *, stream: bool) -> None:
    async def script(peer: Peer) -> None:
        if server.peers[0] is not peer:
            await answering(plain(b"fresh"))(peer)
        await peer.receive()
        await peer.send(plain(b"first"))
        await peer.receive()  # the next request has come when we go away: the client could not have known
        getattr(peer, how)()

    async with relay(script) as (server, upstream):
        assert await ask(upstream, stream=stream) == b"first"
        assert await ask(upstream, stream=stream) == b"fresh"
        assert [len(peer.requests) for peer in server.peers] == [2, 1]


async def test_it_is_replaced_only_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        if server.peers[0] is peer:
            await peer.send(plain(b"first"))
            await peer.receive()

    async with relay(script) as (server, upstream):
        assert await ask(upstream) == b"first"
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)
        assert [len(peer.requests) for peer in server.peers] == [2, 1]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_nothing_is_sent_twice_once_an_answer_began(*, stream: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(plain(b"first"))
        await peer.receive()
        await peer.send(b"H")

    async with relay(script) as (server, upstream):
        assert await ask(upstream, stream=stream) == b"first"
        with pytest.raises(UpstreamTruncated):
            await ask(upstream, stream=stream)
        assert [len(peer.requests) for peer in server.peers] == [2]


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n", b"\r\n"])
async def test_an_idle_connection_that_is_closed_or_speaks_is_dropped(farewell: bytes) -> None:
    said_goodbye = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(plain())
        await idle.wait()
        if farewell:
            await peer.send(farewell)
            await peer.closed.wait()  # the client's doing
        peer.close()
        said_goodbye.set()

    async with relay(script) as (server, upstream):
        idle = asyncio.Event()
        await ask(upstream)
        idle.set()
        await said_goodbye.wait()
        await until(lambda: upstream.free_connections == 0)
        await ask(upstream)
        assert [len(peer.requests) for peer in server.peers] == [1, 1]


UNASKED: Final = {
    "a farewell": b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "a farewell without an end": b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n",
    "an answer": plain(b"stray"),
    "a stream": STREAM_HEAD + chunk(b"stray") + LAST_CHUNK,
    "the begin of an answer": plain(b"stray")[:20],
    "a word in between": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a line end": b"\r\n",
    "no HTTP": b"\x15\x03\x01\x00\x02\x02\x28",
    "nothing": b"",
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("closes", [False, True], ids=["and waits", "and closes"])
@pytest.mark.parametrize("size_bytes", [3, JOINED_BYTES, 200_000])
@pytest.mark.parametrize("case", UNASKED)
async def test_what_comes_as_an_idle_connection_is_taken_answers_no_request(
    case: str, size_bytes: int, *, closes: bool, stream: bool
) -> None:
    """The request has not left yet. It is asked once, over a fresh connection, and the old one never hears of it."""

    async def script(peer: Peer) -> None:
        await answering(plain(b"first" if peer is server.peers[0] else b"fresh"))(peer)

    async with relay(script) as (server, upstream):
        assert await ask(upstream) == b"first"
        old = server.peers[0]
        heard = bytes(old.bytes_received)
        if not (UNASKED[case] or closes):
            return
        await old.send(UNASKED[case])  # is in the kernel when this returns, and the loop has not turned since
        if closes:
            old.close()
        body = b"1" * size_bytes
        assert await ask(upstream, stream=stream, body=body) == b"fresh"
        await old.closed.wait()
        assert old.bytes_received == heard
        assert [peer.requests[-1].body for peer in server.peers] == [b"{}", body]
        assert [len(peer.requests) for peer in server.peers] == [1, 1]
        assert (upstream.open_connections, upstream.free_connections) == (1, 1)


async def test_of_many_connections_that_speak_as_they_are_taken_none_answers() -> None:
    """One is taken by each request, and both go: a fresh connection is the last word."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await go.wait()
        await peer.send(plain(peer.requests[0].body))
        await answering(plain(b"again"))(peer)

    async with relay(script) as (server, upstream):
        asking = [asyncio.ensure_future(ask(upstream, body=b"%d" % number)) for number in range(40)]
        await (await server.peer(39)).received.wait()
        go.set()
        assert await asyncio.gather(*asking) == [b"%d" % number for number in range(40)]
        old = list(server.peers)
        for peer in old:
            await peer.send(UNASKED["an answer"])
        asking = [asyncio.ensure_future(ask(upstream, body=b"n%d" % number)) for number in range(40)]
        assert await asyncio.gather(*asking) == [b"n%d" % number for number in range(40)]
        assert [len(peer.requests) for peer in server.peers] == [1] * 80
        assert upstream.open_connections == upstream.free_connections == 40


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_who_gives_up_in_the_turn_in_which_it_asked_leaves_nothing_behind(*, stream: bool) -> None:
    async with relay(answering(plain(b"first"))) as (server, upstream):
        await ask(upstream)
        asking = asyncio.ensure_future(ask(upstream, stream=stream))
        await asyncio.sleep(0)
        assert (upstream.open_connections, upstream.free_connections) == (1, 0), "it has asked"
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert upstream.open_connections == 0
        await server.peers[0].closed.wait()
        assert await ask(upstream) == b"first"
        assert [len(peer.requests) for peer in server.peers][1:] == [1]


async def test_what_has_not_left_when_the_upstream_closes_never_leaves() -> None:
    async with relay(answering(plain(b"first"))) as (server, upstream):
        await ask(upstream)
        heard = bytes(server.peers[0].bytes_received)
        asking = asyncio.ensure_future(ask(upstream))
        await asyncio.sleep(0)
        await upstream.aclose()
        with pytest.raises(UpstreamTruncated):
            await asking
        await server.peers[0].closed.wait()
        assert server.peers[0].bytes_received == heard
        assert upstream.open_connections == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_caller_that_gives_up_closes_its_connection_at_once(begin: bytes, *, stream: bool) -> None:
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.receive()
        if begin:
            await peer.send(begin)
        begun.set()
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        asking = asyncio.ensure_future(ask(upstream, stream=stream))
        await begun.wait()
        asking.cancel()
        async with asyncio.timeout(0.25):
            await server.peers[0].closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert upstream.open_connections == 0


async def test_a_reader_that_gives_up_closes_its_connection_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(b"one"))
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        reply = await upstream.send(request(stream=True))
        until_s = asyncio.get_running_loop().time() + 2
        assert await reply.read(until_s) == b"one"
        reading = asyncio.ensure_future(reply.read(until_s))
        await asyncio.sleep(0)
        reading.cancel()
        async with asyncio.timeout(0.25):
            await server.peers[0].closed.wait()
        with pytest.raises(UpstreamTruncated):
            await reply.read(until_s)  # not an end


async def test_giving_up_after_the_answer_came_cuts_nothing() -> None:
    """Cancelled between the arrival of its answer and its own turn: the connection is not this caller's any more."""
    async with relay(answering(plain())) as (server, upstream):
        await ask(upstream)
        late = asyncio.ensure_future(ask(upstream))
        await until(lambda: upstream.free_connections == 0)
        await until(lambda: upstream.free_connections == 1)
        assert not late.done()
        late.cancel()
        assert await ask(upstream) == b'{"ok":true}'
        assert late.cancelled()
        assert len(server.peers) == 1


async def echo_tags(peer: Peer) -> None:
    """Answers with the request's own body, framed at random, after a random while."""
    dice = random.Random(len(peer.requests))
    while True:
        tag = (await peer.receive()).body
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            answer = plain(tag * 20)
        else:
            answer = STREAM_HEAD + b"".join(chunk(tag) for _ in range(20)) + LAST_CHUNK
        cut = dice.randrange(len(answer))
        await peer.send(answer[:cut])
        await asyncio.sleep(0)
        await peer.send(answer[cut:])
        if dice.random() < 0.02:
            return


async def test_no_caller_ever_reads_anothers_answer() -> None:
    answered = 0

    async def one_call(upstream: HttpUpstream, tag: bytes, *, stream: bool) -> None:
        nonlocal answered
        assert await ask(upstream, body=tag, stream=stream, within_s=10) == tag * 20
        answered += 1

    async def caller(upstream: HttpUpstream, number: int) -> None:
        dice = random.Random(number)
        for call in range(CALLS_EACH):
            tag = b"<%d:%d>" % (number, call)
            asking = asyncio.ensure_future(one_call(upstream, tag, stream=dice.random() < 0.5))
            if dice.random() < 0.3:
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
                asking.cancel()
            await asyncio.gather(asking, return_exceptions=asking.cancelling() > 0)

    async with relay(echo_tags) as (server, upstream):
        await asyncio.gather(*(caller(upstream, number) for number in range(CALLERS)))
        assert answered > CALLERS * CALLS_EACH / 2
        assert sum(len(peer.requests) for peer in server.peers) > 2 * len(server.peers)  # they were used again
