"""A server that is told to go finishes what it began, and takes nothing new."""

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Final

import pytest

from nexus_gateway.config.runtime import Timeouts
from tests.support.http_client import Caller
from tests.support.serving import serving
from tests.support.small_app import Call, Script, SmallApp, flood, hang, hang_in_stream
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

REQUEST: Final = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: 3\r\n\r\n123"
PROBE: Final = b"GET /probe HTTP/1.1\r\nhost: gateway\r\n\r\n"


async def test_while_it_delays_it_serves_and_says_that_it_will_go() -> None:
    async with serving(SmallApp(), Timeouts(drain_delay_s=20, drain_s=1)) as served:
        async with Caller(served.port) as old, Caller(served.port) as idle, Caller(served.port) as early:
            await early.send(REQUEST[:-1])
            await old.send(PROBE)
            answer = await old.receive()
            assert (answer.json()["draining"], answer.headers.get("connection")) == (False, None)
            await idle.send(PROBE)
            await idle.receive()
            served.server.stop()
            await until(lambda: served.server.draining)
            for request in (PROBE, REQUEST):
                async with Caller(served.port) as new:
                    await new.send(request)
                    answer = await new.receive()
                    assert (answer.status, answer.headers["connection"]) == (200, "close")
                    assert await new.read_to_end() == b""
            await old.send(PROBE)
            answer = await old.receive()
            assert (answer.json()["draining"], answer.headers["connection"]) == (True, "close")
            await early.send(REQUEST[-1:])
            assert (await early.receive()).headers["connection"] == "close"
        served.server.stop()


async def test_what_was_under_way_is_finished_and_only_then_the_application_is_closed() -> None:
    may_answer = asyncio.Event()

    async def answer_late(call: Call) -> None:
        await call.wire.read_body(100)
        await call.wire.start(200, [])
        await call.wire.write(b"one")
        await may_answer.wait()
        await call.wire.finish(b"two")

    app = SmallApp(answer_late)
    async with serving(app, Timeouts(drain_s=20)) as served, Caller(served.port) as caller, Caller(served.port) as slow:
        await caller.send(REQUEST)
        await caller.read_until(b"one\r\n")
        await slow.send(REQUEST[:-1])
        slow_call = (await app.begun.get(), await app.begun.get())[1]
        served.server.stop()
        await refuses_connections(served.port)
        await slow.send(REQUEST[-1:])
        may_answer.set()
        assert await caller.read_to_end() == b"3\r\ntwo\r\n0\r\n\r\n"
        assert (await slow.receive()).body == b"onetwo"
        await slow_call.ended.wait()
        assert slow_call.ending == "answered"
        await app.closing.wait()


async def refuses_connections(port: int) -> None:
    while True:
        try:
            async with Caller(port):
                await asyncio.sleep(0)
        except ConnectionError:
            return


async def test_whoever_was_in_the_accept_queue_is_served() -> None:
    async with serving(SmallApp(), Timeouts(drain_s=20)) as served, AsyncExitStack() as stack:
        address = ("127.0.0.1", served.port)
        queued = [stack.enter_context(socket.create_connection(address)) for _ in range(100)]  # the loop stands still
        served.server.stop()
        for raw in queued:
            raw.sendall(REQUEST)
        await refuses_connections(served.port)
        for raw in queued:
            reader, writer = await asyncio.open_connection(sock=raw)
            assert (await reader.read(-1)).endswith(b"123")
            writer.close()


async def test_a_request_that_may_be_on_its_way_is_waited_for() -> None:
    async with serving(SmallApp(), Timeouts(drain_s=1)) as served, Caller(served.port) as caller:
        await until(lambda: served.server.server_state.connections)
        for _ in ("the first request", "one that follows an answer"):
            await asyncio.sleep(0.01)  # how long it has been on its way
            for connection in served.server.server_state.connections:
                connection.shutdown()
            await caller.send(REQUEST)
            assert (await caller.receive()).body == b"123"


async def test_connections_that_wait_for_nothing_do_not_hold_it_up() -> None:
    app = SmallApp()
    async with serving(app, Timeouts(drain_s=20)) as served, Caller(served.port) as used, Caller(served.port) as fresh:
        await used.send(REQUEST)
        await used.receive()
        served.server.stop()
        async with asyncio.timeout(2):
            assert await used.read_to_end() == b""
            assert await fresh.read_to_end() == b""
            await app.closing.wait()


@pytest.mark.parametrize(
    ("script", "ending"),
    [(hang, b'"shutting down"'), (hang_in_stream, b"first\r\n0\r\n\r\n")],
    ids=["plain", "stream"],
)
async def test_at_the_limit_who_still_waits_is_told(script: Script, ending: bytes) -> None:
    async def ended_in_words(call: Call) -> None:
        try:
            await script(call)
        except asyncio.CancelledError:
            if script is hang_in_stream:
                await call.wire.finish(b"")
            raise

    app = SmallApp(ended_in_words)
    async with serving(app, Timeouts(drain_s=0.05)) as served, Caller(served.port) as caller:
        await caller.send(REQUEST)
        call = await app.begun.get()
        served.server.stop()
        assert (await caller.read_to_end()).endswith(ending)
        assert call.ending == "told to end"


async def test_a_usual_request_at_the_limit_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(SmallApp(), Timeouts(drain_s=0.05)) as served, Caller(served.port) as caller:
        await caller.send(PROBE.replace(b"\r\n\r\n", b"\r\ncontent-length: 9\r\n\r\n"))
        await until(lambda: served.server.server_state.tasks)
        served.server.stop()
        answer = await caller.receive()
        assert (answer.status, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("where", ["in the delay", "in the drain", "in the application"])
async def test_a_second_wish_ends_it_now(where: str) -> None:
    app = SmallApp(hang)
    timeouts = Timeouts(drain_delay_s=20 if where == "in the delay" else 0, drain_s=20)
    async with asyncio.timeout(5), serving(app, timeouts) as served, Caller(served.port) as caller:
        if where == "in the application":
            app.may_close.clear()
            served.server.stop()
            await app.closing.wait()
        else:
            await caller.send(REQUEST)
            await app.begun.get()
            served.server.stop()
        await until(lambda: served.server.draining)
        served.server.stop()
    assert served.server.force_exit
    assert not served.server.server_state.connections
    app.may_close.set()


async def test_it_goes_although_somebody_does_not_take_the_answer() -> None:
    app = SmallApp(flood)
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(5), serving(app, Timeouts(write_s=60, drain_s=0.05)) as served:
            caller = await stack.enter_async_context(Caller(served.port, receive_buffer=4096))
            await caller.send(REQUEST)
            await app.begun.get()
        await until(lambda: not (served.server.server_state.connections or served.server.server_state.tasks))
