"""When to try again.

For:      reading an upstream's wish to be left alone.
Touches:  nothing. The caller brings the clock.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

MAX_COOLDOWN_S: Final = 300.0  # whatever an upstream asks for: a slip of its pen must not take it out for a day
DEFAULT_COOLDOWN_S: Final = 1.0  # when it does not say, or says nothing that can be read


def parse_retry_after(text: str | None, now_unix_s: float) -> float:
    """Seconds to wait, from 0 to MAX_COOLDOWN_S. Source: RFC 9110, section 10.2.3 (seconds or an HTTP date)."""
    if text is None:
        return DEFAULT_COOLDOWN_S
    text = text.strip()
    try:
        wait_s = float(text) if text.replace(".", "", 1).isdecimal() else _until(text, now_unix_s)
    except (ValueError, OverflowError):
        return DEFAULT_COOLDOWN_S
    return min(max(wait_s, 0.0), MAX_COOLDOWN_S)


def _until(date: str, now_unix_s: float) -> float:
    when = parsedate_to_datetime(date)
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() - now_unix_s
