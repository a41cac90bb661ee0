"""Answers that come bit by bit: at once, in order, never faster than they are taken, and ended truthfully."""

import asyncio
import os
from pathlib import Path
from typing import Final

import pytest

from nexus_gateway.core.errors import UpstreamTimeout, UpstreamTruncated
from nexus_gateway.upstreams.base import Reply
from nexus_gateway.upstreams.http1 import PROBE_AFTER_S
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, answering, chunk
from tests.support.upstream_calls import ask, relay, request, until

pytestmark = pytest.mark.anyio

SHORT_S: Final = 0.1
TCP_TABLE: Final = Path("/proc/net/tcp")
ESTABLISHED: Final = "01"
KEEPALIVE_TIMER: Final = "02"
EVENT: Final = b"data: 1\n\n"
DONE: Final = b"data: [DONE]\n\n"


def soon_s() -> float:
    return asyncio.get_running_loop().time() + 2


async def drain(reply: Reply) -> int:
    """Read to the end. Returns how many bytes there were."""
    size = 0
    while piece := await reply.read(soon_s()):
        size += len(piece)
    return size


async def test_the_head_comes_before_the_body_and_every_piece_as_it_comes() -> None:
    steps = [asyncio.Event() for _ in range(4)]

    async def script(peer: Peer) -> None:
        await peer.receive()
        for step, piece in zip(steps, [STREAM_HEAD, chunk(b"one"), chunk(b"two"), LAST_CHUNK], strict=True):
            await step.wait()
            await peer.send(piece)
        await peer.closed.wait()

    async with relay(script) as (_, upstream):
        steps[0].set()
        reply = await upstream.send(request(stream=True))
        assert (reply.status, reply.headers) == (200, {"content-type": "text/event-stream"})
        for step, piece in zip(steps[1:], [b"one", b"two", b""], strict=True):
            step.set()
            assert await reply.read(soon_s()) == piece
        assert await reply.read(soon_s()) == b""
        await reply.aclose()
        assert upstream.free_connections == 1


async def test_what_came_together_is_read_together() -> None:
    async with relay(answering(STREAM_HEAD + chunk(b"one") + chunk(b"two") + LAST_CHUNK)) as (_, upstream):
        reply = await upstream.send(request(stream=True))
        assert await reply.read(soon_s()) == b"onetwo"
        assert await reply.read(soon_s()) == b""
        await reply.aclose()


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_what_came_before_the_break_is_given_out_first(end: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(EVENT) + b"9\r\nda")
        await read_on.wait()
        getattr(peer, end)()

    async with relay(script) as (server, upstream):
        read_on = asyncio.Event()
        reply = await upstream.send(request(stream=True))
        read_on.set()
        await until(lambda: upstream.open_connections == 0)
        assert await reply.read(soon_s()) == EVENT + b"da"
        for _ in range(2):
            with pytest.raises(UpstreamTruncated):
                await reply.read(soon_s())
        await reply.aclose()
        await server.peers[0].closed.wait()


async def test_silence_between_pieces_is_a_timeout_and_closes() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(EVENT))
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        reply = await upstream.send(request(stream=True))
        assert await reply.read(soon_s()) == EVENT
        with pytest.raises(UpstreamTimeout):
            await reply.read(asyncio.get_running_loop().time() + SHORT_S)
        await server.peers[0].closed.wait()


async def test_framing_without_a_byte_of_the_body_is_silence() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + b"9;")
        while not peer.closed.is_set():
            await peer.send(b"x")
            await asyncio.sleep(SHORT_S / 20)

    async with relay(script) as (_, upstream):
        reply = await upstream.send(request(stream=True))
        with pytest.raises(UpstreamTimeout):
            await reply.read(asyncio.get_running_loop().time() + SHORT_S)


