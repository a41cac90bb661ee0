"""What is over is gone: nothing of a request or a connection waits for the collector of cycles, however it ended.

It runs rarely (`serve.py`), and bodies hang on what it would have to find: failures would pile up by the gigabyte.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.support.gateway import Running, gateway
from tests.support.http_client import Caller, chat
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, Script, answering, chunk, plain
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

ROOMS: Final = ("nexus_gateway.edge", "nexus_gateway.pipeline", "nexus_gateway.upstreams", "nexus_gateway.core.errors")
TIMES: Final = 5
SETTINGS: Final = {
    "PII_MASKING_ENABLED": "on",
    "CIRCUIT_BREAKER_MAX_FAILURES": "1000",
    "REQUEST_TIMEOUT_SECONDS": "0.05",
    "STREAM_IDLE_TIMEOUT_SECONDS": "0.05",
}
ANSWER: Final = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'
EVENT: Final = chunk(b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n')
END: Final = (
    chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n') + LAST_CHUNK
)
BODY: Final = b'{"model":"m","messages":[{"role":"user","content":"from ada@example.com"}]}'


def saying(*pieces: bytes, hangs: bool = False) -> Script:
    """To the first request of a connection; then it closes, or waits to be closed."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        for piece in pieces:
            await peer.send(piece)
        if hangs:
            await peer.closed.wait()

    return script


Act = Callable[[Running, RawServer], Awaitable[None]]

WELL: Final = answering(plain(ANSWER))
STREAMS: Final = answering(STREAM_HEAD + EVENT + END)


async def asks(running: Running, _upstream: RawServer) -> None:
    await chat(running.port, body=BODY)


async def streams(running: Running, _upstream: RawServer) -> None:
    await chat(running.port, body=BODY.replace(b"{", b'{"stream":true,', 1))


async def leaves_in_stream(running: Running, _upstream: RawServer) -> None:
    async with Caller(running.port) as caller:
        await caller.ask(stream=True)
        await caller.read_until(b"data: ")


async def leaves_before(running: Running, upstream: RawServer) -> None:
    number = len(upstream.peers)
    async with Caller(running.port) as caller:
        await caller.ask()
        await (await upstream.peer(number)).received.wait()


def sends(data: bytes) -> Act:
    async def send(running: Running, _upstream: RawServer) -> None:
        async with Caller(running.port) as caller:
            await caller.send(data)
            await caller.read_to_end()

    return send


@dataclass(frozen=True)
class Case:
    act: Act
    script: Script = WELL
    settings: Mapping[str, str] = field(default_factory=dict)
    others: str = ""  # upstreams


SHADOW: Final = {"SHADOW_ENABLED": "true", "SHADOW_TARGET": "candidate", "SHADOW_PERCENT": "100"}
CASES: Final = {
    "answered": Case(asks, WELL),
    "answered, upstream closes": Case(asks, saying(plain(ANSWER))),
    "streamed": Case(streams, STREAMS),
    "streamed, upstream closes": Case(streams, saying(STREAM_HEAD + EVENT + END)),
    "stream breaks": Case(streams, saying(STREAM_HEAD + EVENT)),
    "stream stalls": Case(streams, saying(STREAM_HEAD + EVENT, hangs=True)),
    "no answer": Case(asks, saying()),
    "no answer in time": Case(asks, saying(hangs=True)),
    "no first event in time": Case(streams, saying(STREAM_HEAD, hangs=True)),
    "no HTTP": Case(asks, saying(b"220 smtp\r\n")),
    "an error": Case(asks, answering(plain(b"{}", status=500))),
    "a refusal": Case(asks, answering(plain(b"{}", status=400))),
    "caller leaves in stream": Case(leaves_in_stream, saying(STREAM_HEAD + EVENT, hangs=True)),
    "caller leaves before": Case(leaves_before, saying(hangs=True)),
    "too many": Case(asks, settings={"RATE_LIMIT_PER_MINUTE": "1"}),
    "a mirrored request fails": Case(asks, WELL, SHADOW, ";candidate=mock://local?status=500"),
    "a mirrored stream breaks": Case(streams, STREAMS, SHADOW, ";candidate=mock://local?fail_after=2"),
    "usual way": Case(sends(b"GET /healthz HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")),
    "no host": Case(sends(b"GET / HTTP/1.1\r\n\r\n")),
    "no HTTP either": Case(sends(b"\x16\x03\x01\r\n\r\n")),
}


def alive() -> Counter[str]:
    kinds = Counter(map(type, gc.get_objects()))
    return Counter({kind.__qualname__: n for kind, n in kinds.items() if str(kind.__module__).startswith(ROOMS)})


async def over(running: Running) -> None:
    await running.idle()
    await until(lambda: not (running.server.server_state.connections or running.server.server_state.tasks))
    await until(lambda: all(task.get_name() != "shadow" for task in asyncio.all_tasks()))
    for _ in range(5):
        await asyncio.sleep(0)  # what the loop itself has still to let go of


@pytest.mark.parametrize("case", CASES)
async def test_nothing_of_it_is_left(case: str) -> None:
    chosen = CASES[case]
    async with (
        RawServer(chosen.script) as upstream,
        gateway({**SETTINGS, **chosen.settings}, f"m=http://127.0.0.1:{upstream.port}{chosen.others}") as running,
    ):
        running.records.idle.set()  # for those that never become a request
        for _ in range(2):
            await chosen.act(running, upstream)
        await over(running)
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(TIMES):
                await chosen.act(running, upstream)
            await over(running)
            assert alive() - before == Counter()
        finally:
            gc.enable()
