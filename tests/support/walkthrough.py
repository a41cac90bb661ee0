"""Does what a page of the documentation says, block by block, as a reader would who copies each into a terminal.

For:      tests that hold the commands in README.md and docs/ to their word.
Touches:  processes, ports of its own in the place of those on the page, and a folder of its own that looks like the
          repository.

A fenced block of bash is run. It is not if the line above it says why: `<!-- not run: needs Docker -->`, or who runs it
instead: `<!-- run by .ci/run -->`. A block that ends in a server is left running beside the rest of the page, until
another one takes its port; `<!-- after the gateway has stopped -->` above a block stops it first.
"""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]
REASONS: Final = ("needs a GPU", "needs a model server", "needs Docker", "needs Kubernetes")
STOPPED: Final = "after the gateway has stopped"
BLOCK_S: Final = 120.0  # for a block that ends by itself
START_S: Final = 60.0  # for a server

_BLOCK: Final = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WORKER: Final = "examples/grpc_worker/worker.py"
_SERVER: Final = re.compile(
    rf"(?:^|[ \n])(make run|nexus-gateway serve|uvicorn app\.main:app|\S*python {_WORKER})\b[^\n|]*"
)
_ADDRESS: Final = re.compile(r"(localhost:|127\.0\.0\.1:|--port[= ])(\d{4,5})\b")
_PLACEHOLDER: Final = re.compile(r"^git clone <[^>]*> \S+ && cd \S+$", re.MULTILINE)  # the reader has that already
_GIVEN: Final = {"KEY": "a-key-of-the-reader", "OPENAI_API_KEY": "sk-of-the-reader"}  # a reader has these
_BEGIN: Final = """\
set -euo pipefail
curl() { command curl --silent --show-error --fail-with-body --max-time 10 "$@"; }
make() { command make -o .venv/runtime.stamp -o .venv/dev.stamp "$@"; }  # what is installed is not for tests to change
source state
"""
_END: Final = "\ndeclare -p | grep -vE '^declare -[a-zA-Z]*r' >state\n"


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    line: int
    mark: str | None  # what the comment above it says
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.mark is None or self.mark == STOPPED


def pages() -> list[str]:
    """In the folder of the repository. The Korean README shows the same code as the English one."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    return [str(page.relative_to(ROOT)) for page in found]


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    for found in _BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2])


@dataclass(slots=True)
class Server:
    process: asyncio.subprocess.Process
    log: Path

    async def stop(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
        await self.process.wait()


@dataclass(slots=True)
class Walkthrough:
    """One page's session. `ports` are ours by those on the page."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    servers: dict[int, Server] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        for entry in ROOT.iterdir():
            (self.folder / entry.name).symlink_to(entry)
        (self.folder / "state").write_text("")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_all()

    async def follow(self, block: Block) -> None:
        if block.mark == STOPPED:
            await self._stop_all()
        text = _ADDRESS.sub(lambda found: f"{found[1]}{self._port(found[2])}", _PLACEHOLDER.sub("", block.text))
        server = _SERVER.search(text)
        if server is None:
            await self._run(block, text)
        else:
            await self._serve(block, text, server)

    def _port(self, shown: str) -> int:
        if shown not in self.ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.ports[shown] = free.getsockname()[1]
        return self.ports[shown]

    async def _run(self, block: Block, text: str) -> None:
        process = await self._start(_BEGIN + text + _END, asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(BLOCK_S):
                said, _ = await process.communicate()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
            raise AssertionError(f"{block} did not end within {BLOCK_S:.0f} s") from None
        assert process.returncode == 0, f"{block} ended with {process.returncode}:\n{said.decode()}"

    async def _serve(self, block: Block, text: str, server: re.Match[str]) -> None:
        port = self._port("8000")
        if "--port" not in server[0]:
            wanted = f' RUN_ARGS="--port {port}"' if server[1] == "make run" else f" --port {port}"
            text = text[: server.end(1)] + wanted + text[server.end(1) :]
        else:
            port = next(ours for ours in self.ports.values() if f"{ours}" in server[0])
        if port in self.servers:
            await self.servers.pop(port).stop()
        log = self.folder / f"server-{block.line}.log"
        before, command = _split(text, server.start(1))
        if before.strip():
            await self._run(block, before)
        with log.open("wb") as output:
            process = await self._start(_BEGIN + command, output.fileno())
        self.servers[port] = Server(process, log)
        try:
            async with asyncio.timeout(START_S):
                while not await _listens(port, speaks_http=_WORKER not in server[1]):
                    assert process.returncode is None, f"{block} ended:\n{log.read_text()}"
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{block} did not serve within {START_S:.0f} s:\n{log.read_text()}") from None

    async def _start(self, script: str, output: int) -> asyncio.subprocess.Process:
        commands = Path(sys.executable).parent
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "MAKE", "MFLAGS"))
        }
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=self.folder,
            env={**environ, **_GIVEN, "PATH": f"{commands}:{environ['PATH']}"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def _stop_all(self) -> None:
        servers, self.servers = list(self.servers.values()), {}
        for server in servers:
            await server.stop()


def _split(text: str, at: int) -> tuple[str, str]:
    """What stands before the command that begins at or before `at`, which may go over several lines; and the rest."""
    begin = at
    while begin and not (text[begin - 1] == "\n" and text[begin - 2 : begin - 1] != "\\"):
        begin -= 1
    return text[:begin], text[begin:]


async def _listens(port: int, *, speaks_http: bool) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    if not speaks_http:
        writer.close()
        return True
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
    try:
        return (await reader.read(-1)).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
