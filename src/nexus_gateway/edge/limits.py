"""How a caller's limit is told in headers."""

from math import ceil
from typing import Final

from nexus_gateway.core.model import Verdict

_NAMES: Final = {
    resource: tuple(f"x-ratelimit-{part}-{resource}".encode("ascii") for part in ("limit", "remaining", "reset"))
    for resource in ("requests", "tokens")
}


def limit_headers(resource: str, verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """`resource` is "requests" or "tokens"."""
    limit, remaining, reset = _NAMES[resource]
    return [
        (limit, b"%d" % verdict.limit),
        (remaining, b"%d" % verdict.remaining),
        (reset, duration(verdict.reset_s)),
    ]


def duration(seconds: float) -> bytes:
    """As the API writes it: `12ms`, `1s`, `6m0s`; rounded up, so that nobody comes back too early."""
    ms = ceil(seconds * 1000)
    if ms < 1000:
        return b"%dms" % ms
    whole_s = -(-ms // 1000)
    return b"%ds" % whole_s if whole_s < 60 else b"%dm%ds" % divmod(whole_s, 60)
