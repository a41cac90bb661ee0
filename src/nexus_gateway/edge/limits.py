"""How a caller's limit is told in headers."""

from typing import Final

from nexus_gateway.core.model import Verdict

_LIMIT: Final = b"x-ratelimit-limit-requests"
_REMAINING: Final = b"x-ratelimit-remaining-requests"
_RESET: Final = b"x-ratelimit-reset-requests"


def limit_headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    return [
        (_LIMIT, b"%d" % verdict.limit),
        (_REMAINING, b"%d" % verdict.remaining),
        (_RESET, duration(verdict.reset_s)),
    ]


def duration(seconds: float) -> bytes:
    """As the API writes it: `12ms`, `1s`, `6m0s`; rounded up, so that nobody comes back too early."""
    ms = -int(-seconds * 1000 // 1)
    if ms < 1000:
        return b"%dms" % ms
    whole_s = -(-ms // 1000)
    minutes, rest_s = divmod(whole_s, 60)
    return b"%dm%ds" % (minutes, rest_s) if minutes else b"%ds" % rest_s
