"""Limits that several gateway processes share, kept in Redis or Valkey.

For:      one decision per request by one script and the server's clock, and a way to go on without the server.
Touches:  Redis, through its line. Imported only where it is configured. Logs nothing: `on_change` is told.
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from itertools import count
from typing import Final

from nexus_gateway.core.account import Basis, Cost, Decision, Hold
from nexus_gateway.core.model import Principal, Verdict

from .redis_commands import NOTHING_SPENT, Commands, Scripts, read_decision, read_registration
from .redis_line import MAX_CHORES, RedisLine, State, Timing
from .redis_link import Command, RedisLink, Reply
from .share import LocalShare, Seen, Spending

__all__ = ["FailureMode", "RedisLimitStore", "State", "Timing"]

MAX_MEMBERS: Final = 500  # holds renewed by one command
MAX_OWED: Final = 10_000  # settlements kept while the server is away; their leases end anyhow
MAX_REFUSED: Final = 10_000  # callers remembered as exhausted


class FailureMode(Enum):
    """What holds while the server is away."""

    LOCAL = "local"
    OPEN = "open"
    CLOSED = "closed"


class RedisLimitStore:
    """`run` keeps it in touch with the server; whoever owns tasks owns it.

    No decision waits for a server that is known to be away. `on_change` is told each change of state and, in a word,
    its reason.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: FailureMode = FailureMode.LOCAL,
        timing: Timing | None = None,
        on_change: Callable[[State, str], None] = lambda state, reason: None,
        clock: Callable[[], float] = time.monotonic,
        prefix: str = "nexus",
        scripts: Scripts | None = None,
    ) -> None:
        self.mode = mode
        self.processes = 1  # that share the limits, this one included
        self.unchecked = 0  # requests admitted without any check
        self._timing = timing = timing if timing is not None else Timing()
        scripts = scripts if scripts is not None else Scripts.load()
        self._commands = Commands(scripts, prefix, timing.lease_s)
        self._clock = clock
        self._process = os.urandom(8).hex()
        self._contents: bytes | None = None  # what the server called its contents when it was last asked
        self._forgot = False  # it has lost them since
        self._numbers = count(1)
        self._share = LocalShare()
        self._open: dict[str, set[Hold]] = {}
        self._owed: list[Command] = []
        self._refused: OrderedDict[str, tuple[int, float, float]] = OrderedDict()  # limit; instants of retry and reset
        self._line = RedisLine(
            RedisLink(url, scripts.all(), timeout_s=timing.answer_s, connect_timeout_s=timing.connect_s),
            timing,
            join=self._rejoin,
            upkeep=self._renew_all,
            on_change=on_change,
        )

    @property
    def state(self) -> State:
        return self._line.state

    @property
    def open_holds(self) -> int:
        """Holds of this process that are not settled."""
        return sum(map(len, self._open.values()))

    async def run(self) -> None:
        await self._line.run()

    async def started(self) -> None:
        """Return once it is known whether the server is there; until then the failure mode holds."""
        await self._line.started()

    async def aclose(self) -> None:
        """Send what is still to be settled and take leave; `run` ends."""
        await self._line.aclose([self._registration(lifetime_s=0.0)])

    def look(self, principal: Principal, now_s: float) -> Decision | None:
        if principal.is_unlimited:
            return None
        if self.state is State.SHARED:
            return self._recall(principal, now_s)
        if self.mode is FailureMode.LOCAL:
            return self._share.look(principal, now_s, processes=self.processes)
        return Decision(basis=Basis.NONE) if self.mode is FailureMode.CLOSED else None

    async def admit(self, principal: Principal, cost: Cost, now_s: float) -> Decision:
        if principal.is_unlimited:
            return Decision(hold=Hold.of(principal, 0))
        name = f"{self._process}-{next(self._numbers)}"
        if self.state is not State.SHARED:
            return self._decide_alone(principal, cost, now_s, name)
        answer: asyncio.Future[Decision | None] = asyncio.get_running_loop().create_future()
        done = partial(self._decided, answer, name, principal, cost, now_s)
        self._line.submit(self._commands.admit(name, principal, cost, done))
        try:
            decision = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():  # it came in the same turn
                self._undo(answer.result())
            raise
        return decision if decision is not None else self._decide_alone(principal, cost, now_s, name)

    def settle(self, hold: Hold, used_tokens: int, now_s: float) -> None:
        if hold.is_settled:
            return
        hold.is_settled = True
        self._remove(hold)
        if not hold.is_local:
            self._settle_there(hold, used_tokens)
        if self.state is not State.SHARED:
            self._share.settle(hold, used_tokens, now_s)

    # ---- decisions

    def _decided(
        self,
        answer: asyncio.Future[Decision | None],
        name: str,
        principal: Principal,
        cost: Cost,
        now_s: float,
        reply: Reply,
    ) -> None:
        decision: Decision | None = None
        if reply is not None:
            decision = read_decision(reply, name, principal)
            self._note(decision, principal, now_s)
        else:
            doubtful = Hold.of(principal, cost.tokens, name)  # it may be there all the same, and nobody will use it
            if not doubtful.is_settled:
                self._settle_there(doubtful, 0)
        if not answer.done():
            answer.set_result(decision)
        else:
            self._undo(decision)

    def _undo(self, decision: Decision | None) -> None:
        """Whoever asked has gone."""
        if decision is not None and decision.hold is not None:
            self.settle(decision.hold, 0, self._clock())

    def _note(self, decision: Decision, principal: Principal, now_s: float) -> None:
        key_id, requests, tokens = principal.key_id, decision.requests, decision.tokens
        seen = Seen(
            now_s,
            principal,
            None if requests is None else requests.remaining,
            None if tokens is None else tokens.remaining,
        )
        self._share.note(seen)
        if decision.hold is not None:
            self._add(decision.hold)
        elif requests is not None and not requests.allowed:
            self._refused[key_id] = requests.limit, now_s + requests.retry_after_s, now_s + requests.reset_s
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)

    def _recall(self, principal: Principal, now_s: float) -> Decision | None:
        """Only requests become free by time alone; tokens and slots also as others settle, which is not heard here."""
        refused = self._refused.get(principal.key_id)
        if refused is None:
            return None
        limit, retry_at_s, reset_at_s = refused
        if now_s >= retry_at_s or principal.requests_per_minute != limit:
            del self._refused[principal.key_id]
            return None
        return Decision(Verdict(False, limit, 0, reset_at_s - now_s, retry_at_s - now_s))

    def _decide_alone(self, principal: Principal, cost: Cost, now_s: float, name: str) -> Decision:
        if self.mode is FailureMode.CLOSED:
            return Decision(basis=Basis.NONE)
        if self.mode is FailureMode.OPEN:
            self.unchecked += 1
            decision = Decision(hold=Hold.of(principal, cost.tokens), basis=Basis.UNCHECKED)
        else:
            open_holds = len(self._open.get(principal.key_id, ()))
            decision = self._share.admit(principal, cost, now_s, processes=self.processes, open_holds=open_holds)
        if decision.hold is not None:
            decision.hold.name, decision.hold.is_local = name, True
            self._add(decision.hold)
        return decision

    def _add(self, hold: Hold) -> None:
        if not hold.is_settled:
            self._open.setdefault(hold.key_id, set()).add(hold)

    def _remove(self, hold: Hold) -> None:
        holds = self._open.get(hold.key_id)
        if holds is not None:
            holds.discard(hold)
            if not holds:
                del self._open[hold.key_id]

    # ---- upkeep

    def _settle_there(self, hold: Hold, used_tokens: int) -> None:
        command = self._commands.settle(hold, used_tokens, lambda reply: None)
        command.done = partial(self._settled, command)
        self._line.submit(command)

    def _settled(self, command: Command, reply: Reply) -> None:
        if reply is None and len(self._owed) < MAX_OWED:
            self._owed.append(command)  # said again when the server is back: a second time does nothing

    def _registration(self, lifetime_s: float) -> Command:
        return self._commands.register(self._process, lifetime_s, os.urandom(8).hex(), self._registered)

    def _registered(self, reply: Reply) -> None:
        if reply is not None:
            self.processes, contents = read_registration(reply)
            self._forgot = self._forgot or self._contents not in (None, contents)
            self._contents = contents

    def _renew_all(self) -> list[Command]:
        """What keeps this process and its holds known; nobody waits for it."""
        commands = [self._registration(self._timing.registration_s)]
        for key_id in self._open:
            commands += self._tell(key_id)
        return commands

    async def _rejoin(self) -> list[Command]:
        """Tell a server that was away what it missed, until so little is left that the next caller can wait for it."""
        await self._line.ask([self._registration(self._timing.registration_s)])
        while self._owed:
            owed, self._owed = self._owed[:MAX_CHORES], self._owed[MAX_CHORES:]
            await self._line.ask(owed)
        untold = {*self._open, *self._share.unreported()}
        if self._forgot:
            untold.update(self._share.known())
        while len(untold) > MAX_CHORES:
            await self._line.ask(self._tell_all([untold.pop() for _ in range(MAX_CHORES)]))
            untold.update(self._share.unreported())
        untold.update(key_id for key_id, holds in self._open.items() if any(hold.is_local for hold in holds))
        last = self._tell_all(untold)
        self._forgot = False
        self._share.clear()
        owed, self._owed = self._owed, []
        return owed + last

    def _tell_all(self, key_ids: Iterable[str]) -> list[Command]:
        return [command for key_id in key_ids for command in self._tell(key_id, rejoining=True)]

    def _tell(self, key_id: str, *, rejoining: bool = False) -> list[Command]:
        """All holds that this process keeps of one caller; and if rejoining, what else the server may not know."""
        holds = list(self._open.get(key_id, ()))
        now_s = self._clock()
        seen = self._share.seen(key_id)
        spending = self._share.take(key_id, now_s) if rejoining else NOTHING_SPENT
        floors = self._floors(seen, holds, now_s) if rejoining and self._forgot and seen is not None else ()
        commands = []
        for at in range(0, max(len(holds), 1), MAX_MEMBERS):
            part = holds[at : at + MAX_MEMBERS]
            done = partial(self._told, key_id, [hold for hold in part if hold.is_local], spending)
            commands.append(
                self._commands.renew(
                    key_id,
                    part,
                    done,
                    principal=None if seen is None else seen.principal,
                    spending=spending,
                    floors=floors,
                )
            )
            spending, floors = NOTHING_SPENT, ()
            for hold in part:
                hold.is_local = False
        return commands

    def _told(self, key_id: str, adopted: list[Hold], spending: Spending, reply: Reply) -> None:
        if reply is None:
            for hold in adopted:
                hold.is_local = not hold.is_settled
            self._share.give_back(key_id, spending, self._clock())

    def _floors(self, seen: Seen, holds: list[Hold], now_s: float) -> tuple[int, int, int]:
        """What the server had counted when it last answered, so that its loss of memory is nobody's gain."""
        principal = seen.principal
        requests = (principal.requests_per_minute or 0) - (seen.requests_left or 0)
        tokens = (principal.tokens_per_minute or 0) - (seen.tokens_left or 0)
        held = sum(hold.tokens or 0 for hold in holds if not hold.is_local)  # put back as reserved
        return max(0, int(now_s) - int(seen.at_s)), max(0, requests), max(0, tokens - held)
