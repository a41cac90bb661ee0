"""`python -m bench.memory`: the memory that open streams take, over that of a gateway which has worked and is idle.

For:      its bar, and docs/performance.md.
Touches:  stdout, loopback sockets, the number of files that may be open, and /proc: Linux only.

The model server and the callers are here, the gateway is a process of its own with the default features on. Every
prompt holds an address of its own, so that each stream is one whose answer gets the caller's values back. Counted is
the gateway's resident memory; what the kernel keeps for its sockets is not.
"""

import argparse
import asyncio
import platform
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from . import upstream
from .load import PROMPT, request_of
from .processes import start_gateway

GOAL_MB: Final = 25  # for 1,000 streams
WARMUP: Final = 400  # plain and streamed in turns: what the gateway makes once, it has made by then
AT_A_TIME: Final = 8
EVENTS_BEFORE: Final = 5  # of each stream; then its model thinks, and the stream stays open
FILES_PER_STREAM: Final = 2  # in either process
OTHER_FILES: Final = 100
CONNECTING: Final = 100  # at a time
LATE_S: Final = 60.0
MB: Final = 1 << 20


@dataclass(frozen=True)
class Figures:
    """In bytes: idle, with all streams open, and once they are over."""

    streams: int
    idle: int
    open: int
    after: int


@dataclass
class Model:
    """What all connections to it have in common: whether it thinks after a few events, and how those streams end."""

    thinks: bool = False
    ends: asyncio.Queue[Callable[[], None]] = field(default_factory=asyncio.Queue)


class Connection(upstream.Connection):
    """Ends a stream when its model does."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def _send_events(self, piece: bytes, end: bytes, number: int, began_s: float) -> None:
        if number <= EVENTS_BEFORE:
            super()._send_events(piece, end, number, began_s)
        elif self._model.thinks:
            self._model.ends.put_nowait(lambda: self._transport.write(end))
        else:
            self._transport.write(end)


class Caller:
    """One connection with one request. Raises ValueError for an answer that is not what it should be."""

    def __init__(self, port: int, number: int, *, stream: bool) -> None:
        self._port = port
        self._tag = b"tag-%08d" % number
        self._request = request_of(self._tag, stream, f"{PROMPT} Write to reader-{number}@example.com.")
        self._end = b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}"
        self._answer = b""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def begin(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._request)
        while self._answer.count(self._tag) < EVENTS_BEFORE:
            await self._read()

    async def end(self) -> None:
        while not self._answer.endswith(self._end):
            await self._read()
        self._writer.close()
        if self._answer.count(b"tag-") != self._answer.count(self._tag):
            raise ValueError("an answer of somebody else")

    async def ask(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._request)
        await self.end()

    async def _read(self) -> None:
        piece = await self._reader.read(1 << 16)
        self._answer += piece
        if not piece or not self._answer.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"no answer, or a refusal: {self._answer[:300]!r}")


async def measure(streams: int) -> Figures:
    """Raises TimeoutError, and ValueError for a wrong answer."""
    loop, model = asyncio.get_running_loop(), Model()
    allow_files(FILES_PER_STREAM * streams + OTHER_FILES)
    server = await loop.create_server(lambda: Connection(model), "127.0.0.1", 0, backlog=CONNECTING)
    with ExitStack() as stack:
        stack.callback(server.close)
        upstream_port = server.sockets[0].getsockname()[1]
        port, pid = await loop.run_in_executor(None, lambda: start_gateway(stack, upstream_port, None))
        async with asyncio.timeout(LATE_S):
            for first in range(0, WARMUP, AT_A_TIME):
                some = range(first, first + AT_A_TIME)
                await asyncio.gather(*(Caller(port, number, stream=number % 2 == 0).ask() for number in some))
            idle = resident_bytes(pid)
            model.thinks = True
            callers = [Caller(port, number, stream=True) for number in range(streams)]
            for first in range(0, streams, CONNECTING):
                await asyncio.gather(*(caller.begin() for caller in callers[first : first + CONNECTING]))
            is_open = resident_bytes(pid)
            for _ in callers:
                end = await model.ends.get()
                end()
            await asyncio.gather(*(caller.end() for caller in callers))
            return Figures(streams, idle, is_open, resident_bytes(pid))


def allow_files(needed: int) -> None:
    """Here and in processes begun from here. Raises SystemExit where so many are not to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"{needed} open files are needed, {hard} are allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def resident_bytes(pid: int) -> int:
    """Raises SystemExit where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        raise SystemExit("no memory can be told here: it is read from /proc") from None
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def report(figures: Figures) -> str:
    more = figures.open - figures.idle
    goal = GOAL_MB * MB * figures.streams / 1000
    return "\n".join(
        [
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
            f"{figures.streams} streams open at once.",
            "",
            "| resident memory of the gateway | MB |",
            "|---|--:|",
            f"| idle, after {WARMUP} requests | {figures.idle / MB:.1f} |",
            f"| with all streams open | {figures.open / MB:.1f} |",
            f"| more than idle | {more / MB:.1f} |",
            f"| once they are over | {figures.after / MB:.1f} |",
            "",
            f"A stream takes {more / figures.streams / 1024:.1f} KB. "
            f"The goal, {goal / MB:g} MB for so many, is {'met' if more <= goal else 'missed'}.",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="What open streams take.")
    parser.add_argument("--streams", type=int, default=1000)
    print(report(uvloop.run(measure(parser.parse_args().streams))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
