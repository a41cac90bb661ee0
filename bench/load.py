"""The load: so many connections, each with one request under way, for so many seconds.

For:      `python -m bench.load`, which reads one Order in JSON per line from stdin and answers each with one Sample.
Touches:  loopback sockets, and the clock.
"""

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final, cast

import httptools
import msgspec
import uvloop

PROMPT: Final = "The gate stands open, and whoever comes says what he wants. " * 14  # a body of about 1 KB
KEY: Final = "bench-key"
OVERTIME_S: Final = 10.0  # for answers under way when the window closes


class Order(msgspec.Struct):
    """What to measure: `seconds` after `warmup_s`, at a port of this machine, and the CPU time of process `pid`."""

    port: int
    pid: int
    stream: bool
    connections: int
    seconds: float
    warmup_s: float


class Sample(msgspec.Struct):
    """What one window showed.

    `units` are answers, or events of streams. `cpu_s` is None where nobody tells. `wrong` counts answers that were not
    200, not whole or somebody else's.
    """

    units: int
    seconds: float
    cpu_s: float | None
    p50_ms: float
    p99_ms: float
    first_byte_ms: float
    wrong: int


class Window:
    """What the connections of one window share."""

    def __init__(self, order: Order) -> None:
        self.stream = order.stream
        self.wrong = 0
        self.events = 0
        self._order = order
        self._total_s: list[float] = []
        self._first_byte_s: list[float] = []
        self._cpu_s: list[float] = []
        self.began_s = time.perf_counter() + order.warmup_s
        self.ends_s = self.began_s + order.seconds

    async def watch_cpu(self) -> None:
        """Look at the process's clock when the window opens and when it closes."""
        for instant_s in (self.began_s, self.ends_s):
            await asyncio.sleep(instant_s - time.perf_counter())
            with contextlib.suppress(OSError):
                self._cpu_s.append(cpu_time_s(self._order.pid))

    def holds(self, now_s: float) -> bool:
        return self.began_s <= now_s < self.ends_s

    def keep(self, asked_s: float, first_byte_s: float, done_s: float, is_right: bool) -> None:
        if not is_right:
            self.wrong += 1
        elif self.holds(done_s):
            self._total_s.append(done_s - asked_s)
            self._first_byte_s.append(first_byte_s - asked_s)

    def sample(self) -> Sample:
        totals, firsts = sorted(self._total_s), sorted(self._first_byte_s)
        return Sample(
            units=self.events if self.stream else len(totals),
            seconds=self._order.seconds,
            cpu_s=self._cpu_s[1] - self._cpu_s[0] if len(self._cpu_s) == 2 else None,
            p50_ms=quantile(totals, 0.5) * 1e3,
            p99_ms=quantile(totals, 0.99) * 1e3,
            first_byte_ms=quantile(firsts, 0.5) * 1e3,
            wrong=self.wrong,
        )


def quantile(ordered: list[float], share: float) -> float:
    """The value at that share of a sorted list; 0 if there is none."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def cpu_time_s(pid: int) -> float:
    """What the process and its threads used so far. Raises OSError where there is no /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request_of(tag: bytes, stream: bool, prompt: str = PROMPT) -> bytes:
    body = msgspec.json.encode(
        {"model": "bench", "stream": stream, "messages": [{"role": "user", "content": prompt}], "user": tag.decode()}
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until the window is over."""

    def __init__(self, window: Window, tag: bytes, done: asyncio.Future[None]) -> None:
        self._window = window
        self._tag = tag
        self._request = request_of(tag, window.stream)
        self._done = done
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._body: list[bytes] = []
        self._asked_s = 0.0
        self._first_byte_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._body.clear()
        self._asked_s = time.perf_counter()
        self._transport.write(self._request)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._done.done():
            self._window.wrong += 1
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._window.wrong += 1
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        now_s = time.perf_counter()
        if not self._body:
            self._first_byte_s = now_s
        self._body.append(body)
        if self._window.stream and self._window.holds(now_s):
            self._window.events += body.count(b"\n\n")

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        self._window.keep(self._asked_s, self._first_byte_s, now_s, self._is_right())
        if now_s < self._window.ends_s:
            self._ask()
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()

    def _is_right(self) -> bool:
        body = b"".join(self._body)
        tags = body.count(b"tag-")
        is_whole = body.endswith(b"data: [DONE]\n\n") if self._window.stream else body.endswith(b"}")
        return self._parser.get_status_code() == 200 and is_whole and tags > 0 and body.count(self._tag) == tags


async def measure(order: Order) -> Sample:
    """Raises TimeoutError when answers stay out."""
    loop = asyncio.get_running_loop()
    window = Window(order)
    ends: list[asyncio.Future[None]] = []
    for number in range(order.connections):
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        await loop.create_connection(
            lambda number=number, done=done: Caller(window, b"tag-%08d" % (number + 1), done),  # type: ignore[misc]
            "127.0.0.1",
            order.port,
        )
    async with asyncio.timeout(order.warmup_s + order.seconds + OVERTIME_S):
        await asyncio.gather(window.watch_cpu(), *ends)
    return window.sample()


def main() -> None:
    for line in sys.stdin:
        sample = uvloop.run(measure(msgspec.json.decode(line, type=Order)))
        print(msgspec.json.encode(sample).decode(), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
