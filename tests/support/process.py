"""`nexus-gateway serve` as a process of its own, with settings of its own."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMAND: Final = Path(sys.executable).parent / "nexus-gateway"


@dataclass(frozen=True, slots=True)
class Process:
    process: asyncio.subprocess.Process
    introduction: str
    port: int

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """Exit status, and what it said on stderr after it was ready."""
        assert self.process.stderr is not None
        said = await self.process.stderr.read()
        return await self.process.wait(), said.decode()


async def start(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
    """`settings` without the prefix, in lower case."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return await asyncio.create_subprocess_exec(
        str(COMMAND),
        "serve",
        *arguments,
        env={**inherited, **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()}},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def served(*arguments: str, **settings: str) -> AsyncIterator[Process]:
    process = await start("--port", "0", *arguments, **settings)
    assert process.stderr is not None
    try:
        lines = [await process.stderr.readline()]
        while not lines[-1].startswith(b"  keys:"):
            assert lines[-1], "it ended before it was ready"
            lines.append(await process.stderr.readline())
        if b"dev-key" in lines[-1]:
            lines += [await process.stderr.readline() for _ in range(4)]
        introduction = b"".join(lines).decode()
        (port,) = re.findall(r"serves http://\S+:(\d+)/v1", introduction)
        yield Process(process, introduction, int(port))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