@pytest.mark.skipif(not TCP_TABLE.exists(), reason="only Linux tells which timers a connection has")
async def test_a_connection_is_probed_while_a_model_thinks() -> None:
    """Or a NAT on the way forgets it, and nobody hears of that."""

    def timer_of(port: int) -> tuple[str, float]:
        """Kind and seconds left, of the connection to that port."""
        rows = [line.split() for line in TCP_TABLE.read_text().splitlines()[1:]]
        (timer,) = [row[5] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
        kind, _, ticks = timer.partition(":")
        return kind, int(ticks, 16) / os.sysconf("SC_CLK_TCK")

    async def script(peer: Peer) -> None:
        await peer.receive()
        await thought.wait()
        await peer.send(STREAM_HEAD + chunk(EVENT) + LAST_CHUNK)
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        thought = asyncio.Event()
        asking = asyncio.ensure_future(upstream.send(request(stream=True, within_s=20)))
        await (await server.peer(0)).received.wait()
        await until(lambda: timer_of(server.port)[0] == KEEPALIVE_TIMER)  # what was sent is acknowledged first
        assert 0 < timer_of(server.port)[1] <= PROBE_AFTER_S
        thought.set()
        await (await asking).aclose()


async def test_the_request_deadline_ends_with_the_head_of_a_stream() -> None:
    """Only the deadlines of `read` count then, and none while nobody reads."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD)
        await late.wait()
        await peer.send(chunk(EVENT) + LAST_CHUNK)
        await peer.closed.wait()

    async with relay(script) as (_, upstream):
        late = asyncio.Event()
        loop = asyncio.get_running_loop()
        reply = await upstream.send(request(stream=True, within_s=5 * SHORT_S))
        loop.call_later(7 * SHORT_S, late.set)
        await late.wait()
        assert await reply.read(soon_s()) == EVENT
        await reply.aclose()


async def test_a_sender_faster_than_its_reader_is_stopped() -> None:
    pieces, piece = 512, b"x" * 65_536

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD)
        for _ in range(pieces):
            await peer.send(chunk(piece))
        await peer.send(LAST_CHUNK)
        await peer.closed.wait()

    async def is_stuck(peer: Peer) -> bool:
        before = peer.accepted_bytes
        for _ in range(200):
            await asyncio.sleep(0)
        return before == peer.accepted_bytes

    async with relay(script) as (server, upstream):
        reply = await upstream.send(request(stream=True))
        size = len(await reply.read(soon_s()))
        while not await is_stuck(server.peers[0]):
            pass
        assert server.peers[0].accepted_bytes < 16 << 20  # half of it at most, and nearly all in the kernel's buffers
        queued = len(await reply.read(soon_s()))
        assert queued < 1 << 20
        assert size + queued + await drain(reply) == pieces * len(piece)
        await reply.aclose()
        assert upstream.free_connections == 1


# ---- closing early


@pytest.mark.parametrize("before", [b"", chunk(EVENT)], ids=["before the first event", "in the middle"])
async def test_closing_an_unfinished_stream_cuts_it_at_once(before: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + before)
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        reply = await upstream.send(request(stream=True))
        if before:
            await reply.read(soon_s())
        await reply.aclose()
        await reply.aclose()
        async with asyncio.timeout(0.25):
            await server.peers[0].closed.wait()


@pytest.mark.parametrize("cut", [0, 5, 12])
@pytest.mark.parametrize("done", [DONE, b"data:[DONE]\r\n\r\n"])
async def test_after_done_the_end_may_come_in_its_own_time(done: bytes, cut: int) -> None:
    """The reader leaves at [DONE], before the last chunk: the connection is kept for the next request."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(EVENT + done[:cut]))
        await half_read.wait()
        await peer.send(chunk(done[cut:]))
        await left.wait()
        await peer.send(LAST_CHUNK)
        await answering(STREAM_HEAD + chunk(b"next") + LAST_CHUNK)(peer)

    async with relay(script) as (server, upstream):
        half_read, left = asyncio.Event(), asyncio.Event()
        reply = await upstream.send(request(stream=True))
        text = await reply.read(soon_s())
        half_read.set()
        while not text.endswith(done):
            text += await reply.read(soon_s())
        await reply.aclose()
        left.set()
        await until(lambda: upstream.free_connections == 1)
        assert await ask(upstream, stream=True) == b"next"
        assert len(server.peers) == 1


async def test_after_done_an_upstream_that_goes_on_is_cut() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(DONE))
        await left.wait()
        await peer.send(chunk(EVENT * 1000))
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        left = asyncio.Event()
        reply = await upstream.send(request(stream=True))
        assert await reply.read(soon_s()) == DONE
        await reply.aclose()
        left.set()
        async with asyncio.timeout(0.5):
            await server.peers[0].closed.wait()


async def test_a_stream_cut_by_its_own_reader_does_not_look_ended() -> None:
    async with relay(answering(STREAM_HEAD)) as (_, upstream):
        reply = await upstream.send(request(stream=True))
        reading = asyncio.ensure_future(reply.read(soon_s()))
        await asyncio.sleep(0)
        await reply.aclose()
        with pytest.raises(UpstreamTruncated):
            await reading
