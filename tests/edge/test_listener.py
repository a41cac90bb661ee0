"""Connections are taken for as long as the server wants them, whatever accept(2) says meanwhile."""

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from nexus_gateway.edge.listener import Listener, bind

pytestmark = pytest.mark.anyio


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Whatever is open stays open; nothing can be added, not even in place of what libuv keeps in reserve."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def greeting(raw: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(sock=raw)
    try:
        return await reader.read(-1)
    finally:
        writer.close()


async def test_who_comes_while_descriptors_are_used_up_is_served_when_there_are_some_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listening,) = bind("127.0.0.1", 0)
    listener = Listener(listening, Greeter)
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.socket()) for _ in range(5)]
        with no_descriptors_left():
            for raw in callers:
                raw.connect(("127.0.0.1", listener.port))
            used_s = time.process_time()
            await asyncio.sleep(0.25)  # several of the listener's own pauses
            assert time.process_time() - used_s < 0.1, "the loop rests meanwhile"
        for raw in callers:
            assert await greeting(raw) == b"hello"
    await listener.aclose()
    assert [record.message for record in caplog.records] == ["accept_failed"], "once, not each time"


async def test_it_takes_the_whole_queue_before_it_closes() -> None:
    (listening,) = bind("127.0.0.1", 0)
    listener = Listener(listening, Greeter)
    callers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(300)]  # the loop stands still
    port = listener.port
    await listener.aclose()
    for raw in callers:
        assert await greeting(raw) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_a_connection_that_was_reset_in_the_queue_harms_nobody() -> None:
    (listening,) = bind("127.0.0.1", 0)
    listener = Listener(listening, Greeter)
    with socket.create_connection(("127.0.0.1", listener.port)) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert await greeting(socket.create_connection(("127.0.0.1", listener.port))) == b"hello"
    await listener.aclose()


def test_a_name_stands_for_every_address_that_this_machine_has() -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(one) for one in bind("localhost", 0)]
        assert "127.0.0.1" in [one.getsockname()[0] for one in opened]


def test_an_address_in_use_or_unknown_leaves_nothing_open() -> None:
    (first,) = bind("127.0.0.1", 0)
    with first, pytest.raises(OSError, match="in use") as refusal:
        bind("127.0.0.1", first.getsockname()[1])
    assert refusal.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"assign|not available"):
        bind("192.0.2.1", 0)
    with pytest.raises(OSError, match="not the name of a host"):
        bind("127.0.0..1", 0)
