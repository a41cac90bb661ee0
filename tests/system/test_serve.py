"""`nexus-gateway serve` as operators meet it: a process, its words, its signals, its exit status."""

import asyncio
import os
import re
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from nexus_gateway.cli import main
from nexus_gateway.config.settings import load
from nexus_gateway.serve import introduce
from tests.support.http_client import Caller
from tests.support.process import served, start
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

DEV = {"x-api-key": "dev-key"}
STREAMS = 50
STREAM = b'{"model":"mock","stream":true,"messages":[{"role":"user","content":"hello"}]}'
CUT_SHORT = b"shutting_down"


@asynccontextmanager
async def streams(port: int) -> AsyncIterator[list[Caller]]:
    """So many callers who have begun to receive."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Caller(port)) for _ in range(STREAMS)]
        for caller in callers:
            await caller.ask(body=STREAM, headers=DEV)
        for caller in callers:
            await caller.read_until(b"data: ")
        yield callers


# ---- words


async def test_the_line_that_it_prints_works_when_pasted() -> None:
    async with served() as gateway:
        command = gateway.introduction[gateway.introduction.index("curl ") :]
        pasted = await asyncio.create_subprocess_exec(
            "bash", "-c", command.replace("curl ", "curl -sf ", 1), stdout=asyncio.subprocess.PIPE
        )
        answer, _ = await pasted.communicate()
        assert (pasted.returncode, b'"object":"chat.completion"' in answer) == (0, True)
        assert "models: mock" in gateway.introduction
        assert "warning" not in gateway.introduction


def test_it_warns_when_others_can_use_the_key_that_everybody_knows() -> None:
    assert "\nwarning: " in introduce(load({}), "0.0.0.0", 8000)
    assert "\nwarning: " in introduce(load({}), "::", 8000)
    assert "warning" not in introduce(load({}), "127.0.0.1", 8000)
    assert "warning" not in introduce(load({}), "::1", 8000)
    own_key = introduce(load({"GATEWAY_API_KEYS": "one-of-our-own"}), "0.0.0.0", 8000)
    assert "warning" not in own_key
    assert "dev-key" not in own_key


def refused(*arguments: str, **settings: str) -> tuple[int, str]:
    environ = {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    result = CliRunner(env=environ).invoke(main, ["serve", *arguments])
    return result.exit_code, result.stderr


def test_it_does_not_start_with_a_bad_configuration_and_names_every_problem() -> None:
    status, said = refused(upstreams="mock=ftp://nowhere", rate_limit_per_minute="-1", api_key="x")
    assert status == 2
    for name in ("GATEWAY_UPSTREAMS", "GATEWAY_RATE_LIMIT_PER_MINUTE", "GATEWAY_API_KEYS"):
        assert name in said


def test_it_says_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = refused("--port", str(port))
    assert status == 1
    assert said == f"Cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --host or --port.\n"


async def test_operators_get_a_port_of_their_own() -> None:
    async with served(ops_listen="127.0.0.1:0") as gateway:
        (ops_port,) = re.findall(r"ops: +http://127.0.0.1:(\d+) \(/metrics, ", gateway.introduction)
        for port, status in ((int(ops_port), 200), (gateway.port, 404)):
            async with Caller(port) as caller:
                await caller.send(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n")
                assert (await caller.receive()).status == status


def test_it_says_when_the_operators_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = refused("--port", "0", ops_listen=address)
    assert status == 1
    assert said == f"Cannot listen on {address}: Address already in use. Choose another GATEWAY_OPS_LISTEN.\n"


def test_it_says_when_the_address_is_not_one_of_ours() -> None:
    status, said = refused("--host", "192.0.2.1")  # an address for documentation
    assert status == 1
    assert said.startswith("Cannot listen on 192.0.2.1:8000: ")


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_go_with_many_streams_open_it_finishes_all_of_them(number: signal.Signals) -> None:
    async with (
        served(upstreams="mock=mock://local?chunk_delay_ms=25&tokens=20", rate_limit_per_minute="unlimited") as gateway,
        streams(gateway.port) as callers,
    ):
        gateway.signal(number)
        for answer in await asyncio.gather(*(caller.read_to_end() for caller in callers)):
            assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert await gateway.ended() == (0, "")


async def test_told_to_go_before_it_is_loaded_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As process 1 of a container it would never hear of a signal that it does not catch yet."""
    (tmp_path / "click.py").write_text(
        "import sys, time; print('loading', file=sys.stderr, flush=True); time.sleep(60)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = await start()
    assert process.stderr is not None
    assert await process.stderr.readline() == b"loading\n"
    process.send_signal(signal.SIGTERM)
    assert await process.stderr.read() == b""
    assert await process.wait() == 0


async def test_it_is_not_ready_at_once_and_serves_until_the_delay_is_over() -> None:
    async with served(drain_delay_seconds="20") as gateway, Caller(gateway.port) as caller:
        await caller.send(b"GET /readyz HTTP/1.1\r\nhost: g\r\n\r\n")
        assert (await caller.receive()).status == 200
        gateway.signal(signal.SIGTERM)
        await is_not_ready(gateway.port)
        async with Caller(gateway.port) as late:
            await late.ask(body=STREAM.replace(b'"stream":true,', b""), headers=DEV)
            answer = await late.receive()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == (1, "")


async def is_not_ready(port: int) -> None:
    status = 200
    while status != 503:
        async with Caller(port) as caller:
            await caller.send(b"GET /readyz HTTP/1.1\r\nhost: g\r\n\r\n")
            status = (await caller.receive()).status


async def test_at_the_drain_limit_streams_end_with_an_error_event() -> None:
    slow = "mock=mock://local?chunk_delay_ms=2000&tokens=1000"
    async with (
        served(upstreams=slow, drain_seconds="0.2", rate_limit_per_minute="unlimited") as gateway,
        streams(gateway.port) as callers,
    ):
        gateway.signal(signal.SIGTERM)
        for answer in await asyncio.gather(*(caller.read_to_end() for caller in callers)):
            assert CUT_SHORT in answer
            assert answer.endswith(b"\n\n\r\n0\r\n\r\n")
            assert b"[DONE]" not in answer
        assert await gateway.ended() == (0, "")


async def test_a_second_signal_ends_it_now() -> None:
    slow = "mock=mock://local?chunk_delay_ms=2000&tokens=1000"
    async with (
        served(upstreams=slow, drain_seconds="60", rate_limit_per_minute="unlimited") as gateway,
        streams(gateway.port),
    ):
        gateway.signal(signal.SIGTERM)
        await refuses_connections(gateway.port)
        gateway.signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert await gateway.ended() == (1, "")


async def refuses_connections(port: int) -> None:
    while True:
        try:
            async with Caller(port):
                pass
        except ConnectionError:
            return


# ---- descriptors


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets another process's limits")
async def test_out_of_descriptors_open_streams_live_and_callers_are_served_later() -> None:
    upstreams = "mock=mock://local?chunk_delay_ms=25&tokens=20"
    async with (
        served(upstreams=upstreams, rate_limit_per_minute="unlimited") as gateway,
        streams(gateway.port) as callers,
        AsyncExitStack() as stack,
    ):
        pid = gateway.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        in_use = len(os.listdir(f"/proc/{pid}/fd"))  # no disk is behind it
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 5, hard))
        waiting = [await stack.enter_async_context(Caller(gateway.port)) for _ in range(20)]
        for caller in waiting:
            await caller.ask(body=STREAM, headers=DEV)
        await until(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= in_use + 4)
        for answer in await asyncio.gather(*(caller.read_until(b"[DONE]\n\n\r\n0\r\n\r\n") for caller in callers)):
            assert CUT_SHORT not in answer
        for caller in callers:
            caller.leave()
        for caller in waiting:
            assert (await caller.receive()).body.endswith(b"data: [DONE]\n\n")
        gateway.signal(signal.SIGTERM)
        status, said = await gateway.ended()
        assert (status, "Traceback" in said) == (0, False)
