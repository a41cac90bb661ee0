"""Every request that reached authentication leaves one record, whatever becomes of it, the disk or the gateway."""

import asyncio
import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nexus_gateway.app import build
from nexus_gateway.config.settings import load
from nexus_gateway.core.request_line import RequestLine
from tests.observe.audit_files import lines_of, request_ids, verify
from tests.support.gateway import KEY, gateway
from tests.support.http_client import CHAT, Caller, Received, chat
from tests.support.serving import serving

pytestmark = pytest.mark.anyio

CANARY = "kanarienvogel"
SAID = {"model": "mock", "messages": [{"role": "user", "content": CANARY}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def until(holds: Callable[[], bool]) -> None:
    """For what another thread or process does."""
    await until_told(lambda: asyncio.to_thread(holds))


async def until_told(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110  # nobody here could set an event
            await asyncio.sleep(0.01)


async def get(port: int, path: str) -> Received:
    async with Caller(port) as caller:
        await caller.send(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode())
        return await caller.receive()


async def state_of(port: int) -> tuple[int, str]:
    answer = await get(port, "/readyz")
    return answer.status, answer.json()["status"]


async def until_state(port: int, state: tuple[int, str]) -> None:
    async def is_so() -> bool:
        return await state_of(port) == state

    await until_told(is_so)


async def until_metric(port: int, line: bytes) -> None:
    async def is_so() -> bool:
        return line in (await get(port, "/metrics")).body

    await until_told(is_so)


async def test_one_record_for_each_request_whatever_its_end(path: Path) -> None:
    upstreams = "mock=mock://local;broken=mock://local?status=500;slow=mock://local?delay_ms=20000"
    settings = {"AUDIT_FILE": str(path), "RATE_LIMIT_PER_MINUTE": "7"}
    async with gateway(settings, upstreams) as running:

        async def ask(model: str, **more: Any) -> int:
            return (await chat(running.port, body=json.dumps({**SAID, "model": model, **more}).encode())).status

        assert await ask("mock") == 200
        assert await ask("mock", stream=True) == 200
        assert await ask("broken") == 502
        assert await ask("nobody") == 404
        assert await ask("mock", n=-1) == 400
        assert (await chat(running.port, body=b"{")).status == 400
        async with Caller(running.port) as leaver:
            await leaver.ask(body=json.dumps({**SAID, "model": "slow"}).encode())
            await until(lambda: running.records.begun == 7)
        await running.idle()
        assert [(await ask("mock")) for _ in range(5)] == [200, 200, 200, 429, 429]
        for _ in range(3):
            assert (await chat(running.port, headers={"x-api-key": "wrong-key"})).status == 401
        await running.idle()
        finished = running.records.finished_records
    assert verify(path).finding is None
    assert request_ids(path) == [record.request_id for record in finished if record.status != 401]
    told = [line for line in lines_of(path) if line["event"] == "audit"]
    statuses = [line["status"] for line in told]
    assert statuses == [200, 200, 502, 404, 400, 400, 499, 200, 200, 200, 429, 429]
    assert {attempt["outcome"] for attempt in told[2]["attempts"]} == {"unavailable"}
    assert told[6]["client_gone"]
    assert {line["client"] for line in told} == {"127.0.0.1"}
    (failed,) = [line for line in lines_of(path) if line["event"] == "audit_logins_failed"]
    assert (failed["client"], failed["count"]) == ("127.0.0.1", 3)
    assert not [line for line in told if any(secret in str(line) for secret in (CANARY, KEY, "wrong-key"))]


@dataclass(slots=True)
class Stdout:
    """What a gateway writes to, and the end that somebody may read."""

    port: int
    reader: int
    writer: int

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in os.read(self.reader, 1 << 20).splitlines()]


@asynccontextmanager
async def with_stdout(**settings: str) -> AsyncIterator[Stdout]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)
    environ = {
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "unlimited",
        "GATEWAY_API_KEYS": KEY,
        "GATEWAY_PII_MASKING_ENABLED": "off",
        **settings,
    }
    runtime = load(environ).runtime
    try:
        async with serving(build(runtime, log_fd=writer), runtime.timeouts) as served:
            yield Stdout(served.port, reader, writer)
    finally:
        os.close(reader)
        os.close(writer)


async def ask(port: int) -> Received:
    return await chat(port, body=json.dumps(SAID).encode())


async def test_on_stdout_the_record_takes_the_place_of_the_request_line() -> None:
    async with with_stdout() as stdout:
        assert (await ask(stdout.port)).status == 200
        await asyncio.to_thread(_readable, stdout.reader)
        (line,) = stdout.lines()
    assert line["event"] == "audit"
    assert {field.name for field in msgspec.structs.fields(RequestLine) if field.required} < set(line)


def _readable(fd: int) -> None:
    assert select.select([fd], [], [], 5)[0]


async def test_with_a_file_stdout_keeps_its_request_lines_and_gets_the_anchors(path: Path) -> None:
    async with with_stdout(GATEWAY_AUDIT_FILE=str(path), GATEWAY_AUDIT_CHECKPOINT_RECORDS="1") as stdout:
        assert (await ask(stdout.port)).status == 200
        await until(path.exists)
        await until(lambda: len(request_ids(path)) == 1)
        await asyncio.to_thread(_readable, stdout.reader)
        await until(lambda: b"audit_checkpoint" in path.read_bytes())
    assert [line["event"] for line in lines_of(path)] == [
        "audit_opened", "audit", "audit_checkpoint", "audit_checkpoint",
    ]  # fmt: skip


async def test_switched_off_there_are_request_lines_only(path: Path) -> None:
    async with with_stdout(GATEWAY_AUDIT_LOGGING_ENABLED="off", GATEWAY_AUDIT_FILE=str(path)) as stdout:
        assert (await ask(stdout.port)).status == 200
        await asyncio.to_thread(_readable, stdout.reader)
        assert [line["event"] for line in stdout.lines()] == ["request_finished"]
    assert not os.listdir(path.parent)


async def test_while_the_file_cannot_be_written_serving_goes_on(path: Path) -> None:
    os.mkdir(path)
    async with gateway({"AUDIT_FILE": str(path), "LOG_LEVEL": "critical"}) as running:
        await until(lambda: running.app.data_plane is not None)
        assert (await ask(running.port)).status == 200
        await until_state(running.port, (200, "degraded"))
        assert b"nexus_audit_failing 1.0" in (await get(running.port, "/metrics")).body
        os.rmdir(path)
        await until_state(running.port, (200, "ok"))
        assert (await ask(running.port)).status == 200
    assert verify(path).finding is None
    assert len(request_ids(path)) == 2


async def test_with_the_policy_to_block_nobody_is_served_unrecorded(path: Path) -> None:
    os.mkdir(path)
    settings = {"AUDIT_FILE": str(path), "AUDIT_ON_FAILURE": "block", "LOG_LEVEL": "critical"}
    async with gateway(settings) as running:
        await until_state(running.port, (503, "audit unavailable"))
        for headers in ({}, {"x-api-key": "wrong-key"}):
            answer = await chat(running.port, headers=headers)
            assert (answer.status, answer.json()["error"]["code"]) == (503, "audit_unavailable")
            assert answer.headers["retry-after"] == "1"
        os.rmdir(path)
        await until_state(running.port, (200, "ok"))
        assert (await ask(running.port)).status == 200
        await running.idle()
        last = running.records.last.request_id
    assert verify(path).finding is None
    assert request_ids(path) == [last]


@pytest.mark.parametrize("policy", ["drop", "block"])
async def test_a_stdout_that_nobody_reads(policy: str) -> None:
    async with with_stdout(GATEWAY_AUDIT_ON_FAILURE=policy) as stdout:
        blocked = (200, "degraded") if policy == "drop" else (503, "audit unavailable")
        async with asyncio.timeout(15):
            while await state_of(stdout.port) != blocked:
                assert (await ask(stdout.port)).status in (200, blocked[0])
        assert (await ask(stdout.port)).status == (200 if policy == "drop" else 503)
        async with asyncio.timeout(15):
            while await state_of(stdout.port) != (200, "ok"):
                await asyncio.to_thread(_drain, stdout.reader)
        assert (await ask(stdout.port)).status == 200
        await asyncio.to_thread(_drain, stdout.reader)


def _drain(fd: int) -> None:
    if select.select([fd], [], [], 0.05)[0]:
        with suppress(BlockingIOError):
            os.read(fd, 1 << 20)


async def test_a_closed_stdout_costs_lines_and_nothing_else() -> None:
    async with with_stdout() as stdout:
        full = os.open("/dev/full", os.O_WRONLY)
        usual = os.dup(stdout.writer)
        os.dup2(full, stdout.writer)
        assert (await ask(stdout.port)).status == 200
        await until_state(stdout.port, (200, "degraded"))
        assert (await ask(stdout.port)).status == 200
        await until_metric(stdout.port, b"nexus_audit_records_dropped_total 2.0")
        os.dup2(usual, stdout.writer)
        await until_state(stdout.port, (200, "ok"))  # by the record of the gap, without any request
        (line,) = stdout.lines()
        assert (line["event"], line["count"]) == ("audit_gap", 2)
        os.close(usual)
        os.close(full)


@asynccontextmanager
async def process(path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`nexus-gateway serve` with its audit in `path`, and its port."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environ |= {"GATEWAY_AUDIT_FILE": str(path), "GATEWAY_API_KEYS": KEY, "GATEWAY_RATE_LIMIT_PER_MINUTE": "unlimited"}
    started = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "nexus-gateway"), "serve", "--port", "0",
        env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert started.stderr is not None
    try:
        introduction = await started.stderr.readuntil(b"/v1\n")
        yield started, int(introduction.removesuffix(b"/v1\n").rpartition(b":")[2])
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def test_a_killed_gateway_leaves_a_file_that_the_next_one_continues(path: Path) -> None:
    for rounds in (1, 2):
        async with process(path) as (started, port):
            for _ in range(5):
                assert (await chat(port, body=json.dumps({**CHAT, "model": "mock"}).encode())).status == 200
            await until(lambda: len(_whole_lines(path)) >= rounds * 5)  # noqa: B023  # awaited here
            started.send_signal(signal.SIGKILL)
            await started.wait()
        assert verify(path).finding is None
    async with process(path) as (started, port):
        started.terminate()
        assert await started.wait() == 0
    assert verify(path).finding is None
    events = [line["event"] for line in lines_of(path)]
    assert (events.count("audit_opened"), events.count("audit"), events[-1]) == (3, 10, "audit_checkpoint")


def _whole_lines(path: Path) -> list[str]:
    text = path.read_bytes()
    return [
        line["request_id"]
        for line in map(json.loads, text[: text.rfind(b"\n") + 1].splitlines())
        if "request_id" in line
    ]


async def test_sigterm_writes_the_last_record_and_the_checkpoint(path: Path) -> None:
    async with process(path) as (started, port):
        assert (await chat(port, body=json.dumps({**CHAT, "model": "mock"}).encode())).status == 200
        started.terminate()
        stdout, _ = await started.communicate()
        assert started.returncode == 0
    anchor = next(line for line in stdout.splitlines() if b'"audit_checkpoint"' in line)
    assert verify(path, anchors=(anchor,)).unproved == []
    assert len(request_ids(path)) == 1
