"""Lines on their way to stdout, written by one thread: a blocked reader stops the thread, never the loop.

For:      request lines and the gateway's own log, one JSON object per line.
Touches:  a file descriptor, from its thread only.
"""

import os
import queue
import threading
from collections.abc import Callable
from typing import Final

MAX_WAITING: Final = 20_000  # lines; beyond it they are dropped and counted
CLOSE_WAIT_S: Final = 2.0  # for the last lines, when nobody may be reading them


class LineWriter:
    """`put` takes what turns into bytes on the writer's thread. `dropped` counts lines that found no room."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._batches: queue.SimpleQueue[tuple[int, Callable[[], bytes]] | None] = queue.SimpleQueue()
        self._waiting = 0  # lines handed over; only the loop's thread adds
        self._written = 0  # only the writer's thread adds
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, lines: int, render: Callable[[], bytes]) -> None:
        """Hand over a batch of `lines` lines. Never waits."""
        if self._waiting - self._written + lines > MAX_WAITING:
            self.dropped += lines
            return
        self._waiting += lines
        self._batches.put((lines, render))

    def close(self) -> None:
        """Write what was handed over; give up after CLOSE_WAIT_S if nobody reads."""
        self._batches.put(None)
        self._thread.join(CLOSE_WAIT_S)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            lines, render = batch
            self._write(lines, render())
            self._written += lines

    def _write(self, lines: int, text: bytes) -> None:
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:  # stdout is closed or its reader is gone: serving goes on
            self.dropped += lines
