"""What one process keeps at the server, and what it owes it: its registration, open holds, settlements, spending.

For:      leases that live as long as their process, and a server that learns what it missed while it was away.
Touches:  nothing itself; it composes the commands that the line sends.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from nexus_gateway.core.account import Hold

from .redis_commands import NOTHING_SPENT, Commands, read_registration
from .redis_line import MAX_CHORES
from .redis_link import Command, Reply
from .share import LocalShare, Seen, Spending

MAX_MEMBERS: Final = 500  # holds renewed by one command
MAX_OWED: Final = 10_000  # settlements kept while the server is away; their leases end anyhow


class Upkeep:
    """`processes` share the limits, this one included. `clock` is the one that holds and spending go by."""

    def __init__(
        self, commands: Commands, share: LocalShare, clock: Callable[[], float], *, registration_s: float
    ) -> None:
        self.processes = 1
        self._commands = commands
        self._share = share
        self._clock = clock
        self._registration_s = registration_s
        self._process = os.urandom(8).hex()
        self._contents: bytes | None = None  # what the server called its contents when it was last asked
        self._forgot = False  # it has lost them since, and was not told everything yet
        self._open: dict[str, set[Hold]] = {}
        self._owed: list[Command] = []

    @property
    def process(self) -> str:
        return self._process

    def add(self, hold: Hold) -> None:
        if not hold.is_settled:
            self._open.setdefault(hold.key_id, set()).add(hold)

    def remove(self, hold: Hold) -> None:
        holds = self._open.get(hold.key_id)
        if holds is not None:
            holds.discard(hold)
            if not holds:
                del self._open[hold.key_id]

    def count_open(self, key_id: str) -> int:
        return len(self._open.get(key_id, ()))

    def count_all_open(self) -> int:
        return sum(map(len, self._open.values()))

    def settlement(self, hold: Hold, used_tokens: int) -> Command:
        """Said again when the server is back if it was not heard: a second time does nothing."""
        command = self._commands.settle(hold, used_tokens, lambda reply: None)
        command.done = partial(self._settled, command)
        return command

    def farewell(self) -> Command:
        return self._registration(lifetime_s=0.0)

    def renew_all(self) -> Iterator[Command]:
        """What keeps this process and its holds known; nobody waits for it."""
        yield self._registration(self._registration_s)
        for key_id in list(self._open):
            yield from self._renew(key_id)

    async def rejoin(self, ask: Callable[[Sequence[Command]], Awaitable[None]]) -> list[Command]:
        """Tell the server what it missed. Returns the rest of it, so small that the next caller can wait for it.

        Raises what `ask` raises; then nothing counts as told that was not heard.
        """
        contents = self._contents
        await ask([self._registration(self._registration_s)])
        self._forgot = self._forgot or contents not in (None, self._contents)
        while self._owed:
            owed, self._owed = self._owed[:MAX_CHORES], self._owed[MAX_CHORES:]
            await ask(owed)
        untold = {*self._open, *(self._share.known() if self._forgot else ())}
        while len(untold := untold | self._unheard()) > MAX_CHORES:
            await ask(self._tell([untold.pop() for _ in range(MAX_CHORES)]))
        rest = self._tell(untold)
        owed, self._owed = self._owed, []
        self._forget_share()
        return owed + rest

    def _unheard(self) -> set[str]:
        """Callers of whom something happened here that the server does not know."""
        held = {key_id for key_id, holds in self._open.items() if not all(hold.is_shared for hold in holds)}
        return held | self._share.unreported()

    def _forget_share(self) -> None:
        """The server decides again."""
        self._forgot = False
        for holds in self._open.values():
            for hold in holds:
                hold.is_local = False

    def _tell(self, key_ids: Iterable[str]) -> list[Command]:
        now_s = self._clock()
        commands: list[Command] = []
        for key_id in key_ids:
            seen = self._share.seen(key_id)
            floors = self._floors(seen, now_s) if self._forgot and seen is not None else ()
            commands += self._renew(key_id, self._share.take(key_id, now_s), floors)
        return commands

    def _renew(self, key_id: str, spending: Spending = NOTHING_SPENT, floors: Sequence[int] = ()) -> Iterator[Command]:
        """All holds that this process keeps of one caller, and what else the server may not know."""
        holds = list(self._open.get(key_id, ()))
        seen = self._share.seen(key_id)
        principal = None if seen is None else seen.principal
        for at in range(0, max(len(holds), 1), MAX_MEMBERS):
            part = holds[at : at + MAX_MEMBERS]
            adopted = [hold for hold in part if not hold.is_shared]
            for hold in adopted:
                hold.is_shared = True
            done = partial(self._told, key_id, adopted, spending)
            yield self._commands.renew(key_id, part, done, principal=principal, spending=spending, floors=floors)
            spending, floors = NOTHING_SPENT, ()

    def _told(self, key_id: str, adopted: list[Hold], spending: Spending, reply: Reply) -> None:
        if reply is None:
            for hold in adopted:
                hold.is_shared = False
            self._share.give_back(key_id, spending, self._clock())

    def _floors(self, seen: Seen, now_s: float) -> tuple[int, int, int]:
        """What the server had counted when it last answered, so that its loss of memory is nobody's gain."""
        principal = seen.principal
        requests = (principal.requests_per_minute or 0) - (seen.requests_left or 0)
        tokens = (principal.tokens_per_minute or 0) - (seen.tokens_left or 0)
        holds = self._open.get(principal.key_id, ())
        held = sum(hold.tokens or 0 for hold in holds if not hold.is_local)  # these it is given back as reserved
        return max(0, int(now_s) - int(seen.at_s)), max(0, requests), max(0, tokens - held)

    def _settled(self, command: Command, reply: Reply) -> None:
        if reply is None and len(self._owed) < MAX_OWED:
            self._owed.append(command)

    def _registration(self, lifetime_s: float) -> Command:
        return self._commands.register(self._process, lifetime_s, os.urandom(8).hex(), self._registered)

    def _registered(self, reply: Reply) -> None:
        if reply is not None:
            self.processes, self._contents = read_registration(reply)
