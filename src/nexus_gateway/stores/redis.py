"""Limits that several gateway processes share, kept in Redis or Valkey.

For:      one decision per request by one script and the server's clock, and a way to go on without the server.
Touches:  Redis, through its line. Imported only where it is configured. Logs nothing: `on_change` is told.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from itertools import count
from math import inf
from typing import Final

from nexus_gateway.core.account import Basis, Cost, Decision, Hold, Use
from nexus_gateway.core.model import Principal, Verdict

from .redis_commands import Commands, Scripts, read_decision, read_use
from .redis_line import RedisLine, State, Timing
from .redis_link import RedisLink, Reply
from .redis_upkeep import Upkeep
from .share import LocalShare, Seen

__all__ = ["FailureMode", "RedisLimitStore", "State", "Timing"]

MAX_REFUSED: Final = 10_000  # callers remembered as exhausted
ASKED_TOGETHER: Final = 32  # callers that an operator asks about: decisions go in between


class FailureMode(Enum):
    """What holds while the server is away."""

    LOCAL = "local"  # each process admits its share
    OPEN = "open"  # everybody is let in, unchecked
    CLOSED = "closed"  # nobody is


class RedisLimitStore:
    """`run` keeps it in touch with the server; whoever owns tasks owns it.

    No decision waits for a server that is known to be away. `on_change` is told each change of state and, in a word,
    its reason. Back at the server, this process keeps to its share for a moment longer: others may still be admitting
    theirs, and the server does not know of it yet.
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
        self.unchecked = 0  # requests admitted without any check
        timing = timing if timing is not None else Timing()
        scripts = scripts if scripts is not None else Scripts.load()
        self._clock = clock
        self._commands = Commands(scripts, prefix, timing.lease_s)
        self._numbers = count(1)
        self._refused: OrderedDict[str, tuple[int, float, float]] = OrderedDict()  # limit; instants of retry and reset
        self._share = LocalShare()
        self._sharers = 1  # how many divided what was left when the server was lost
        self._was_lost = False
        self._shared_since_s = -inf
        self._cautious_until_s: float | None = None
        self._caution_s = timing.caution_s
        self._registration_s = timing.registration_s
        self._on_change = on_change
        self._upkeep = Upkeep(self._commands, self._share, clock, registration_s=timing.registration_s)
        self._line = RedisLine(
            RedisLink(url, scripts.all(), timeout_s=timing.answer_s, connect_timeout_s=timing.connect_s),
            timing,
            join=self._upkeep.rejoin,
            upkeep=self._upkeep.renew_all,
            on_change=self._changed,
        )

    @property
    def state(self) -> State:
        return self._line.state

    @property
    def processes(self) -> int:
        """How many share the limits, this one included."""
        return self._upkeep.processes

    @property
    def open_holds(self) -> int:
        """Holds of this process that are not settled."""
        return self._upkeep.count_all_open()

    async def run(self) -> None:
        await self._line.run()

    async def started(self) -> None:
        """Return once it is known whether the server is there; until then the failure mode holds."""
        await self._line.started()

    async def aclose(self) -> None:
        """Send what is still to be settled and take leave; `run` ends."""
        await self._line.aclose([self._upkeep.farewell()])

    def look(self, principal: Principal, now_s: float) -> Decision | None:
        if principal.is_unlimited:
            return None
        if self.state is State.SHARED:
            return self._recall(principal, now_s)
        if self.mode is FailureMode.LOCAL:
            return self._share.look(principal, now_s, processes=self._sharers)
        return Decision(basis=Basis.NONE) if self.mode is FailureMode.CLOSED else None

    def admit_at_once(self, principal: Principal, cost: Cost, now_s: float) -> Decision | None:
        return Decision(hold=Hold.of(principal, 0)) if principal.is_unlimited else None

    async def admit(self, principal: Principal, cost: Cost, now_s: float) -> Decision:
        decision = self.admit_at_once(principal, cost, now_s)
        if decision is not None:
            return decision
        name = f"{self._upkeep.process}-{next(self._numbers)}"
        if self.state is not State.SHARED:
            return self._decide_alone(principal, cost, now_s, name)
        if self._cautious_until_s is not None and (refused := self._restrain(principal, cost, now_s)) is not None:
            return refused
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
        self._upkeep.remove(hold)
        if hold.is_shared:
            self._line.submit(self._upkeep.settlement(hold, used_tokens))
        if self.state is not State.SHARED:
            self._share.settle(hold, used_tokens, now_s)

    async def use(self, principals: Sequence[Principal], now_s: float) -> list[Use]:
        told: list[Use] = []
        for begin in range(0, len(principals), ASKED_TOGETHER):
            waiting = [self._ask_use(principal, now_s) for principal in principals[begin : begin + ASKED_TOGETHER]]
            told += [await answer for answer in waiting]
        return told

    def _ask_use(self, principal: Principal, now_s: float) -> asyncio.Future[Use]:
        answer: asyncio.Future[Use] = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if not answer.done():
                known = self._share.use(principal, now_s) or Use(basis=Basis.NONE)
                answer.set_result(known if reply is None else read_use(reply, principal))

        if principal.is_unlimited:
            answer.set_result(Use())
        else:
            self._line.submit(self._commands.use(principal, done))
        return answer

    def _changed(self, state: State, reason: str) -> None:
        now_s = self._clock()
        if state is State.LOST:
            is_recent = now_s - self._shared_since_s < self._registration_s
            self._sharers = max(self.processes, self._sharers if is_recent else 1)  # others may not be back on its list
            if self._is_cautious(now_s):
                self._share.go_on(self._upkeep.count_open, now_s)
            self._was_lost = True
        elif state is State.SHARED:
            self._shared_since_s = now_s
            if self._was_lost:
                self._sharers = max(self.processes, self._sharers)
                self._cautious_until_s = now_s + (self._caution_s if self._sharers > 1 else 0.0)
        self._on_change(state, reason)

    def _is_cautious(self, now_s: float) -> bool:
        if self._cautious_until_s is not None and now_s >= self._cautious_until_s:
            self._cautious_until_s = None
            self._share.clear()
        return self._cautious_until_s is not None

    def _restrain(self, principal: Principal, cost: Cost, now_s: float) -> Decision | None:
        if not self._is_cautious(now_s) or self.mode is not FailureMode.LOCAL:
            return None
        return self._share.restrain(
            principal,
            cost,
            now_s,
            processes=self._sharers,
            open_holds=self._upkeep.count_open(principal.key_id),
            within_s=(self._cautious_until_s or now_s) - now_s,
        )

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
                self._line.submit(self._upkeep.settlement(doubtful, 0))
        if not answer.done():
            answer.set_result(decision)
        else:
            self._undo(decision)

    def _undo(self, decision: Decision | None) -> None:
        """Whoever asked has gone."""
        if decision is not None and decision.hold is not None:
            self.settle(decision.hold, 0, self._clock())

    def _note(self, decision: Decision, principal: Principal, now_s: float) -> None:
        requests, tokens = decision.requests, decision.tokens
        requests_left = None if requests is None else requests.remaining
        tokens_left = None if tokens is None else tokens.remaining
        self._share.note(Seen(now_s, principal, requests_left, tokens_left))
        if decision.hold is not None:
            decision.hold.is_shared = True
            self._upkeep.add(decision.hold)
        elif requests is not None and not requests.allowed:
            instants_s = now_s + requests.retry_after_s, now_s + requests.reset_s
            self._refused[principal.key_id] = requests.limit, *instants_s
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
            open_holds = self._upkeep.count_open(principal.key_id)
            decision = self._share.admit(principal, cost, now_s, processes=self._sharers, open_holds=open_holds)
        if decision.hold is not None:
            decision.hold.name = name
            self._upkeep.add(decision.hold)
        return decision
