"""No client holds a connection for longer than it was given, however little it sends or takes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import pytest

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.edge.connection import WRITE_BUFFER_BYTES
from nexus_gateway.edge.protocol import KEEP_ALIVE_S
from tests.support.http_client import Caller
from tests.support.serving import Served, serving
from tests.support.small_app import Call, Script, SmallApp, flood, hang, hang_in_stream, refuse_unread
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

HEAD: Final = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
MANY: Final = 150
PACE_S: Final = 0.02  # between two bytes of one who trickles

SHORT_HEAD: Final = Timeouts(head_s=0.25, body_s=20, drain_s=0.1)
SHORT_BODY: Final = Timeouts(head_s=20, body_s=0.25, drain_s=0.1)


@asynccontextmanager
async def many_who_begin(served: Served, begin: bytes) -> AsyncIterator[list[Caller]]:
    async with AsyncExitStack() as stack:
        callers = []
        for _ in range(MANY):
            callers.append(await stack.enter_async_context(Caller(served.port)))
            await callers[-1].send(begin)
        yield callers


async def trickle(caller: Caller, piece: bytes) -> None:
    """Send it again and again until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        while True:
            await caller.send(piece)
            await asyncio.sleep(PACE_S)  # this client is slow; nothing is waited for


async def is_served(served: Served) -> None:
    async with Caller(served.port) as caller:
        await caller.send(HEAD + b"content-length: 3\r\n\r\n123")
        assert (await caller.receive()).body == b"123"


async def connections_end(served: Served) -> None:
    await until(lambda: not served.server.server_state.connections)


# ---- heads


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_who_sends_nothing_is_closed_without_a_word(sent: bytes) -> None:
    async with serving(SmallApp(), SHORT_HEAD) as served, Caller(served.port) as caller:
        await caller.send(sent)
        ending = await caller.read_to_end()
        assert not ending or (sent and ending.startswith(b"HTTP/1.1 408 "))


@pytest.mark.parametrize("sent", [b"P", HEAD, HEAD + b"x: y"])
async def test_who_sends_part_of_a_head_is_told(sent: bytes) -> None:
    async with serving(SmallApp(), SHORT_HEAD) as served, Caller(served.port) as caller:
        await caller.send(sent)
        answer = await caller.receive()
        assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
        assert await caller.read_to_end() == b""


async def test_the_deadline_of_a_head_holds_on_a_connection_that_has_served() -> None:
    async with serving(SmallApp(), SHORT_HEAD) as served, Caller(served.port) as caller:
        await caller.send(HEAD + b"content-length: 3\r\n\r\n123" + HEAD)
        assert (await caller.receive()).status == 200
        assert (await caller.receive()).status == 408


async def test_many_who_trickle_their_heads_are_closed_and_others_served() -> None:
    async with (
        serving(SmallApp(), SHORT_HEAD) as served,
        many_who_begin(served, HEAD) as slow,
        asyncio.TaskGroup() as group,
    ):
        trickling = [group.create_task(trickle(caller, b"x")) for caller in slow]
        answers = [group.create_task(caller.read_to_end()) for caller in slow]
        await is_served(served)
        for answer in answers:
            assert (await answer).startswith(b"HTTP/1.1 408 ")
        await connections_end(served)
        for task in trickling:
            task.cancel()


# ---- bodies


@pytest.mark.parametrize("framing", [b"content-length: 9", b"transfer-encoding: chunked"])
async def test_a_body_that_does_not_come_ends_its_request(framing: bytes) -> None:
    app = SmallApp()
    async with serving(app, SHORT_BODY) as served, Caller(served.port) as caller:
        await caller.send(HEAD + framing + b"\r\n\r\n3\r\n")
        answer = await caller.receive()
        assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
        assert await caller.read_to_end() == b""
        call = await app.begun.get()
        assert call.ending == "refused"


async def test_many_who_trickle_their_bodies_are_closed_and_others_served() -> None:
    app = SmallApp()
    async with (
        serving(app, SHORT_BODY) as served,
        many_who_begin(served, HEAD + b"content-length: 10000\r\n\r\n") as slow,
        asyncio.TaskGroup() as group,
    ):
        trickling = [group.create_task(trickle(caller, b"x")) for caller in slow]
        answers = [group.create_task(caller.read_to_end()) for caller in slow]
        await is_served(served)
        for answer in answers:
            assert (await answer).startswith(b"HTTP/1.1 408 ")
        await connections_end(served)
        assert not served.server.server_state.tasks
        for task in trickling:
            task.cancel()


@pytest.mark.parametrize("fields", [b"", b"connection: close\r\n"], ids=["kept", "closing"])
async def test_the_rest_of_an_unwanted_body_has_the_same_time(fields: bytes) -> None:
    async with serving(SmallApp(refuse_unread), SHORT_BODY) as served, Caller(served.port) as caller:
        await caller.send(HEAD + fields + b"content-length: 9\r\n\r\n123")
        assert (await caller.receive()).status == 413
        assert await caller.read_to_end() == b""
        await connections_end(served)


