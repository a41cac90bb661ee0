"""The queue before the link: who asks is answered in order, or told at once that nobody answers.

For:      one place that knows whether Redis is there, loses at most one bound to find out, and looks for its return.
Touches:  the link, and the real clock: how long Redis took is not a matter for a test's clock.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

from redis import exceptions as told
from redis.exceptions import RedisError

from .redis_link import Command, RedisLink

MAX_PIPELINE: Final = 256  # decisions that travel together: some 10 ms of the server's time
MAX_CHORES: Final = 64  # of the upkeep that travels with them, and that nobody waits for

_REASONS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    ((TimeoutError, told.TimeoutError), "timeout"),
    (told.ReadOnlyError, "read_only"),
    (told.BusyLoadingError, "loading"),
    (told.OutOfMemoryError, "out_of_memory"),
    ((told.AuthenticationError, told.AuthorizationError, told.NoPermissionError), "not_allowed"),
    ((told.MovedError, told.AskError), "redirected"),
    (told.MasterDownError, "no_primary"),
    (told.ClusterDownError, "cluster_down"),
    ((told.ConnectionError, OSError), "disconnected"),
)


class State(Enum):
    STARTING = "starting"
    SHARED = "shared"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The slots of a process that was killed are free again after `lease_s` at most."""

    answer_s: float = 0.05  # what a caller may lose to a server that does not answer
    connect_s: float = 1.0  # nobody waits for it
    probe_s: float = 0.5  # between attempts to reach a server that is away
    renew_s: float = 3.0
    lease_s: float = 12.0
    registration_s: float = 10.0
    caution_s: float = 0.75  # after its return: by then the others have probed too


class RedisLine:
    """`run` serves until `aclose`; whoever owns tasks owns it.

    `join` is awaited on each new connection: through the `ask` that it is given it tells the server what that has to
    know, and it returns what must reach the server before anyone else is served. `upkeep` is asked every `renew_s` for
    commands that nobody waits for.
    """

    def __init__(
        self,
        link: RedisLink,
        timing: Timing,
        *,
        join: Callable[[Callable[[Sequence[Command]], Awaitable[None]]], Awaitable[list[Command]]],
        upkeep: Callable[[], Iterator[Command]],
        on_change: Callable[[State, str], None],
    ) -> None:
        self.state = State.STARTING
        self._link = link
        self._timing = timing
        self._join = join
        self._upkeep = upkeep
        self._on_change = on_change
        self._queue: list[Command] = []
        self._queued_at_s = 0.0  # when the first of them came
        self._chores: Iterator[Command] = iter(())
        self._has_chores = False
        self._wake = asyncio.Event()
        self._closing = False
        self._running = False
        self._started = asyncio.Event()
        self._ended = asyncio.Event()

    async def started(self) -> None:
        """Return once the server was reached, or was found to be away."""
        await self._started.wait()

    def submit(self, command: Command) -> None:
        """Its `done` is called when the reply is there, or with None as soon as it is clear that none will come."""
        if self.state is not State.SHARED:
            command.done(None)
            return
        if not self._queue:
            self._queued_at_s = time.monotonic()
            self._wake.set()
        self._queue.append(command)

    async def ask(self, commands: Sequence[Command], deadline_s: float | None = None) -> None:
        """Send one pipeline and hand out the replies. Raises RedisError or OSError when there was no answer."""
        if deadline_s is None:
            deadline_s = time.monotonic() + self._timing.answer_s
        replies: Sequence[object] = [None] * len(commands)
        try:
            replies = await self._link.exchange(commands, deadline_s)
        finally:
            for command, reply in zip(commands, replies, strict=True):
                command.done(reply)

    async def run(self) -> None:
        """Keep in touch with the server until `aclose`."""
        self._running = True
        try:
            while not self._closing:
                try:
                    await self._link.open()
                    self._begin(await self._join(self.ask))
                    await self._serve()
                except (RedisError, OSError) as exc:
                    self._lose(_reason(exc))
                    await self._link.aclose()
                    await self._pause(self._timing.probe_s)
        finally:
            self._lose("closed")
            await self._link.aclose()
            self._ended.set()

    async def aclose(self, farewell: Sequence[Command] = ()) -> None:
        """Send what is queued and the farewell, within the time of one answer or two, and end `run`."""
        for command in farewell:
            self.submit(command)
        self._closing = True
        self._wake.set()
        if self._running:
            try:
                async with asyncio.timeout(2 * self._timing.answer_s + self._timing.connect_s):
                    await self._ended.wait()
            except TimeoutError:
                self._lose("closed")

    def _begin(self, first: list[Command]) -> None:
        self._queue[:0] = first
        self._queued_at_s = time.monotonic()
        self._change(State.SHARED, "connected")

    def _lose(self, reason: str) -> None:
        waiting, self._queue, self._has_chores = self._queue, [], False
        self._change(State.LOST, reason)
        for command in waiting:
            command.done(None)

    def _change(self, state: State, reason: str) -> None:
        if state is not self.state:
            self.state = state
            if not self._closing:
                self._on_change(state, reason)
            self._started.set()

    async def _serve(self) -> None:
        upkeep_at_s = time.monotonic() + self._timing.renew_s
        while True:
            now_s = time.monotonic()
            if now_s >= upkeep_at_s:
                self._chores, self._has_chores = self._upkeep(), True
                upkeep_at_s = now_s + self._timing.renew_s
            if self._queue or self._has_chores:
                await self._send_next(now_s)
            elif self._closing:
                return
            else:
                await self._pause(upkeep_at_s - now_s)
                self._queued_at_s = time.monotonic()  # until now it was our own loop that kept them waiting

    async def _send_next(self, now_s: float) -> None:
        decisions, self._queue = self._queue[:MAX_PIPELINE], self._queue[MAX_PIPELINE:]
        chores = list(islice(self._chores, MAX_CHORES)) if self._has_chores else []
        self._has_chores = len(chores) == MAX_CHORES
        since_s = self._queued_at_s if decisions else now_s
        self._queued_at_s = now_s  # of what stays behind
        await self.ask(decisions + chores, since_s + self._timing.answer_s)

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        if self._closing:
            return
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()


def _reason(error: Exception) -> str:
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return "error"
