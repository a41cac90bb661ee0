"""Slows down whoever guesses credentials: so many failures a minute from one address, then a word to wait.

For:      refusing failures only. Whoever brings a valid credential is never asked.
Touches:  nothing: the time is brought. Memory is bounded: addresses that were quiet longest are forgotten first.
"""

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from .limiter import Window

FAILURES_PER_MINUTE: Final = 60
CAPACITY: Final = 10_000  # addresses; at most 10 MB
NETWORK_BITS: Final = 64  # of an IPv6 address: what one subscriber has all of
MAX_ADDRESS: Final = 64  # characters of what is no address


class Guesses:
    """Failures in the last minute, per address."""

    __slots__ = ("_capacity", "_limit", "_windows")

    def __init__(self, limit: int = FAILURES_PER_MINUTE, capacity: int = CAPACITY) -> None:
        self._limit = limit
        self._capacity = capacity
        self._windows: OrderedDict[str, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def fail(self, address: str | None, now_s: float) -> float:
        """Count a failure. 0, or the seconds to wait when there were too many; such a one is not counted itself."""
        source = source_of(address)
        window = self._windows.get(source)
        if window is None:
            window = self._windows[source] = Window(self._limit)
            if len(self._windows) > self._capacity:
                self._windows.popitem(last=False)
        self._windows.move_to_end(source)
        return 0.0 if window.admit(now_s) else window.wait_s(now_s)


def source_of(address: str | None) -> str:
    """Who is taken for one guesser: an IPv4 address, the /64 of an IPv6 address, or whatever has no address."""
    if address is None:
        return ""
    parsed = parse_address(address)
    if parsed is None:
        return address[:MAX_ADDRESS]
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Address(int(parsed) >> NETWORK_BITS << NETWORK_BITS))


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, without its zone. IPv4 written as IPv6 is IPv4."""
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
