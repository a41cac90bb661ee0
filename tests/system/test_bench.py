"""The benchmark notices what would make its figures worthless."""

import asyncio

import pytest
from bench import kinds, memory, upstream, worker
from bench.load import Order, Sample, measure
from bench.upstream import PLAIN, TAG, Connection

from nexus_gateway.upstreams.worker_v1.worker_pb2 import ChatResponse, ChatStreamResponse


class CrossedConnection(Connection):
    """Gives everybody the answer of the second caller."""

    def on_message_complete(self) -> None:
        self._transport.write(PLAIN.replace(TAG, b"tag-00000002"))


async def load_on(kind: type[Connection], *, stream: bool = False) -> Sample:
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await measure(Order(port=port, pid=0, stream=stream, connections=4, seconds=0.1, warmup_s=0.0))
    finally:
        server.close()


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_right_answers_are_counted(stream: bool) -> None:
    sample = await load_on(Connection, stream=stream)
    assert sample.units > 0
    assert sample.wrong == 0


@pytest.mark.anyio
async def test_an_answer_of_somebody_else_is_wrong() -> None:
    sample = await load_on(CrossedConnection)
    assert sample.wrong > 0


@pytest.mark.anyio
async def test_nor_is_memory_told_of_such_answers() -> None:
    server = await asyncio.get_running_loop().create_server(CrossedConnection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await memory.Caller(port, 2, stream=False).ask()
    with pytest.raises(ValueError, match="somebody else"):
        await memory.Caller(port, 3, stream=False).ask()
    server.close()


@pytest.mark.anyio
async def test_the_worker_says_what_the_server_says() -> None:
    asked = b'{"user":"tag-00000007"}'
    whole = ChatResponse.FromString(await worker.chat(asked, None)).body
    assert upstream.PLAIN.replace(TAG, b"tag-00000007").endswith(b"\r\n\r\n" + whole)
    chunks = [ChatStreamResponse.FromString(message).body async for message in worker.chat_stream(asked, None)]
    assert len(chunks) == upstream.EVENTS
    told = {b"data: %b\n\n" % chunk.replace(b"tag-00000007", TAG) for chunk in chunks}
    assert all(event in upstream.PIECE + upstream.END for event in told)


def test_kinds_are_compared_within_a_round() -> None:
    costs = {("plain", "http"): [10.0, 20.0], ("plain", "grpc"): [20.0, 40.0]}
    near = kinds.report({**costs, ("stream", "http"): [10.0, 30.0], ("stream", "grpc"): [40.0, 60.0]}, 32)
    assert "| per chunk | 20 | 50 | 3.00 × (2.00 .. 4.00) |" in near
    assert near.endswith("The goal per chunk, 4 ×, is met.")
    far = kinds.report({**costs, ("stream", "http"): [10.0], ("stream", "grpc"): [41.0]}, 32)
    assert far.endswith("is missed.")
