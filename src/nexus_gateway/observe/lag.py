"""Whether the event loop keeps up: how late it gives a turn that was due.

For:      `nexus_loop_lag_seconds`. Whatever holds the loop up holds every request up.
Touches:  the running loop, by one timer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from .tally import SHORT_SECONDS, Tally

EVERY_S: Final = 0.1


class LoopLag:
    """`start` on the running loop, `stop` before it ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally(SHORT_SECONDS)
        self._clock = clock  # the loop's own stands still during a turn
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        due_s = self._clock() + EVERY_S
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._wake, due_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self, due_s: float) -> None:
        self.tally.observe(max(0.0, self._clock() - due_s))
        self.start()
