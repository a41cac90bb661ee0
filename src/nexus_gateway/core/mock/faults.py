"""How the mock model fails when it is told to.

For:      faults that come in the share, and in the shape, that a real server would give them.
Touches:  nothing.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import msgspec

_GOLDEN: Final = (5**0.5 - 1) / 2
_SERVER_ERROR: Final = ("server_error", None)
_KINDS: Final[Mapping[int, tuple[str, str | None]]] = {  # type and code
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("permission_denied", "model_not_allowed"),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout", None),
    429: ("requests", "rate_limit_exceeded"),
}
_REQUEST_ERROR: Final = ("invalid_request_error", None)


def error_body(status: int, message: str, param: str | None = None) -> bytes:
    """The error object of the API, as a server that answers `status` would fill it."""
    kind, code = _KINDS.get(status, _SERVER_ERROR if status >= 500 else _REQUEST_ERROR)
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class ErrorShare:
    """Draws errors so that of every stretch of requests `rate` fail, give or take a few, but in no simple beat.

    A coin would need thousands of draws for that; every tenth request exactly would fall in step with retries.
    Source: the additive recurrence of the golden ratio, whose discrepancy is the least of all.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self._rate = rate
        self._at = int.from_bytes(blake2b(str(seed).encode(), digest_size=6).digest()) / 2**48

    def draw(self) -> bool:
        """Whether the next request fails."""
        self._at = (self._at + _GOLDEN) % 1.0
        return self._at < self._rate
