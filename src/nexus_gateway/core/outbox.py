"""Holds back what is written during one turn of the event loop, and lets it go at the end of the turn, all together.

For:      fewer wake-ups. Every write of its own wakes a process that has just gone to sleep, which costs the kernel
          several times what it costs to hand over the bytes; of writes in a row only the first one does.
Touches:  nothing: the transports and the loop's `call_soon` are brought.

Nothing waits longer than the callbacks that were ready when it was written: `call_soon` runs before the loop sleeps.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

HELD_BYTES: Final = 64 << 10  # of one connection; more than that is worth a write of its own


class Transport(Protocol):
    """What is needed of `asyncio.Transport`."""

    def write(self, data: bytes) -> None: ...
    def writelines(self, pieces: Sequence[bytes]) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Outbox:
    """The connections of one loop that hold something back."""

    __slots__ = ("_call_soon", "_holding", "_is_ending", "_woken")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._holding: deque[Outgoing] = deque()
        self._is_ending = False
        self._woken = 0

    def expect(self) -> None:
        """For who has just woken somebody that will write. Where nobody else was woken in this turn there is no row to
        wait for, and what is written leaves right behind them, not a turn later."""
        self._woken += 1
        if self._woken == 1:
            self._call_soon(self._see_who_came)

    def add(self, outgoing: "Outgoing") -> None:
        self._holding.append(outgoing)
        if self._woken != 1:
            self._end_turn()

    def _see_who_came(self) -> None:
        woken, self._woken = self._woken, 0
        if woken == 1:
            self._release()
        elif self._holding:
            self._end_turn()

    def _end_turn(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._call_soon(self._turn_ended)

    def _turn_ended(self) -> None:
        self._is_ending = False
        self._release()

    def _release(self) -> None:
        holding = self._holding
        try:
            while holding:
                holding.popleft().release()
        finally:
            if holding:  # the failure of one is the loop's to report, and no reason to keep the others waiting
                self._end_turn()


class Outgoing:
    """A transport that writes at the end of the turn. Otherwise as the one it stands for: nothing overtakes a write."""

    __slots__ = ("_held", "_hold", "_transport", "is_closing")

    def __init__(self, transport: Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._hold = outbox.add
        self._held = b""
        self.is_closing = transport.is_closing

    @property
    def is_holding(self) -> bool:
        """Whether something was written that has not left yet."""
        return bool(self._held)

    def write(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = data
        else:
            self._held = data
            self._hold(self)
        if len(data) > HELD_BYTES:
            self.release()

    def writelines(self, pieces: Sequence[bytes]) -> None:
        if len(pieces) == 1:
            self.write(pieces[0])
        else:
            self.release()
            self._transport.writelines(pieces)

    def release(self) -> None:
        held, self._held = self._held, b""
        if held and not self.is_closing():
            self._transport.write(held)

    def write_eof(self) -> None:
        self.release()
        self._transport.write_eof()

    def close(self) -> None:
        """What was written goes out first."""
        self.release()
        self._transport.close()

    def abort(self) -> None:
        """What has not left is lost."""
        self._held = b""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return len(self._held) + self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
