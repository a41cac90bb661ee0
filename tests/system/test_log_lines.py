"""What stands on stdout of a gateway's process: JSON lines from its first to its last, whoever writes them."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_client import Caller, Received

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
UVICORN = ("uvicorn", "app.main:app", "--port", "0")
SERVE = ("nexus-gateway", "serve", "--port", "0")
HOSTILE = 'm"\n{"level":"error"}\r\x1b[31m\x00\u2028\ud7ff'
HEADERS = {"x-api-key": "dev-key", "x-request-id": '"},{', "x-forwarded-for": '127.0.0.1"', "user-agent": '"\\"'}


class Process:
    """A gateway. `lines` is what it has written to stdout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self.port = 0

    async def ended(self) -> list[str]:
        self._process.send_signal(signal.SIGTERM)
        out, _ = await self._process.communicate()
        return self.lines + out.decode().split("\n")[:-1]

    async def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in await self.ended()]


@asynccontextmanager
async def running(*command: str, announces_on: str, **settings: str) -> AsyncIterator[Process]:
    """A gateway's process, once it has told its port on that stream."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    process = await asyncio.create_subprocess_exec(
        str(BIN / command[0]),
        *command[1:],
        cwd=ROOT,
        env={**inherited, **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    gateway = Process(process)
    try:
        stream = process.stdout if announces_on == "stdout" else process.stderr
        assert stream is not None
        while not gateway.port:
            line = (await stream.readline()).decode()
            assert line, "it ended before it was ready"
            if announces_on == "stdout":
                gateway.lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                gateway.port = int(found[1])
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ask_hostile_things(port: int) -> list[Received]:
    async with Caller(port) as caller:
        answers = []
        for model in ("mock", HOSTILE):
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": HOSTILE}]}).encode()
            await caller.ask(body=body, headers=HEADERS)
            answers.append(await caller.receive())
        await caller.send(b"GET /%0a%7b%22level%22:1%7d%1b%ff HTTP/1.1\r\nhost: gateway\r\n\r\n")
        return [*answers, await caller.receive()]


def check(lines: list[dict[str, Any]]) -> None:
    assert all({"level", "timestamp", "event"} <= set(line) for line in lines)
    requests = [line for line in lines if line["event"] == "audit"]
    assert [line["status"] for line in requests] == [200, 404]
    assert HEADERS["x-request-id"] not in {line["request_id"] for line in requests}


async def test_every_line_is_a_json_object() -> None:
    async with running(*SERVE, announces_on="stderr") as gateway:
        assert [answer.status for answer in await ask_hostile_things(gateway.port)] == [200, 404, 404]
        check(await gateway.objects())


async def test_uvicorns_own_lines_have_the_form_too_from_the_first_to_the_last() -> None:
    async with running(*UVICORN, announces_on="stdout") as gateway:
        assert [answer.status for answer in await ask_hostile_things(gateway.port)] == [200, 404, 404]
        lines = await gateway.objects()
    check(lines)
    own = [line["event"] for line in lines if line.get("logger", "").startswith("uvicorn")]
    assert own[0].startswith("Started server process")
    assert own[-1].startswith("Finished server process")
    assert sum('"POST /v1/chat/completions HTTP/1.1" 200' in event for event in own) == 1


async def test_at_level_error_the_records_of_requests_remain_alone() -> None:
    async with running(*SERVE, announces_on="stderr", log_level="error") as gateway:
        await ask_hostile_things(gateway.port)
        lines = await gateway.objects()
    assert {line["event"] for line in lines} == {"audit"}


async def test_people_get_lines_that_they_can_read() -> None:
    async with running(*SERVE, announces_on="stderr", log_format="console") as gateway:
        await ask_hostile_things(gateway.port)
        lines = await gateway.ended()
    assert all(line.isprintable() for line in lines)
    answered = next(line for line in lines if "status=200" in line)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} info +audit request_id=\S+ key_id=key-\w{8} operation=chat ", answered)
    assert "attempts=mock:ok" in answered


async def test_what_python_and_the_loop_warn_of_has_the_form_too() -> None:
    program = """
import asyncio, warnings
from nexus_gateway.app import create_app
create_app()
warnings.warn("an old way\\nof doing it")
async def nobody_waits_for():
    raise ValueError("unheard")
async def main():
    asyncio.get_running_loop().create_task(nobody_waits_for())
    await asyncio.sleep(0)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [("py.warnings", "warning"), ("asyncio", "error")]
    assert "an old way\nof doing it" in lines[0]["event"]
    assert "ValueError: unheard" in lines[1]["exception"]
    assert err == b""
