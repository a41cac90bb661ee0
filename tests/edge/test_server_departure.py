"""A client who leaves ends its request at once, wherever the request stands."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from nexus_gateway.config.runtime import Timeouts
from tests.support.http_client import Caller
from tests.support.serving import serving
from tests.support.small_app import Call, Script, SmallApp, echo, flood, hang, hang_in_stream, hang_unread
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

AT_ONCE_S: Final = 0.25
PATIENT: Final = Timeouts(drain_s=0.2)
REQUEST: Final = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: 3\r\n\r\n123"

LEAVING: Final[dict[str, Callable[[Caller], None]]] = {
    "closes": lambda caller: caller.leave(),
    "resets": lambda caller: caller.leave(reset=True),
    "half-closes": lambda caller: caller.half_close(),
}


async def is_gone(call: Call) -> None:
    async with asyncio.timeout(AT_ONCE_S):
        await call.ended.wait()
    assert call.ending == "gone"


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize(
    ("script", "sent"),
    [(hang, REQUEST), (hang_unread, REQUEST), (echo, REQUEST[:-1])],
    ids=["waiting for an answer", "before the body is read", "inside the body"],
)
async def test_before_the_first_byte(script: Script, sent: bytes, way: str) -> None:
    app = SmallApp(script)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(sent)
        call = await app.begun.get()
        LEAVING[way](caller)
        await is_gone(call)


@pytest.mark.parametrize("way", LEAVING)
async def test_in_the_middle_of_a_stream(way: str) -> None:
    app = SmallApp(hang_in_stream)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(REQUEST)
        await caller.read_until(b"first\r\n")
        LEAVING[way](caller)
        await is_gone(await app.begun.get())


@pytest.mark.parametrize("way", LEAVING)
async def test_while_the_answer_waits_for_its_reader(way: str) -> None:
    app = SmallApp(flood)
    async with serving(app, PATIENT) as served, Caller(served.port, receive_buffer=4096) as caller:
        await caller.send(REQUEST)
        call = await app.begun.get()
        connection: Any = next(iter(served.server.server_state.connections))
        await until(lambda: connection.flow.write_paused)
        LEAVING[way](caller)
        await is_gone(call)


async def test_with_more_requests_in_the_queue_none_of_which_begins() -> None:
    app = SmallApp(hang)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(REQUEST * 3)
        call = await app.begun.get()
        await caller.send(REQUEST)
        caller.leave()
        await is_gone(call)
    assert app.begun.empty()
    assert not app.usual


async def test_an_application_that_listens_is_told() -> None:
    app = SmallApp()
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(REQUEST.replace(b"/v1/chat/completions", b"/elsewhere")[:-1])
        await until(lambda: app.usual)
        caller.leave()
        async with asyncio.timeout(AT_ONCE_S):
            await until(lambda: not served.server.server_state.tasks)
        assert app.usual[0]["left"]


async def test_what_an_abandoned_request_still_writes_goes_nowhere() -> None:
    may_end = asyncio.Event()

    async def stubborn(call: Call) -> None:
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            await call.answer(200, b"1")
            await call.wire.start(200, [])
            await call.wire.write(b"2")
            await call.wire.finish(b"3")

    app = SmallApp(stubborn)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(REQUEST)
        call = await app.begun.get()
        caller.half_close()
        await call.ended.wait()
        assert await caller.read_to_end() == b""


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_was_written_when_the_client_half_closes_still_reaches_it(*, stream: bool) -> None:
    async def say_all_as_it_goes(call: Call) -> None:
        await call.wire.read_body(100)
        if stream:
            await call.wire.start(200, [])
            await call.wire.write(b"one")
            await call.wire.finish(b"two")
        else:
            await call.answer(200, b"onetwo")
        caller.half_close(at_once=True)  # which the server hears before the turn ends in which it answered

    app = SmallApp(say_all_as_it_goes)
    async with serving(app, PATIENT) as served, Caller(served.port) as caller:
        await caller.send(REQUEST)
        assert (await caller.receive()).body == b"onetwo"
        assert await caller.read_to_end() == b""
        assert (await app.begun.get()).ending == "answered"


async def test_nothing_is_left_of_many_who_leave_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = SmallApp(hang_in_stream)
    async with serving(app, PATIENT) as served, AsyncExitStack() as stack:
        before = asyncio.all_tasks()
        callers = [await stack.enter_async_context(Caller(served.port)) for _ in range(200)]
        for caller in callers:
            await caller.send(REQUEST)
        calls = [await app.begun.get() for _ in callers]
        for number, caller in enumerate(callers):
            caller.leave(reset=number % 2 == 0)
        for call in calls:
            await call.ended.wait()
        await until(lambda: not (served.server.server_state.connections or served.server.server_state.tasks))
        assert asyncio.all_tasks() == before
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
