"""The same lines for people: `GATEWAY_LOG_FORMAT=console`.

For:      a terminal. What a caller sent is escaped here too: no line of its own, no colours, no moved cursor.
Touches:  nothing; the line writer's thread calls it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_SHOWN_FIRST: Final = ("timestamp", "level", "event")
_TRACEBACK: Final = "exception"
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def for_people(lines: bytes) -> bytes:
    """JSON lines as text: time, level, event, then what else there is."""
    return "".join(f"{_line(_decode(line))}\n" for line in lines.splitlines()).encode()


def _line(fields: Mapping[str, Any]) -> str:
    time, level, event = (str(fields.get(name, "")) for name in _SHOWN_FIRST)
    shown = [time[11:23].rstrip("Z"), f"{level:<8}", _safe(event)]
    shown += [f"{name}={_word(value)}" for name, value in _rest(fields)]
    traceback = [_safe(line) for line in str(fields.get(_TRACEBACK, "")).splitlines()]
    return "\n  ".join([" ".join(shown), *traceback])


def _rest(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is absent, empty or off says nothing to people."""
    for name, value in fields.items():
        if name == "attempts":
            value = ",".join(f"{attempt['upstream']}:{attempt['outcome']}" for attempt in value)
        if name not in _SHOWN_FIRST and name != _TRACEBACK and value not in (None, "", False, [], {}):
            yield _safe(name), value


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value if value.isprintable() and not set(value) & set(' "=') else json.dumps(value)
    return json.dumps(value)


def _safe(text: str) -> str:
    """Without characters that do something to a terminal."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
