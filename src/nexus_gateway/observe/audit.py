"""The audit's side of the loop: exactly one record per request that reached authentication.

For:      gathering finished records and handing them over, ten times a second, to whoever writes them.
Touches:  the running loop's timers. Encoding, hashing and writing happen on the writer's thread.
"""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Final, Protocol

from nexus_gateway.core.audit import Entry, Gap, LoginsFailed, free, render_lines, tell_bodies
from nexus_gateway.core.model import CallRecord

from .lines import LineWriter

FLUSH_S: Final = 0.1  # records of this span go out together: waking the writer for each would cost more than the record
LOGINS_S: Final = 10.0  # failed logins of one address within it are one record
MAX_ADDRESSES: Final = 1000  # that are told apart within it; the rest count as OTHERS
OTHERS: Final = "others"
PROBE_S: Final = 1.0  # how often a sink that lost records is tried again

_REFUSED: Final = (401, 429)  # a credential that was not accepted, or an address that tried too many
_UNAVAILABLE: Final = "audit_unavailable"  # these were answered before anything was done


class AuditSink(Protocol):
    """Takes entries away. `dropped` counts those that are lost."""

    dropped: int

    @property
    def failing(self) -> bool: ...

    @property
    def owes_gap(self) -> bool:
        """Whether something was lost that no record tells yet."""
        ...

    def put(self, entries: list[Entry]) -> None:
        """Never waits."""
        ...

    def tell_gap(self) -> None:
        """Try to write the record that is owed."""
        ...

    def close(self) -> None: ...


class AuditLog:
    """An Observer, and the pipeline's gate: `refuses` while the policy is to block and the sink is failing."""

    def __init__(self, sink: AuditSink, *, blocks: bool) -> None:
        self._sink = sink
        self._blocks = blocks
        self._waiting: list[Entry] = []
        self._logins: dict[str | None, LoginsFailed] = {}
        self._is_probing = False

    @property
    def refuses(self) -> bool:
        return self._blocks and self._sink.failing

    @property
    def failing(self) -> bool:
        return self._sink.failing

    @property
    def dropped(self) -> int:
        return self._sink.dropped

    def started(self) -> None:
        """Only the end of a request is recorded."""

    def finished(self, record: CallRecord) -> None:
        if record.key_id is None and self._is_no_request(record):
            free([record])
            return
        if not self._waiting:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._waiting.append(record)

    def _is_no_request(self, record: CallRecord) -> bool:
        if record.status in _REFUSED:
            self._count_login(record)
            return True
        return record.error_code == _UNAVAILABLE

    def _count_login(self, record: CallRecord) -> None:
        if not self._logins:
            asyncio.get_running_loop().call_later(LOGINS_S, self.flush_logins)
        at = datetime.fromtimestamp(record.received_at, UTC)
        client = record.client if record.client in self._logins or len(self._logins) < MAX_ADDRESSES else OTHERS
        known = self._logins.get(client)
        if known is None:
            known = LoginsFailed(timestamp=at, until=at, client=client, count=0, last_request_id="")
            self._logins[client] = known
        known.until = at
        known.count += 1
        known.last_request_id = record.request_id

    def flush(self) -> None:
        if self._waiting:
            entries, self._waiting = self._waiting, []
            self._sink.put(entries)
            self._watch()
        elif self._sink.owes_gap:
            self._watch()

    def flush_logins(self) -> None:
        if self._logins:
            counted, self._logins = self._logins, {}
            self._sink.put(list(counted.values()))

    def _watch(self) -> None:
        if not self._is_probing:
            self._is_probing = True
            asyncio.get_running_loop().call_later(PROBE_S, self._probe)

    def _probe(self) -> None:
        """Goes on for as long as something may be owed: what was handed over is lost later, if it is."""
        self._is_probing = False
        if self._sink.owes_gap or self._sink.failing:
            self._sink.tell_gap()
            self._watch()

    def close(self) -> None:
        """Write everything there is. The loop serves nobody any more."""
        self.flush_logins()
        self.flush()
        self._sink.close()


class AuditStdout:
    """An AuditSink beside the other lines of stdout, without a chain: whoever keeps them has to guard them."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()  # losses are told from the writer's thread
        self._gap: Gap | None = None
        self.dropped = 0

    @property
    def failing(self) -> bool:
        return self._writer.failing

    @property
    def owes_gap(self) -> bool:
        return self._gap is not None

    def put(self, entries: list[Entry]) -> None:
        self._writer.put(len(entries), lambda: self._render(entries), lambda _lines: self._lose(entries))

    def _render(self, entries: list[Entry]) -> bytes:
        tell_bodies(entries, lambda: self._writer.is_behind)
        return render_lines(entries)

    def tell_gap(self) -> None:
        with self._lock:
            gap, self._gap = self._gap, None
        if gap is not None:
            self._writer.put(1, lambda: render_lines([gap]), lambda _lines: self._owe(gap))

    def _lose(self, entries: list[Entry]) -> None:
        now = datetime.now(UTC)
        free(entries)
        self.dropped += len(entries)
        self._owe(Gap(timestamp=now, until=now, count=len(entries)))

    def _owe(self, gap: Gap) -> None:
        with self._lock:
            if self._gap is not None:
                gap.timestamp = min(gap.timestamp, self._gap.timestamp)
                gap.until = max(gap.until, self._gap.until)
                gap.count += self._gap.count
            self._gap = gap

    def close(self) -> None:
        """The writer is closed by its owner."""
        self.tell_gap()
