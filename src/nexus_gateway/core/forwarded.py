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


def client_of(peer: str | None, headers: Sequence[tuple[bytes, bytes]], trusted: Sequence[Network]) -> str | None:
    """The rightmost hop that is not trusted; where all are, the leftmost. What is no address ends the reading."""
    nearest = parse_address(peer) if peer is not None else None
    if not trusted or nearest is None or not _is_in(trusted, nearest):
        return peer
    hops = b",".join(value for name, value in headers if name == HEADER).rsplit(b",", MAX_HOPS)
    for hop in reversed(hops[-MAX_HOPS:]):
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
