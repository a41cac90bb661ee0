"""What is said to the scripts and what they answer.

For:      one file that knows the shape of their arguments and replies; the scripts beside it describe them.
Touches:  nothing but the script files, once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, cast

import msgspec

from nexus_gateway.core.account import Cost, Decision, Hold, Use
from nexus_gateway.core.limiter import HOLD_WAIT_S
from nexus_gateway.core.model import Principal, Verdict

from .redis_link import Command, Reply, Script
from .share import Spending

NOTHING_SPENT: Final = Spending([], [], 0)

_MAX_UNITS: Final = 2**53  # Lua counts in doubles
_NONE: Final = -1
_ACCOUNT: Final = "redis_account"

_pack: Final = msgspec.msgpack.Encoder().encode

Done = Callable[[Reply], None]


@dataclass(frozen=True, slots=True)
class Scripts:
    admit: Script
    settle: Script
    renew: Script
    register: Script
    use: Script

    @classmethod
    def load(cls) -> "Scripts":
        return cls(
            Script.load(_ACCOUNT, "redis_admit", returns=(int,) * 11),
            Script.load(_ACCOUNT, "redis_settle"),
            Script.load(_ACCOUNT, "redis_renew"),
            Script.load("redis_register", returns=(int, bytes)),
            Script.load(_ACCOUNT, "redis_use", returns=(int,) * 3),
        )

    def all(self) -> tuple[Script, ...]:
        return self.admit, self.settle, self.renew, self.register, self.use


class Commands:
    """Composes commands. Keys begin with `prefix`, and those of one caller share a hash tag."""

    def __init__(self, scripts: Scripts, prefix: str, lease_s: float) -> None:
        self._scripts = scripts
        self._prefix = prefix.encode()
        self._lease_ms = int(lease_s * 1000)

    def admit(self, name: str, principal: Principal, cost: Cost, done: Done) -> Command:
        least = _NONE if cost.least_tokens is None else min(cost.least_tokens, _MAX_UNITS)
        payload = (
            name,
            _NONE if principal.requests_per_minute is None else principal.requests_per_minute,
            _NONE if principal.tokens_per_minute is None else principal.tokens_per_minute,
            _NONE if principal.max_concurrency is None else principal.max_concurrency,
            min(cost.tokens, _MAX_UNITS),
            least,
            self._lease_ms,
        )
        return Command(self._scripts.admit, self._keys(principal.key_id), _pack(payload), done)

    def settle(self, hold: Hold, used_tokens: int, done: Done) -> Command:
        payload = _member(hold), int(hold.tokens is not None), min(used_tokens, _MAX_UNITS)
        return Command(self._scripts.settle, self._keys(hold.key_id), _pack(payload), done)

    def renew(
        self,
        key_id: str,
        holds: Sequence[Hold],
        done: Done,
        *,
        principal: Principal | None = None,
        spending: Spending = NOTHING_SPENT,
        floors: Sequence[int] = (),
    ) -> Command:
        """`principal` where its limits are known. `floors`: age, requests and tokens known to have been counted."""
        limits = [_NONE, _NONE]
        if principal is not None:
            per_minute = principal.requests_per_minute, principal.tokens_per_minute
            limits = [_NONE if limit is None else limit for limit in per_minute]
        payload = self._lease_ms, [_member(hold) for hold in holds], limits, *spending, floors
        return Command(self._scripts.renew, self._keys(key_id), _pack(payload), done)

    def register(self, process: str, lifetime_s: float, contents: str, done: Done) -> Command:
        tagged = b"%b:{processes}" % self._prefix
        payload = process, int(lifetime_s * 1000), contents
        return Command(self._scripts.register, (tagged, tagged + b":contents"), _pack(payload), done)

    def use(self, principal: Principal, done: Done) -> Command:
        return Command(self._scripts.use, self._keys(principal.key_id), b"", done)

    def _keys(self, key_id: str) -> tuple[bytes, bytes]:
        tagged = b"%b:{%b}" % (self._prefix, key_id.encode())
        return tagged + b":account", tagged + b":holds"


def read_decision(reply: Reply, name: str, principal: Principal) -> Decision:
    """The answer to `Commands.admit`."""
    numbers = cast(list[int], reply)
    admitted, granted, requests_fit, requests_left, requests_reset_ms, requests_wait_ms = numbers[:6]
    tokens_fit, tokens_left, tokens_reset_ms, tokens_wait_ms, slots_left = numbers[6:]
    requests, tokens, slots = principal.requests_per_minute, principal.tokens_per_minute, principal.max_concurrency
    decision = Decision()
    if requests is not None:
        decision.requests = _verdict(requests_fit, requests, requests_left, requests_reset_ms, requests_wait_ms)
    if tokens is not None:
        decision.tokens = _verdict(tokens_fit, tokens, tokens_left, tokens_reset_ms, tokens_wait_ms)
    if slots is not None:
        fits = bool(admitted or slots_left)
        reset_s = HOLD_WAIT_S if slots_left < slots else 0.0
        decision.concurrency = Verdict(fits, slots, slots_left, reset_s, 0.0 if fits else HOLD_WAIT_S)
    if admitted:
        decision.hold = Hold.of(principal, granted, name)
    return decision


def read_use(reply: Reply, principal: Principal) -> Use:
    """The answer to `Commands.use`."""
    requests, tokens, in_flight = cast(list[int], reply)
    return Use(
        None if principal.requests_per_minute is None else requests,
        None if principal.tokens_per_minute is None else tokens,
        None if principal.max_concurrency is None else in_flight,
    )


def read_registration(reply: Reply) -> tuple[int, bytes]:
    """The answer to `Commands.register`: how many processes there are, and the name of the server's contents."""
    processes, contents = cast(tuple[int, bytes], reply)
    return max(1, processes), contents


def _verdict(fits: int, limit: int, left: int, reset_ms: int, wait_ms: int) -> Verdict:
    return Verdict(bool(fits), limit, left, reset_ms / 1000, inf if wait_ms < 0 else wait_ms / 1000)


def _member(hold: Hold) -> str:
    return f"{hold.name}:{hold.tokens or 0}"
