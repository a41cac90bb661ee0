"""How much memory a gateway takes while somebody sends it too much: a process of its own, as the kernel counts it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench.memory import measure

from tests.support.http_client import Caller, Received, chat
from tests.support.process import Process, served
from tests.support.raw_server import STREAM_HEAD, Peer, RawServer, Script, chunk

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")]

MB = 1 << 20
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
DEV = {"x-api-key": "dev-key"}


LIMIT_BYTES = 48 * MB
SLOW, IDLE = 50, 2000
IDLE_BYTES = 150 * MB // 10_000  # of each
OPEN, OPEN_BYTES = 200, 32 << 10  # of each; the goal is 25 MB for 1,000


class Memory:
    """Of one process, since this was made: the most that it took, beyond what it had."""

    def __init__(self, gateway: Process) -> None:
        self._folder = Path(f"/proc/{gateway.process.pid}")
        (self._folder / "clear_refs").write_text("5")  # forgets the peak
        self._before = self._read()

    def most_bytes(self) -> int:
        return self._read() - self._before

    def _read(self) -> int:
        (line,) = [line for line in (self._folder / "status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) << 10


def flood(begin: bytes, piece: bytes, total_bytes: int = 1 << 30) -> Script:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(begin)
        while peer.written_bytes < total_bytes:
            await peer.send(piece)

    return script


PLAIN, CHUNKED = HEAD + b"content-length: 1073741824\r\n\r\n", HEAD + b"transfer-encoding: chunked\r\n\r\n"
PIECE = b"x" * 65_536
FLOODS: dict[str, tuple[Script, bool]] = {
    "announced": (flood(PLAIN, PIECE), False),
    "in-chunks": (flood(CHUNKED, chunk(PIECE)), False),
    "to-the-end-of-the-connection": (flood(HEAD + b"\r\n", PIECE), False),
    "gzip": (flood(HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n", chunk(PIECE)), False),
    "an-error": (flood(CHUNKED.replace(b"200", b"500"), chunk(PIECE)), False),
    "a-line-of-50-MB": (flood(STREAM_HEAD + chunk(b"data: {"), chunk(PIECE)), True),
    "many-informational-heads": (flood(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 2000), False),
}


EVENT = {"choices": [{"index": 0, "delta": {"content": "x" * 60_000}, "finish_reason": None}]}
LONG = flood(STREAM_HEAD, chunk(b"data: %b\n\n" % json.dumps(EVENT).encode()), 200 * MB)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """One loop for the module, whose tests share a gateway."""
    return "asyncio", {"use_uvloop": True}


@dataclass(frozen=True)
class World:
    gateway: Process
    upstreams: dict[str, RawServer]


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        upstreams = {}
        for name, (script, _) in {**FLOODS, "long": (LONG, True)}.items():
            upstreams[name] = await stack.enter_async_context(RawServer(script))
        urls = [f"{name}=http://127.0.0.1:{upstream.port}" for name, upstream in upstreams.items()]
        settings = {
            "max_answer_bytes": str(LIMIT_BYTES),
            "rate_limit_per_minute": "unlimited",
            "log_level": "error",
            "upstreams": ";".join(["mock=mock://local", *urls]),
        }
        gateway = await stack.enter_async_context(served(**settings))
        assert (await ask(gateway, "mock")).status == 200
        yield World(gateway, upstreams)


def body_of(model: str, *, stream: bool) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()


async def ask(gateway: Process, model: str, *, stream: bool = False) -> Received:
    return await chat(gateway.port, body=body_of(model, stream=stream), headers=DEV)


async def test_too_much_from_an_upstream_is_refused_with_bounded_memory(world: World) -> None:
    """A length that is announced costs nothing, any other body no more than what an answer may have."""
    most = {}
    for name, (_, stream) in FLOODS.items():
        memory = Memory(world.gateway)
        answer = await ask(world.gateway, name, stream=stream)
        most[name] = memory.most_bytes() // MB
        assert (answer.status, answer.json()["error"]["code"][:8]) == (502, "upstream")
    assert max(most.values()) < 64, most
    assert most["announced"] < 4, most


async def test_fifty_slow_readers_of_long_streams_hold_little(world: World) -> None:
    upstream = world.upstreams["long"]
    async with AsyncExitStack() as stack:
        memory = Memory(world.gateway)
        port = world.gateway.port
        callers = [await stack.enter_async_context(Caller(port, receive_buffer=4096)) for _ in range(SLOW)]
        for caller in callers:
            await caller.ask(body=body_of("long", stream=True), headers=DEV)
        for _ in range(4):
            for caller in callers:
                await caller.read(1024)  # of 200 MB
        taken_bytes = -1
        while taken_bytes != (so_far := sum(peer.accepted_bytes for peer in upstream.peers)):
            taken_bytes = so_far
            await asyncio.sleep(0.1)  # that nothing goes on is not announced
        assert memory.most_bytes() < 64 * MB
        assert len(upstream.peers) == SLOW


async def test_idle_connections_cost_little_and_others_are_served(world: World) -> None:
    async with AsyncExitStack() as stack:
        memory = Memory(world.gateway)
        for _ in range(IDLE):
            await stack.enter_async_context(Caller(world.gateway.port))
        assert (await ask(world.gateway, "mock")).status == 200
        assert memory.most_bytes() < IDLE * IDLE_BYTES


async def test_open_streams_cost_little() -> None:
    figures = await measure(OPEN)
    assert 0 < figures.open - figures.idle < OPEN * OPEN_BYTES, figures
