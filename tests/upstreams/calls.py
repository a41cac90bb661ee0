"""Calls and replies as the contract suite needs them: asked, read, given up, and brought into every state."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
import pytest

from nexus_gateway.config.runtime import MockSpec
from nexus_gateway.core.errors import UpstreamInvalidResponse, UpstreamTimeout, UpstreamTruncated
from nexus_gateway.core.model import Operation
from nexus_gateway.core.sse import DONE, EventSplitter
from nexus_gateway.upstreams.base import Reply

from .kinds import LEISURELY, Bench

SHORT_S: Final = 0.08  # a deadline that is meant to pass
HEAD_S: Final = 0.5  # a deadline that a head is meant to keep, on a busy machine too
NEVER_S: Final = 10.0  # a delay that no test waits for
CLOCK_S: Final = 0.003  # timers of the loop go by whole milliseconds, its clock by its turns
READ_S: Final = 20.0  # a read that is not meant to be late
LIMIT_BYTES: Final = 1 << 24

HANGING: Final = MockSpec(delay_s=NEVER_S)
STALLING: Final = MockSpec(chunk_delay_s=NEVER_S)


def chat(text: str = "hello", **members: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **members}


STREAM: Final = chat(stream=True)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def choices(chunks: Iterable[Any]) -> list[Any]:
    return [choice for chunk in chunks for choice in chunk["choices"]]


def said(message: Any) -> str:
    """The text of a message or a delta; some models only think where they have few tokens."""
    return message.get("content") or message.get("reasoning_content") or message.get("reasoning") or ""


def joined(chunks: Iterable[Any], index: int = 0) -> str:
    """What one choice said in a stream."""
    return "".join(said(choice["delta"]) for choice in choices(chunks) if choice["index"] == index)


def finish_reasons(chunks: Iterable[Any]) -> dict[int, str]:
    """By choice."""
    ended = [choice for choice in choices(chunks) if choice.get("finish_reason")]
    return {choice["index"]: choice["finish_reason"] for choice in ended}


async def read_stream(reply: Reply) -> list[bytes]:
    """The data of every event, up to the clean end. Each read has a deadline of its own."""
    splitter, events = EventSplitter(), []
    while piece := await reply.read(now_s() + READ_S):
        events += splitter.feed(piece)
    assert await reply.read(now_s() + READ_S) == b"", "the end stays the end"
    return events + splitter.finish()


async def read_until_cut(reply: Reply) -> list[bytes]:
    """The data of the events that came before the stream broke."""
    splitter, events = EventSplitter(), []
    try:
        while piece := await reply.read(now_s() + READ_S):
            events += splitter.feed(piece)
    except UpstreamTruncated:
        return events
    pytest.fail("a broken stream ended cleanly")


async def whole(bench: Bench, body: dict[str, Any], operation: Operation = Operation.CHAT, **call: Any) -> Any:
    """The document of a plain answer."""
    reply = await bench.send(body, operation, **call)
    try:
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        return msgspec.json.decode(await reply.read_all(LIMIT_BYTES))
    finally:
        await reply.aclose()


async def all_of(bench: Bench, body: dict[str, Any], limit_bytes: int) -> bytes:
    """The whole body of an answer, plain or streamed."""
    reply = await bench.send(body)
    try:
        return await reply.read_all(limit_bytes)
    finally:
        await reply.aclose()


async def streamed(bench: Bench, body: dict[str, Any], operation: Operation = Operation.CHAT, **call: Any) -> list[Any]:
    """The documents of a stream, which ended as it should."""
    reply = await bench.send({**body, "stream": True}, operation, **call)
    try:
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        *events, last = await read_stream(reply)
        assert last == DONE
        return [msgspec.json.decode(event) for event in events]
    finally:
        await reply.aclose()


async def cancel(waiting: Awaitable[Any], bench: Bench) -> None:
    """Start waiting, and give up once the model is at work."""
    task = asyncio.ensure_future(waiting)
    await bench.model.reach(1)
    await asyncio.sleep(0)  # the task has come to where it waits
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- a reply brought into each of its states


async def unread(bench: Bench) -> Reply:
    return await bench.send(STREAM)


async def begun(bench: Bench) -> Reply:
    reply = await bench.send(STREAM)
    assert await reply.read(now_s() + READ_S)
    return reply


async def late(bench: Bench) -> Reply:
    reply = await begun(bench)
    with pytest.raises(UpstreamTimeout):
        await reply.read(now_s() + SHORT_S)
    return reply


async def cancelled(bench: Bench) -> Reply:
    reply = await begun(bench)
    await cancel(reply.read(now_s() + READ_S), bench)
    return reply


async def unread_plain(bench: Bench) -> Reply:
    return await bench.send(chat())


async def ended_plain(bench: Bench) -> Reply:
    reply = await bench.send(chat())
    assert await reply.read_all(LIMIT_BYTES)
    return reply


async def ended(bench: Bench) -> Reply:
    reply = await bench.send(STREAM)
    assert await read_stream(reply)
    return reply


async def too_large(bench: Bench) -> Reply:
    reply = await bench.send(chat())
    with pytest.raises(UpstreamInvalidResponse):
        await reply.read_all(1)
    return reply


async def truncated(bench: Bench) -> Reply:
    reply = await bench.send(STREAM)
    with pytest.raises(UpstreamTruncated):
        await read_stream(reply)
    return reply


State = Callable[[Bench], Awaitable[Reply]]

STATES: Final[list[tuple[State, MockSpec]]] = [
    (unread, LEISURELY),
    (begun, LEISURELY),
    (late, STALLING),
    (cancelled, STALLING),
    (unread_plain, MockSpec()),
    (ended_plain, MockSpec()),
    (ended, MockSpec()),
    (too_large, MockSpec()),
    (truncated, MockSpec(fail_after=2)),
]
