"""One line per request on stdout: what was asked, who answered, how long it took. No key, no prompt, no answer.

For:      `request_finished` lines, gathered on the loop and written off it.
Touches:  the line writer.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from nexus_gateway.core.model import OPERATION_NAMES, AttemptRecord, CallRecord

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


class RequestLine(msgspec.Struct, tag_field="event", tag="request_finished", gc=False):
    """The line of a request, in the order of its fields; times in milliseconds."""

    level: str
    timestamp: datetime
    request_id: str
    key_id: str | None
    operation: str
    model: str | None
    upstream: str | None
    status: int
    error_code: str | None
    client_gone: bool
    stream: bool
    events: int
    prompt_tokens: int | None
    completion_tokens: int | None
    request_bytes: int
    response_bytes: int
    attempts: list[AttemptRecord]
    first_byte_ms: float | None
    total_ms: float


def line_of(record: CallRecord) -> RequestLine:
    usage = record.usage
    began_s, first_s = record.started_at_s, record.first_byte_at_s
    return RequestLine(
        "info",
        datetime.fromtimestamp(record.received_at, UTC),
        record.request_id,
        record.key_id,
        OPERATION_NAMES[record.operation],
        record.model,
        record.upstream,
        record.status,
        record.error_code,
        record.client_gone,
        record.stream,
        record.events,
        usage.prompt_tokens if usage is not None else None,
        usage.completion_tokens if usage is not None else None,
        record.request_bytes,
        record.response_bytes,
        record.attempts,
        None if first_s is None else round((first_s - began_s) * 1000, 3),
        round((record.finished_at_s - began_s) * 1000, 3),
    )
