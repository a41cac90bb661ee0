"""Requests that failed of late, for an operator to see without a log at hand.

For:      `GET /admin/errors`. No prompt, no answer and no key: what a CallRecord holds.
Touches:  memory only, bounded: one entry for each kind of failure, and only the newest kinds.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from nexus_gateway.core.model import CallRecord

MAX_KINDS: Final = 200  # that are remembered; the one that was not seen for longest goes first

Kind = tuple[str, int, str | None, str | None, str | None]  # code, status, key id, route, upstream


class Failure(msgspec.Struct):
    """One kind of failure: how often it came since `first_at` (Unix time), and the request that met it last."""

    first_at: float
    last: CallRecord
    count: int = 1


class Failures:
    """An Observer. Equal failures are one entry: a caller that fails a thousand times a second hides nobody else's."""

    def __init__(self, most: int = MAX_KINDS) -> None:
        self._most = most
        self._kinds: OrderedDict[Kind, Failure] = OrderedDict()

    def __iter__(self) -> Iterator[Failure]:
        """The newest first."""
        return reversed(self._kinds.values())

    def started(self) -> None:
        """Only the end of a request can be a failure."""

    def finished(self, record: CallRecord) -> None:
        if record.error_code is None:
            return
        kind = record.error_code, record.status, record.key_id, record.route, asked_last(record)
        known = self._kinds.get(kind)
        if known is not None:
            known.count += 1
            known.last = _without_bodies(record)
            self._kinds.move_to_end(kind)
            return
        self._kinds[kind] = Failure(record.received_at, _without_bodies(record))
        if len(self._kinds) > self._most:
            self._kinds.popitem(last=False)


def _without_bodies(record: CallRecord) -> CallRecord:
    """The audit alone holds those, and only for as long as it has to."""
    return record if record.bodies is None else msgspec.structs.replace(record, bodies=None)


def asked_last(record: CallRecord) -> str | None:
    """The upstream that failed it; None where none was asked."""
    return record.attempts[-1].upstream if record.attempts else None
