"""What the mock upstream does beyond the contract: its options, and its manners towards the loop."""

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from nexus_gateway.config.runtime import MockSpec, UpstreamSpec
from nexus_gateway.core.model import Operation
from nexus_gateway.upstreams.base import UpstreamRequest
from nexus_gateway.upstreams.mock import EVENTS_PER_TURN, MockReply, MockUpstream
from tests.support.stepped_loop import SteppedLoop

pytestmark = pytest.mark.anyio

HOUR_S = 3600.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": SteppedLoop}


def mock(**behaviour: Any) -> MockUpstream:
    return MockUpstream(UpstreamSpec("mock", "mock", "local", 0, "/v1", mock=MockSpec(**behaviour)))


async def send(upstream: MockUpstream, *, stream: bool = False, within_s: float = 99 * HOUR_S) -> MockReply:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    return await upstream.send(
        UpstreamRequest(
            operation=Operation.CHAT,
            model="m",
            body=msgspec.json.encode(body),
            stream=stream,
            headers=(),
            request_id="r",
            deadline_s=SteppedLoop.current().time() + within_s,
        )
    )


def far() -> float:
    return SteppedLoop.current().time() + 99 * HOUR_S


async def settle() -> None:
    """Let every task run until it waits for the clock."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_without_options_it_answers_at_once_and_gives_nobody_else_a_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        turns += 1

    task = asyncio.ensure_future(other())
    reply = await send(mock())
    await reply.read_all(10_000)
    await reply.aclose()
    assert turns == 0
    await task


async def test_a_long_stream_lets_others_have_their_turns() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    reply = await send(mock(tokens=1000), stream=True)
    events = 0
    while await reply.read(far()):
        events += 1
    await reply.aclose()
    task.cancel()
    assert turns >= events // EVENTS_PER_TURN - 1


async def test_the_head_comes_after_its_delay() -> None:
    loop = SteppedLoop.current()
    sending = asyncio.ensure_future(send(mock(delay_s=HOUR_S)))
    await settle()
    loop.advance(HOUR_S - 60)
    await settle()
    assert not sending.done()
    loop.advance(60)
    reply = await sending
    assert reply.headers["openai-processing-ms"] == "3600000"
    await reply.aclose()


async def test_events_come_at_their_own_times_the_first_at_once() -> None:
    loop = SteppedLoop.current()
    reply = await send(mock(chunk_delay_s=HOUR_S, tokens=5), stream=True)
    assert await reply.read(far())
    reading = asyncio.ensure_future(reply.read(far()))
    await settle()
    assert not reading.done()
    loop.advance(HOUR_S)
    assert await reading
    loop.advance(3 * HOUR_S)
    for _ in range(3):
        assert await reply.read(loop.time()), "what a slow reader missed is there"
    reading = asyncio.ensure_future(reply.read(far()))
    await settle()
    assert not reading.done()
    reading.cancel()
    await settle()
    await reply.aclose()


@pytest.mark.parametrize("tokens", [0, 1, 7, 300])
async def test_tokens_is_the_length_of_the_answer(tokens: int) -> None:
    reply = await send(mock(tokens=tokens))
    answer = msgspec.json.decode(await reply.read_all(100_000))
    await reply.aclose()
    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("status", "retry_after"), [(429, "1"), (503, "1"), (500, None), (400, None), (302, None)])
async def test_a_server_that_is_busy_says_when_to_come_back(status: int, retry_after: str | None) -> None:
    reply = await send(mock(status=status))
    assert (reply.status, reply.headers.get("retry-after")) == (status, retry_after)
    await reply.aclose()


async def test_errors_come_in_their_share_among_good_answers() -> None:
    upstream, statuses = mock(error_rate=0.25, seed=7), []
    for _ in range(400):
        reply = await send(upstream)
        statuses.append(reply.status)
        await reply.aclose()
    assert abs(statuses.count(500) - 100) <= 5
    assert statuses.count(200) + statuses.count(500) == 400
    assert len({b - a for a, b in pairwise(at for at, status in enumerate(statuses) if status == 500)}) > 1


async def test_active_counts_what_nobody_has_closed() -> None:
    loop, upstream = SteppedLoop.current(), mock(delay_s=1.0)
    sending = [asyncio.ensure_future(send(upstream)) for _ in range(3)]
    await settle()
    assert upstream.active == 3
    sending[0].cancel()
    await settle()
    assert upstream.active == 2
    loop.advance(1.0)
    replies = [await task for task in sending[1:]]
    await replies[0].read_all(10_000)
    assert upstream.active == 2
    for reply in replies:
        await reply.aclose()
        await reply.aclose()
    assert upstream.active == 0


async def test_no_timer_is_left() -> None:
    loop = SteppedLoop.current()
    upstream = mock(delay_s=HOUR_S, chunk_delay_s=HOUR_S)
    sending = asyncio.ensure_future(send(upstream, stream=True))
    await settle()
    assert loop.armed_timers == 1
    sending.cancel()
    await settle()
    assert (loop.armed_timers, upstream.active) == (0, 0)
