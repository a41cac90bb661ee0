"""One line per request on stdout: what was asked, who answered, how long it took. No key, no prompt, no answer.

For:      `request_finished` lines, gathered on the loop and written off it.
Touches:  the line writer.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from nexus_gateway.core.model import CallRecord

from .lines import LineWriter

FLUSH_S: Final = 0.1  # lines of this span go out together: waking the writer for each would cost more than the line

_encode: Final = msgspec.json.Encoder().encode


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
            self._writer.put(len(records), lambda: b"".join([_encode(line_of(record)) + b"\n" for record in records]))


def line_of(record: CallRecord) -> dict[str, Any]:
    """The fields of a request's line; times in milliseconds."""
    first = record.first_byte_at_s
    return {
        "event": "request_finished",
        "level": "info",
        "timestamp": datetime.fromtimestamp(record.received_at, UTC),
        "request_id": record.request_id,
        "key_id": record.key_id,
        "operation": record.operation.name.lower(),
        "model": record.model,
        "upstream": record.upstream,
        "status": record.status,
        "error_code": record.error_code,
        "client_gone": record.client_gone,
        "stream": record.stream,
        "events": record.events,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "attempts": [[attempt.upstream, attempt.outcome, attempt.status] for attempt in record.attempts],
        "first_byte_ms": None if first is None else round((first - record.started_at_s) * 1000, 3),
        "total_ms": round((record.finished_at_s - record.started_at_s) * 1000, 3),
    }
