"""When to try again: how long to wait, and whether another try is affordable.

For:      retries that help one caller without adding to an outage.
Touches:  nothing. The caller brings the clock and the dice.

Moving to a different upstream needs neither a wait nor a budget: the receiver has its own breaker and its own
`max_concurrency`. Both are for repeating a request on the upstream that has just failed it.
"""

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from .errors import UpstreamError, UpstreamRejected

DEFAULT_COOLDOWN_S: Final = 1.0  # for a 429 that names no instant in the future
MAX_COOLDOWN_S: Final = 300.0  # whatever an upstream asks for: a slip of its pen must not take it out for a day
BACKOFF_BASE_S: Final = 0.05  # about one round trip across a continent
BACKOFF_CAP_S: Final = 2.0
RETRY_RATIO: Final = 0.2
RETRY_FLOOR_PER_S: Final = 10.0

_SECONDS: Final = re.compile(r"[0-9]{1,64}(\.[0-9]{0,64})?")  # longer than any instant, short of float's range
_MAX_DATE_CHARS: Final = 64  # the longest of the three forms has 33


def parse_retry_after(value: str | None, now_unix_s: float) -> float:
    """Seconds to leave an upstream alone: above 0 and at most MAX_COOLDOWN_S, whatever the field says.

    Seconds or an HTTP date (RFC 9110, section 10.2.3). Junk, 0, the past and no field at all count as
    DEFAULT_COOLDOWN_S: a 429 means to wait, and clocks that disagree put many dates into the past.
    """
    text = (value or "").strip(" \t")
    wait_s = float(text) if _SECONDS.fullmatch(text) else _seconds_until(text, now_unix_s)
    return min(wait_s if wait_s > 0 else DEFAULT_COOLDOWN_S, MAX_COOLDOWN_S)


def _seconds_until(date: str, now_unix_s: float) -> float:
    """0 for what is no date."""
    if not date or len(date) > _MAX_DATE_CHARS:
        return 0.0
    try:
        when = parsedate_to_datetime(date)
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() - now_unix_s
    except (ValueError, TypeError, IndexError, OverflowError):  # what the parser raises on junk
        return 0.0


def may_move_on(failure: UpstreamError) -> bool:
    """Whether another attempt may end better: always, unless the caller's own request is at fault."""
    return not isinstance(failure, UpstreamRejected)


def backoff_s(repeat: int, roll: float) -> float:
    """How long to wait before the `repeat`-th repetition (1, 2, …). `roll` is fresh from the dice, in [0, 1).

    Full jitter: anything from nothing to a bound that doubles each time, so that callers who failed together do not
    return together. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return roll * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(repeat - 1, 32))


@dataclass(slots=True)
class RetryBudget:
    """How many repetitions one upstream is worth: a share of its requests and a floor per second.

    In any stretch of time, repetitions <= `ratio` x requests + `floor_per_s` x seconds + one second's floor. The idea
    is the retry budget of Finagle (`RetryBudget`) and tower (`retry::budget`), whose credit lives for 10 s: an outage
    then begins with thousands of repetitions that the good times before it have paid for. Here saved credit is never
    more than the floor of one second, so that the bound holds from the first second of an outage.
    """

    ratio: float = RETRY_RATIO
    floor_per_s: float = RETRY_FLOOR_PER_S
    credit: float = 0.0  # in repetitions
    paid_until_s: float | None = None  # the floor has been credited up to this instant; None: never used

    def deposit(self) -> None:
        """A request has come to this upstream: its first attempt there, not a repetition."""
        self.credit += self.ratio  # capped when it is looked at, which comes to the same

    def withdraw(self, now_s: float) -> bool:
        """Whether one repetition is affordable; if so, it is paid for."""
        self._advance(now_s)
        if self.credit < 1.0:
            return False
        self.credit -= 1.0
        return True

    def _advance(self, now_s: float) -> None:
        if self.paid_until_s is None:
            self.credit = self._most()
        else:
            earned = (now_s - self.paid_until_s) * self.floor_per_s
            self.credit = min(self.credit + earned, self._most())
        self.paid_until_s = now_s

    def _most(self) -> float:
        return max(self.floor_per_s, 1.0)
