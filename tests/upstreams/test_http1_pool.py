"""Making connections, keeping them for a while, and leaving nothing behind."""

import asyncio
import itertools
import socket
from typing import Any, Final

import pytest

from nexus_gateway.core.errors import UpstreamConnectError, UpstreamDnsError, UpstreamTimeout
from nexus_gateway.upstreams.http1 import LINGER_S
from nexus_gateway.upstreams.pool import IDLE_S, SHUN_S
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, answering, chunk, deaf_port, plain
from tests.support.stepped_loop import SteppedLoop
from tests.support.upstream_calls import ask, http_upstream, relay, request, until

pytestmark = pytest.mark.anyio

GOOD: Final = "127.0.0.1"  # where the server listens
REFUSING: Final = "127.0.0.2"  # where nobody does
DEAF: Final = "127.0.0.3"  # where connections are never accepted


class ResolvingLoop(SteppedLoop):
    """Knows the addresses of every host: those in `addresses`. About slow.example it never makes up its mind."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = [GOOD]

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        if host == "slow.example":
            await self.create_future()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": ResolvingLoop}


@pytest.fixture
async def loop() -> ResolvingLoop:
    return ResolvingLoop.current()


# ---- names and addresses


async def test_every_address_is_tried(loop: ResolvingLoop) -> None:
    loop.addresses = [REFUSING, GOOD]
    async with relay(answering(plain(b"hello")), host="several.example") as (_, upstream):
        assert await ask(upstream) == b"hello"
    loop.addresses = [REFUSING, "127.0.0.3"]
    async with http_upstream(1, host="several.example") as upstream:
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)


async def test_an_address_that_failed_is_tried_last_for_a_while(loop: ResolvingLoop) -> None:
    async with relay(answering(plain(b"hello", b"connection: close")), host="several.example") as (server, upstream):
        loop.addresses = [REFUSING, GOOD]
        await ask(upstream)
        other = await loop.create_server(lambda: Peer(server), REFUSING, server.port)
        await ask(upstream)
        assert [peer.address for peer in server.peers] == [GOOD, GOOD]
        loop.advance(SHUN_S + 1)
        await ask(upstream)
        assert [peer.address for peer in server.peers] == [GOOD, GOOD, REFUSING]
        other.close()
        await other.wait_closed()


async def test_a_silent_address_leaves_time_for_the_next(loop: ResolvingLoop) -> None:
    loop.addresses = [DEAF, GOOD]
    async with relay(answering(plain(b"hello")), host="several.example", connect_s=0.4) as (server, upstream):
        with deaf_port(DEAF, server.port):
            assert await ask(upstream) == b"hello"


async def test_an_unknown_name(loop: ResolvingLoop) -> None:
    loop.addresses = []
    async with http_upstream(1, host="unknown.example") as upstream:
        with pytest.raises(UpstreamDnsError):
            await ask(upstream)


async def test_a_resolver_that_hangs_holds_up_only_its_caller() -> None:
    async with relay(answering(plain(b"hello"))) as (_, other), http_upstream(1, host="slow.example") as upstream:
        waiting = asyncio.ensure_future(ask(upstream))
        assert await ask(other) == b"hello"
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize(("within_s", "error"), [(0.05, UpstreamTimeout), (2, UpstreamDnsError)])
async def test_a_resolver_that_hangs_is_given_up(within_s: float, error: type[Exception]) -> None:
    async with http_upstream(1, host="slow.example", connect_s=0.1) as upstream:
        with pytest.raises(error):
            await ask(upstream, within_s=within_s)


# ---- how long connections are kept


async def test_a_free_connection_is_kept_for_a_while_and_no_longer(loop: ResolvingLoop) -> None:
    async with relay(answering(plain())) as (server, upstream):
        await asyncio.gather(ask(upstream), ask(upstream))
        loop.advance(IDLE_S / 2)
        await ask(upstream)  # one of the two is used again
        loop.advance(IDLE_S / 2 + 1)
        assert (upstream.open_connections, upstream.free_connections) == (1, 1)
        assert sum(peer.closed.is_set() for peer in server.peers) <= 1
        loop.advance(IDLE_S / 2 + 1)
        assert upstream.open_connections == 0
        await server.all_closed()


async def test_a_connection_in_use_does_not_grow_old(loop: ResolvingLoop) -> None:

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD)
        await late.wait()
        await peer.send(chunk(b"hello") + LAST_CHUNK)
        await peer.closed.wait()

    async with relay(script) as (_, upstream):
        late = asyncio.Event()
        reply = await upstream.send(request(stream=True))
        loop.advance(10 * IDLE_S)
        late.set()
        assert await reply.read(loop.time() + 2) == b"hello"
        await reply.aclose()


async def test_after_done_an_upstream_that_does_not_end_is_cut(loop: ResolvingLoop) -> None:

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(b"data: [DONE]\n\n"))
        await peer.closed.wait()

    async with relay(script) as (server, upstream):
        reply = await upstream.send(request(stream=True))
        await reply.read(loop.time() + 2)
        await reply.aclose()
        loop.advance(LINGER_S * 0.9)
        assert upstream.open_connections == 1
        loop.advance(LINGER_S * 0.2)
        assert upstream.open_connections == 0
        await server.peers[0].closed.wait()


@pytest.mark.parametrize("last_s", [5, 100])
async def test_a_deadline_moved_back_and_forth_is_kept(loop: ResolvingLoop, last_s: float) -> None:
    """One timer serves every wait of a connection: it must fire neither early nor late."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD)
        for _ in range(4):
            await go.wait()
            go.clear()
            await peer.send(chunk(b"x"))
        await peer.closed.wait()

    async with relay(script) as (_, upstream):
        go = asyncio.Event()
        reply = await upstream.send(request(stream=True, within_s=100))
        for limit_s in (1000, 10, 500, 20):
            reading = asyncio.ensure_future(reply.read(loop.time() + limit_s))
            await asyncio.sleep(0)
            loop.advance(limit_s * 0.9)
            go.set()
            assert await reading == b"x"
        reading = asyncio.ensure_future(reply.read(loop.time() + last_s))
        await asyncio.sleep(0)
        loop.advance(last_s * 0.9)
        loop.advance(last_s * 0.09)
        await asyncio.sleep(0)
        assert not reading.done()
        loop.advance(last_s * 0.02)
        with pytest.raises(UpstreamTimeout):
            await reading
        await reply.aclose()


