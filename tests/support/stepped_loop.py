"""An event loop whose clock a test moves by hand.

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": SteppedLoop}
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Self, TypeVarTuple, cast

import uvloop

Ts = TypeVarTuple("Ts")


class SteppedLoop(uvloop.Loop):
    """Real time goes by as well, but `advance` gets ahead of it at once."""

    @classmethod
    def current(cls) -> Self:
        return cast(Self, asyncio.get_running_loop())

    def __init__(self) -> None:
        super().__init__()
        self._ahead_s = 0.0
        self._timers: list[tuple[float, asyncio.TimerHandle, Callable[..., Any], tuple[Any, ...]]] = []

    @property
    def armed_timers(self) -> int:
        """How many calls are still to come."""
        self._timers = [timer for timer in self._timers if not timer[1].cancelled() and timer[0] > self.time()]
        return len(self._timers)

    def time(self) -> float:
        return super().time() + self._ahead_s

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_later(delay, callback, *args, context=context)
        self._timers.append((self.time() + delay, handle, callback, args))
        return handle

    def advance(self, seconds: float) -> None:
        """Move the clock, and make the calls that are due by now."""
        self._ahead_s += seconds
        due = [timer for timer in self._timers if timer[0] <= self.time() and not timer[1].cancelled()]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, handle, callback, args in due:
            handle.cancel()
            callback(*args)
