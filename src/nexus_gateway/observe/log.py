"""One line per request on stdout: what was asked, who answered, how long it took. No key, no prompt, no answer.

For:      `request_finished` lines, gathered on the loop and written off it.
Touches:  the line writer.
"""

import asyncio
from typing import Final

import msgspec

from nexus_gateway.core.model import CallRecord
from nexus_gateway.core.request_line import line_of

from .lines import LineWriter

FLUSH_S: Final = 0.1  # lines of this span go out together: waking the writer for each would cost more than the line

_encode_lines: Final = msgspec.json.Encoder().encode_lines


class RequestLog:
    """An Observer. Holds finished records for a moment, then hands them to the writer together."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        self._waiting: list[CallRecord] = []

    def started(self) -> None:
        """Only the end of a request is told."""

    def finished(self, record: CallRecord) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._waiting.append(record)

    def flush(self) -> None:
        if self._waiting:
            records, self._waiting = self._waiting, []
            self._writer.put(len(records), lambda: _encode_lines([line_of(record) for record in records]))
