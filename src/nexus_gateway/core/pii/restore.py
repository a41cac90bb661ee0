"""Puts the caller's own values back where a model's answer names their placeholders.

For:      whole texts and streams alike, with nothing held back longer than a placeholder may still be completing.
Touches:  nothing.

Only the table of the same request is used, so a placeholder that somebody learned elsewhere stays what it is. A
placeholder is recognised in its brackets, whole; capitals do not matter, since models change them in headings.
"""

from bisect import bisect_left
from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from .links import Links

_OPEN: Final = "["
_CLOSE: Final = "]"


class Restoring(Enum):
    """Where placeholders become values again: in text but not in links, in links too, or nowhere."""

    TEXT = "text"
    EVERYWHERE = "everywhere"
    OFF = "off"


class Restorer:
    """Of one request. `table` is `Masked.table`."""

    __slots__ = ("_names", "_policy", "_table", "longest")

    def __init__(self, table: Mapping[str, str], policy: Restoring = Restoring.TEXT) -> None:
        self._table = table if policy is not Restoring.OFF else {}
        self._policy = policy
        self._names = sorted(self._table)
        self.longest = max(map(len, self._names), default=0)

    def restore_text(self, text: str, *, in_json: bool = False) -> str:
        """`in_json`: the text is JSON (a tool call's arguments, an answer in a schema): values are escaped for it."""
        if _OPEN not in text or not self._table:
            return text
        stream = self.stream(in_json=in_json)
        return stream.feed(text) + stream.flush()

    def stream(self, *, in_json: bool = False) -> "StreamRestorer":
        """One per choice, field and tool call."""
        links = Links(in_json=in_json) if self._policy is Restoring.TEXT else None
        return StreamRestorer(self, links, in_json=in_json)

    def value_of(self, name: str, *, in_json: bool) -> str | None:
        """What a placeholder stands for, None when it is none of this request's."""
        value = self._table.get(name.upper())
        if value is None or not in_json:
            return value
        return msgspec.json.encode(value)[1:-1].decode()

    def may_become(self, beginning: str) -> bool:
        """Whether a placeholder of this request begins so."""
        beginning = beginning.upper()
        at = bisect_left(self._names, beginning)
        return at < len(self._names) and self._names[at].startswith(beginning)


class StreamRestorer:
    """One text, as it comes. However it is cut, the pieces returned make up what `restore_text` makes of the whole."""

    __slots__ = ("_in_json", "_links", "_restorer", "held")

    def __init__(self, restorer: Restorer, links: Links | None, *, in_json: bool) -> None:
        self._restorer = restorer
        self._links = links
        self._in_json = in_json
        self.held = ""  # the beginning of what may become a placeholder

    def feed(self, delta: str) -> str:
        """What can be said now."""
        text = self.held + delta if self.held else delta
        restorer, links = self._restorer, self._links
        said: list[str] = []
        at = 0  # what is before it was said, or is about to be
        opening = text.find(_OPEN)
        while opening >= 0:
            closing = text.find(_CLOSE, opening, opening + restorer.longest)
            if closing < 0:
                rest = text[opening:]
                if len(rest) < restorer.longest and restorer.may_become(rest):
                    break
                opening = text.find(_OPEN, opening + 1)
                continue
            name = text[opening : closing + 1]
            value = restorer.value_of(name, in_json=self._in_json)
            if value is None:
                opening = text.find(_OPEN, opening + 1)
                continue
            before = text[at:opening]
            said += before, self._in_place(name, value, before, links)
            at = closing + 1
            opening = text.find(_OPEN, at)
        end = opening if opening >= 0 else len(text)
        self.held = text[end:]
        rest = text[at:end]
        if links is not None and rest:
            links.follow(rest)
        said.append(rest)
        return "".join(said)

    def flush(self) -> str:
        """What was held back, at the end of the text: it was no placeholder."""
        held, self.held = self.held, ""
        return held

    @staticmethod
    def _in_place(name: str, value: str, before: str, links: Links | None) -> str:
        if links is None:
            return value
        links.follow(before)
        in_link = links.is_inside()
        links.follow(name)
        return name if in_link else value