async def test_a_body_that_the_gateway_does_not_take_is_not_late() -> None:
    may_read = asyncio.Event()

    async def read_late(call: Call) -> None:
        await may_read.wait()
        await call.answer(200, b"%d" % len(await call.wire.read_body(16 << 20)))

    async with serving(SmallApp(read_late), SHORT_BODY) as served, Caller(served.port) as caller:
        sending = asyncio.create_task(caller.send(HEAD + b"content-length: %d\r\n\r\n" % (8 << 20) + b"x" * (8 << 20)))
        connection = await the_connection(served)
        await until(lambda: connection.flow.read_paused)
        later_s = asyncio.get_running_loop().time() + 60
        connection.sweep(later_s)
        connection.sweep(later_s + 0.1)
        may_read.set()
        await sending
        assert (await caller.receive()).json() == 8 << 20


# ---- idle


async def the_connection(served: Served) -> Any:
    await until(lambda: served.server.server_state.connections)
    (connection,) = served.server.server_state.connections
    return connection


async def test_an_idle_connection_is_kept_for_a_while() -> None:
    async with serving(SmallApp(), Timeouts(drain_s=0.1)) as served, Caller(served.port) as caller:
        await caller.send(HEAD + b"content-length: 3\r\n\r\n123")
        await caller.receive()
        connection = await the_connection(served)
        answered_s = asyncio.get_running_loop().time()
        connection.sweep(answered_s + KEEP_ALIVE_S - 1)
        assert not connection.transport.is_closing()
        connection.sweep(answered_s + KEEP_ALIVE_S + 1)
        assert await caller.read_to_end() == b""


@pytest.mark.parametrize("script", [hang, hang_in_stream])
async def test_nobody_who_waits_for_an_answer_is_closed(script: Script) -> None:
    app = SmallApp(script)
    async with serving(app, Timeouts(drain_s=0.1)) as served, Caller(served.port) as caller:
        await caller.send(HEAD + b"content-length: 3\r\n\r\n123")
        await app.begun.get()
        connection = await the_connection(served)
        connection.sweep(asyncio.get_running_loop().time() + 3600)
        assert not connection.transport.is_closing()


# ---- slow readers


async def test_many_who_take_nothing_of_a_long_stream_are_cut_and_hold_little_meanwhile() -> None:
    app = SmallApp(flood)
    async with serving(app, Timeouts(write_s=0.2, drain_s=0.1)) as served, AsyncExitStack() as stack:
        for _ in range(50):
            caller = await stack.enter_async_context(Caller(served.port, receive_buffer=4096))
            await caller.send(HEAD + b"content-length: 3\r\n\r\n123")
        calls = [await app.begun.get() for _ in range(50)]
        async with asyncio.timeout(5):
            for call in calls:
                await call.ended.wait()
        assert {call.ending for call in calls} == {"gone"}
        in_kernel = 4 << 20  # what a socket of this machine may buffer
        assert all(call.taken_bytes < in_kernel + 4 * WRITE_BUFFER_BYTES for call in calls)
        await connections_end(served)


async def test_who_takes_a_long_answer_slowly_but_steadily_gets_all_of_it() -> None:
    size = 16 << 20

    async def long_answer(call: Call) -> None:
        await call.wire.read_body(100)
        await call.answer(200, b"x" * size)

    async with (
        serving(SmallApp(long_answer), Timeouts(write_s=0.3, drain_s=0.1)) as served,
        Caller(served.port, receive_buffer=262_144) as caller,
    ):
        await caller.send(HEAD + b"connection: close\r\ncontent-length: 3\r\n\r\n123")
        began_s = asyncio.get_running_loop().time()
        await caller.read_until(b"\r\n\r\n")
        received = 0
        while piece := await caller.read(1 << 17):
            received += len(piece)
            await asyncio.sleep(0.005)  # this client is slow; nothing is waited for
        assert received == size
        assert asyncio.get_running_loop().time() - began_s > 0.5, "slower than the limit, or this shows nothing"


async def test_the_end_of_an_answer_that_nobody_takes_is_not_kept_for_ever() -> None:
    size = 8 << 20

    async def long_answer(call: Call) -> None:
        await call.answer(200, b"x" * size)

    async with (
        serving(SmallApp(long_answer), Timeouts(write_s=0.15, drain_s=0.1)) as served,
        Caller(served.port, receive_buffer=4096) as caller,
    ):
        await caller.send(HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        await caller.read_until(b"\r\n\r\n")
        async with asyncio.timeout(5):
            await connections_end(served)


async def test_nor_are_its_last_bytes() -> None:
    async def until_the_kernel_takes_no_more(call: Call) -> None:
        connection: Any = next(iter(served.server.server_state.connections))
        await call.wire.start(200, [])
        while not connection.transport.get_write_buffer_size():
            await call.wire.write(b"x" * 8192)
        await call.wire.finish(b"")

    app = SmallApp(until_the_kernel_takes_no_more)
    async with (
        serving(app, Timeouts(write_s=0.15, drain_s=0.1)) as served,
        Caller(served.port, receive_buffer=4096) as caller,
    ):
        await caller.send(HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        await (await app.begun.get()).ended.wait()
        async with asyncio.timeout(5):
            await connections_end(served)


async def test_an_old_client_can_tell_that_its_answer_was_cut() -> None:
    app = SmallApp(flood)
    async with (
        serving(app, Timeouts(write_s=0.1, drain_s=0.1)) as served,
        Caller(served.port, receive_buffer=4096) as caller,
    ):
        await caller.send(b"POST /v1/completions HTTP/1.0\r\ncontent-length: 3\r\n\r\n123")
        await (await app.begun.get()).ended.wait()
        with pytest.raises(ConnectionError):
            await caller.read_to_end()
