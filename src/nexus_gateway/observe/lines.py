"""Lines on their way to stdout, written by one thread: a blocked reader stops the thread, never the loop.

For:      request lines and the gateway's own log, one JSON object per line.
Touches:  a file descriptor, from its thread only.
"""

import math
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import Final

MAX_WAITING: Final = 20_000  # lines; beyond it they are dropped and counted
STALL_S: Final = 1.0  # a write that takes so long has no reader
CLOSE_WAIT_S: Final = 2.0  # for the last lines, when nobody may be reading them

Lost = Callable[[int], None]
Batch = tuple[int, Callable[[], bytes], Lost | None]


class LineWriter:
    """`put` takes what turns into bytes on the writer's thread. `dropped` counts lines that nobody got to read.

    Before `start` and after `close` there is no such thread: then lines are written at once, if somebody reads them.
    `present` makes something else of finished lines.
    """

    def __init__(self, fd: int = 1, present: Callable[[bytes], bytes] | None = None) -> None:
        self._fd = fd
        self._present = present
        self._is_running = False
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # for the two counts that any thread may add to
        self._waiting = 0  # lines handed over
        self._written = 0  # only the writer's thread adds
        self.dropped = 0
        self._has_failed = False  # as the last write ended
        self._writing_since_s: float | None = None
        self._closes_by_s = math.inf
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)

    def start(self) -> None:
        self._is_running = True
        self._thread.start()

    @property
    def failing(self) -> bool:
        """Whether lines do not get out just now."""
        since_s = self._writing_since_s
        return self._has_failed or (since_s is not None and time.monotonic() - since_s > STALL_S)

    @property
    def idle(self) -> bool:
        """Whether everything handed over was written, or is lost."""
        return self._waiting == self._written

    @property
    def is_behind(self) -> bool:
        """Whether what takes long to render had better be left out."""
        return (
            self._waiting - self._written > MAX_WAITING // 2 or time.monotonic() > self._closes_by_s - CLOSE_WAIT_S / 2
        )

    def put(self, lines: int, render: Callable[[], bytes], lost: Lost | None = None) -> None:
        """Hand over a batch of `lines` lines, from any thread. Never waits; `lost` is told, from any thread, if the
        batch does not get out."""
        if not self._is_running:
            self._write_at_once(lines, render, lost)
            return
        with self._lock:
            has_room = self._waiting - self._written + lines <= MAX_WAITING
            if has_room:
                self._waiting += lines
        if has_room:
            self._batches.put((lines, render, lost))
        else:
            self._drop(lines, lost)

    def close(self) -> None:
        """Write what was handed over; give up after CLOSE_WAIT_S if nobody reads."""
        self._closes_by_s = time.monotonic() + CLOSE_WAIT_S
        self._batches.put(None)
        self._thread.join(CLOSE_WAIT_S)
        self._is_running = False

    def _write_at_once(self, lines: int, render: Callable[[], bytes], lost: Lost | None) -> None:
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        if self._thread.is_alive() or not writable.poll(0) or not self._write(self._text(render)):
            self._drop(lines, lost)

    def _text(self, render: Callable[[], bytes]) -> bytes:
        return render() if self._present is None else self._present(render())

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            lines, render, lost = batch
            text = self._text(render)
            self._writing_since_s = time.monotonic()
            self._has_failed = not self._write(text)
            self._writing_since_s = None
            if self._has_failed:
                self._drop(lines, lost)
            self._written += lines

    def _write(self, text: bytes) -> bool:
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:  # stdout is closed or its reader is gone: serving goes on
            return False
        return True

    def _drop(self, lines: int, lost: Lost | None) -> None:
        with self._lock:
            self.dropped += lines
        if lost is not None:
            lost(lines)
