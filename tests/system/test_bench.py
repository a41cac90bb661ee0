"""The benchmark notices what would make its figures worthless."""

import asyncio

import pytest
from bench.load import Order, Sample, measure
from bench.upstream import PLAIN, TAG, Connection


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