# ---- what is left


async def test_nothing_is_left_behind(loop: ResolvingLoop) -> None:
    """No task, no timer and no connection, whatever became of the requests."""

    async def script(peer: Peer) -> None:
        for answer in itertools.cycle([plain(), STREAM_HEAD + chunk(b"hello") + LAST_CHUNK]):
            match (await peer.receive()).body:
                case b"silent":
                    await peer.closed.wait()
                case b"broken":
                    await peer.send(b"HTTP/1.1 2")
                    return
                case _:
                    await peer.send(answer)

    def calls(body: bytes, within_s: float = 100) -> list[asyncio.Task[bytes]]:
        return [
            asyncio.ensure_future(ask(upstream, body=body, stream=stream, within_s=within_s))
            for stream in (False, True, False, True)
        ]

    tasks, timers = asyncio.all_tasks(), loop.armed_timers
    async with relay(script, host="several.example") as (server, upstream):
        over = [*calls(b"fine"), *calls(b"broken"), *calls(b"silent", within_s=0.05)]
        given_up, cut = calls(b"silent"), calls(b"silent")
        await asyncio.gather(*over, return_exceptions=True)
        for call in given_up:
            call.cancel()
        await upstream.aclose()
        await asyncio.gather(*given_up, *cut, return_exceptions=True)
        await server.all_closed()
        await until(lambda: asyncio.all_tasks() <= tasks)
        assert (upstream.open_connections, upstream.free_connections) == (0, 0)
        assert loop.armed_timers == timers
