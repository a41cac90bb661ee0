"""How upstreams stand, shared by gateway processes through Redis or Valkey.

For:      what one process learns of an upstream all know within a second; one probe in all; operators are heard by all.
Touches:  Redis, through a line of its own; the health of upstreams; the log, when another process isolates one.

Each process goes by its own breakers and asks nobody per request. Four times a second, and at once when it has news, it
exchanges with the server: its news for the state of all upstreams. Only a probe waits for the answer.

| what | who holds it | until |
|---|---|---|
| an opening, named by whoever found it | the server, by its clock; each breaker | a probe succeeds, or a newer one |
| the probe's lease | the server | its result, or the deadline of the probe |
| a probe of another process | a permit of our own breaker, kept here, so that nobody else gets it | likewise |
| news | here | the server has answered |
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Final, TypeVar, cast

import msgspec

from nexus_gateway.core.breaker import Outcome, Permit
from nexus_gateway.core.breaker import State as BreakerState
from nexus_gateway.core.health import Fleet, UpstreamHealth

from .redis_line import RedisLine, State, Timing
from .redis_link import Command, RedisLink, Reply, Script

EXCHANGE_S: Final = 0.25
DEFAULT_TIMING: Final = Timing(renew_s=EXCHANGE_S)
LEARN_S: Final = 0.001  # a period that is over, for a breaker that has not heard of it: what is left is the probe
HEARSAY_S: Final = 1.0  # after its deadline, the result of another process' probe may still be on its way

log = logging.getLogger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")

News = tuple[str, str, str, int]  # kind, upstream, name of the period or the change, milliseconds; see redis_health.lua


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """One upstream, as the server knows it. `lease_ms`: of a probe that another process has sent."""

    opening: str
    is_open: bool
    left_ms: int
    lease_ms: int
    change: str
    is_isolated: bool


_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[Standing]).decode


class _Claim(msgspec.Struct, eq=False):
    upstream: UpstreamHealth
    permit: Permit
    answer: asyncio.Future[bool]


class RedisHealth:
    """`run` keeps it in touch with the server; whoever owns tasks owns it.

    `longest_s`: an open period of this configuration. While the server is away each process is on its own.
    """

    def __init__(
        self,
        url: str,
        fleet: Fleet,
        *,
        longest_s: float,
        timing: Timing = DEFAULT_TIMING,
        clock: Callable[[], float] = time.monotonic,
        prefix: str = "nexus",
    ) -> None:
        self._fleet = fleet
        self._names = [upstream.name for upstream in fleet]
        self._longest_ms = _ms(longest_s)
        self._answer_s = timing.answer_s
        self._clock = clock
        tagged = b"%b:{upstreams}" % prefix.encode()
        self._keys = (tagged + b":breakers", tagged + b":isolated")
        self._script = Script.load("redis_health", returns=(int, bytes))
        self._process = os.urandom(8).hex()
        self._numbers = count(1)
        self._openings: dict[str, str] = {}  # the period that each upstream's breaker goes by
        self._changes: dict[str, str] = {}  # the operators' last word on each
        self._news: dict[tuple[str, str], News] = {}  # by upstream and what it is about
        self._ours: dict[str, Permit] = {}  # probes for which we asked
        self._theirs: dict[str, Permit] = {}
        self._is_hearsay = False
        self._push_is_due = False
        self._line = RedisLine(
            RedisLink(url, [self._script], timeout_s=timing.answer_s, connect_timeout_s=timing.connect_s),
            timing,
            join=self._join,
            upkeep=self._exchanges,
            on_change=self._line_changed,
        )

    @property
    def is_shared(self) -> bool:
        return self._line.state is State.SHARED

    async def run(self) -> None:
        await self._line.run()

    async def started(self) -> None:
        """Return once it is known whether the server is there."""
        await self._line.started()

    async def aclose(self) -> None:
        """Send the last news; `run` ends."""
        await self._line.aclose([self._exchange()])

    async def claim(self, upstream: str, permit: Permit) -> bool:
        if not self.is_shared:
            return True
        claim = _Claim(self._fleet[upstream], permit, asyncio.get_running_loop().create_future())
        self._ours[upstream] = permit
        self._line.submit(self._exchange(claim))
        try:
            async with asyncio.timeout(self._answer_s):
                return await claim.answer
        except TimeoutError:
            return True

    def breaker_changed(self, upstream: str, before: BreakerState, after: BreakerState) -> None:
        if after is BreakerState.HALF_OPEN:
            return
        self._ours.pop(upstream, None)
        if self._is_hearsay:
            return
        if after is BreakerState.OPEN:
            self._openings[upstream] = opening = self._new_name()
            self._tell("open", upstream, opening)
        else:
            self._tell("close", upstream, self._openings.get(upstream, ""))

    def isolation_changed(self, upstream: str) -> None:
        self._changes[upstream] = change = self._new_name()
        self._tell("isolate", upstream, change, int(self._fleet[upstream].is_isolated))

    # --- what we tell

    def _new_name(self) -> str:
        return f"{self._process}-{next(self._numbers)}"

    def _tell(self, kind: str, upstream: str, name: str, number: int = 0) -> None:
        """Later in this turn of the loop: the breaker that changes right now is not to be asked."""
        about = "isolation" if kind == "isolate" else "breaker"
        self._news[upstream, about] = (kind, upstream, name, number)
        if not self._push_is_due:
            self._push_is_due = True
            asyncio.get_running_loop().call_soon(self._push)

    def _push(self) -> None:
        self._push_is_due = False
        if self.is_shared:
            self._line.submit(self._exchange())

    def _exchanges(self) -> Iterator[Command]:
        yield self._exchange()

    async def _join(self, ask: Callable[[Sequence[Command]], Awaitable[None]]) -> list[Command]:
        await ask([self._exchange()])
        return []

    def _exchange(self, claim: _Claim | None = None) -> Command:
        now_s = self._clock()
        snapshots = {name: self._fleet[name].breaker.snapshot(now_s) for name in self._names}  # may be news
        told = dict(self._news)
        released = {name: permit for name, permit in self._ours.items() if permit.is_settled}
        news: list[News] = []
        for kind, name, of, number in told.values():
            is_open = kind == "open" and snapshots[name].state is BreakerState.OPEN
            news.append((kind, name, of, _ms(snapshots[name].wait_s) if is_open else number))
        news += [("release", name, "", 0) for name in released]
        if claim is not None:
            name = claim.upstream.name
            news.append(("claim", name, self._opening_of(name), _ms(claim.permit.deadline_s - now_s)))
        payload = _pack((self._process, self._longest_ms, self._names, news))
        return Command(self._script, self._keys, payload, partial(self._heard, told, released, claim))

    def _opening_of(self, upstream: str) -> str:
        return self._openings.get(upstream) or self._openings.setdefault(upstream, self._new_name())

    # --- what we hear

    def _heard(
        self,
        told: dict[tuple[str, str], News],
        released: dict[str, Permit],
        claim: _Claim | None,
        reply: Reply,
    ) -> None:
        if reply is None:
            if claim is not None and not claim.answer.done():
                claim.answer.set_result(True)
            return
        granted, packed = cast(tuple[int, bytes], reply)
        _forget(self._news, told)
        _forget(self._ours, released)
        now_s = self._clock()
        waits = claim is not None and not claim.answer.done()
        if claim is not None and waits and not granted:  # before the probe of others takes its place
            claim.upstream.settle(claim.permit, Outcome.NEUTRAL, now_s)
            self._ours.pop(claim.upstream.name, None)
        for upstream, standing in zip(self._fleet, _unpack(packed), strict=True):
            self._hear_operator(upstream, standing)
            self._hear_breaker(upstream, standing, now_s)
        if claim is not None and waits:
            claim.answer.set_result(bool(granted))

    def _hear_operator(self, upstream: UpstreamHealth, standing: Standing) -> None:
        name = upstream.name
        if (name, "isolation") in self._news or standing.change == self._changes.get(name, ""):
            return
        if not standing.change:  # the server has lost its memory
            if upstream.is_isolated:
                self.isolation_changed(name)
            return
        self._changes[name] = standing.change
        if standing.is_isolated and not upstream.is_isolated:
            upstream.isolate()
            log.warning("upstream_isolated", extra={"upstream": name, "by": "another process"})
        elif upstream.is_isolated and not standing.is_isolated:
            upstream.restore()
            log.warning("upstream_restored", extra={"upstream": name, "by": "another process"})

    def _hear_breaker(self, upstream: UpstreamHealth, standing: Standing, now_s: float) -> None:
        name = upstream.name
        state = upstream.breaker.snapshot(now_s).state  # may find that a probe hangs: then that is the news
        if (name, "breaker") in self._news:
            return
        if not standing.opening:
            if state is not BreakerState.CLOSED:  # the server has lost its memory
                self._tell("open", name, self._opening_of(name))
            return
        is_new = standing.opening != self._openings.get(name)
        self._openings[name] = standing.opening
        with self._hearsay():
            if not standing.is_open:
                upstream.force_close(now_s)
            elif state is BreakerState.CLOSED and is_new:
                upstream.force_open_until(now_s + max(standing.left_ms / 1000, LEARN_S), now_s)
            elif state is not BreakerState.CLOSED:
                upstream.force_open_until(now_s + standing.left_ms / 1000, now_s)
        self._hear_probe(upstream, standing, now_s)

    def _hear_probe(self, upstream: UpstreamHealth, standing: Standing, now_s: float) -> None:
        """While another process probes, our own breaker sees it as its probe."""
        breaker = upstream.breaker
        if standing.lease_ms == 0:
            permit = self._theirs.pop(upstream.name, None)
            if permit is not None:
                breaker.settle(permit, Outcome.NEUTRAL, now_s)
        elif not breaker.is_closed:
            permit = breaker.acquire(now_s, now_s + standing.lease_ms / 1000 + HEARSAY_S)
            if permit is not None:
                self._theirs[upstream.name] = permit

    @contextmanager
    def _hearsay(self) -> Iterator[None]:
        """What changes meanwhile is not told again."""
        self._is_hearsay = True
        try:
            yield
        finally:
            self._is_hearsay = False

    def _line_changed(self, state: State, reason: str) -> None:
        if state is State.LOST:
            now_s = self._clock()
            for name, permit in self._theirs.items():
                self._fleet[name].breaker.settle(permit, Outcome.NEUTRAL, now_s)
            self._theirs.clear()


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _forget(kept: dict[_K, _V], told: dict[_K, _V]) -> None:
    """What has become another thing meanwhile is still to be told."""
    for key, value in told.items():
        if kept.get(key) is value:
            del kept[key]
