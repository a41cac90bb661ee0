"""What is told of a finished request: one flat object, fit for a log and for an audit.

For:      the request log, the audit log and whoever reads them.
Touches:  nothing. No key stands in it; a prompt and its answer only where an audit was told to keep them, masked.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from .model import OPERATION_NAMES, AttemptRecord, CallRecord, Told


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
    trace_id: str | msgspec.UnsetType = msgspec.UNSET  # where requests are traced


class AuditLine(RequestLine, tag="audit", gc=False, kw_only=True):
    """The same for auditors, and what only they ask for."""

    client: str | None  # the address that asked
    route: str | None
    tokens_estimated: bool | None  # None where no tokens are told
    masked: Mapping[str, int] | None  # how many identifiers of each type were hidden; None where nobody looked
    shadow: str | None  # the upstream that got a copy
    prompt: Told | msgspec.UnsetType | None = msgspec.UNSET  # where bodies are told; None if none came
    answer: Told | msgspec.UnsetType | None = msgspec.UNSET


def line_of(record: CallRecord) -> RequestLine:
    return RequestLine(*_common(record))


def audit_line_of(record: CallRecord) -> AuditLine:
    estimated = None if record.usage is None else record.is_usage_estimated
    prompt: Told | msgspec.UnsetType | None = msgspec.UNSET
    answer: Told | msgspec.UnsetType | None = msgspec.UNSET
    if record.bodies is not None:
        prompt, answer = record.bodies.tell(record.key_id or "")
    return AuditLine(
        *_common(record),
        client=record.client,
        route=record.route,
        tokens_estimated=estimated,
        masked=record.masked,
        shadow=record.shadow,
        prompt=prompt,
        answer=answer,
    )


def _common(record: CallRecord) -> tuple[Any, ...]:
    """The fields of RequestLine, in its order."""
    usage = record.usage
    began_s, first_s = record.started_at_s, record.first_byte_at_s
    return (
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
        msgspec.UNSET if record.trace_id is None else record.trace_id,
    )
