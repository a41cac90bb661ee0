"""Finds the address of the caller behind proxies that are trusted.

For:      `X-Forwarded-For`, which everybody can write: it is read from its right end, where trusted proxies wrote.
Touches:  nothing.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from .guessing import parse_address

Network = IPv4Network | IPv6Network

HEADER: Final = b"x-forwarded-for"
MAX_HOPS: Final = 32  # proxies of one's own in a row; beyond it the header is a caller's invention
CAPACITY: Final = 1024  # callers whose address is remembered
MAX_REMEMBERED_BYTES: Final = 256  # of a header: a longer one is read anew each time


class Clients:
    """Remembers what was read: the same callers come again and again, and reading an address takes microseconds."""

    __slots__ = ("_known", "_trusted")

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._known: dict[tuple[str, bytes], str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, peer: str | None, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """The caller's own address; `peer` is the one at the other end of the connection."""
        if not self._trusted or peer is None:
            return peer
        hops = b",".join([value for name, value in headers if name == HEADER])
        if len(hops) > MAX_REMEMBERED_BYTES:
            return client_of(peer, hops, self._trusted)
        found = self._known.get((peer, hops))
        if found is None:
            found = client_of(peer, hops, self._trusted)
            if len(self._known) >= CAPACITY:
                self._known.clear()
            self._known[peer, hops] = found
        return found


def client_of(peer: str, hops: bytes, trusted: Sequence[Network]) -> str:
    """The rightmost hop that is not trusted; where all are, the leftmost. What is no address ends the reading.

    `hops` are all values of the header, with commas between them.
    """
    nearest = parse_address(peer)
    if nearest is None or not _is_in(trusted, nearest):
        return peer
    for hop in reversed(hops.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]):
        address = _address_of(hop)
        if address is None:
            break
        nearest = address
        if not _is_in(trusted, nearest):
            break
    return str(nearest)


def _is_in(trusted: Sequence[Network], address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in trusted)


def _address_of(hop: bytes) -> IPv4Address | IPv6Address | None:
    """Some proxies add the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    text = hop.strip().decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return parse_address(text)
