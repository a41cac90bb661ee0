"""The thread that writes the audit file: links records into the chain, and outlives every failure of the disk.

For:      records handed over by the loop, which never waits. What cannot be written is held and tried again; what
          finds no room is counted, and told in the chain when it goes on.
Touches:  the audit file, from its thread only.
"""

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from nexus_gateway.core.audit import LINE_BEGIN, Chain, Entry, Gap, Signature, free, read_link, tell_bodies

from .audit_file import AuditFile, Found

MAX_WAITING: Final = 20_000  # records; about 40 MB while the disk is full
RETRY_S: Final = 0.5
SYNC_S: Final = 1.0  # what a power cut may cost
STALL_S: Final = 2.0  # a write that takes so long has found a disk that hangs
CLOSE_WAIT_S: Final = 3.0
ROTATE_AGAIN_S: Final = 60.0  # after the directory refused it

log = logging.getLogger(__name__)


class ForeignFile(OSError):
    """The file holds something that is not an audit chain: it is left alone."""


class AuditWriter:
    """`put`, `tell_gap` and `close` belong to the loop. `announce` is told every checkpoint, on the writer's thread."""

    def __init__(
        self,
        file: AuditFile,
        *,
        checkpoint_records: int,
        sign: Signature | None,
        announce: Callable[[bytes], None],
        max_waiting: int = MAX_WAITING,
        retry_s: float = RETRY_S,
    ) -> None:
        self._file = file
        self._checkpoint_records = checkpoint_records
        self._sign = sign
        self._announce = announce
        self._max_waiting = max_waiting
        self._retry_s = retry_s
        self._batches: queue.SimpleQueue[list[Entry] | None] = queue.SimpleQueue()
        self._put = 0  # records; only the loop adds
        self._taken = 0  # only the thread adds
        self.dropped = 0
        self._gap: Gap | None = None  # lost since the last batch was taken
        self._has_failed = False
        self._busy_since_s: float | None = None
        self._closing = threading.Event()
        self._closes_by_s = math.inf
        # ---- the thread's own
        self._chain = Chain("")  # nameless until the file was looked at
        self._since_checkpoint = 0
        self._pending = b""  # linked, but not written yet
        self._checkpoints: list[bytes] = []  # among them
        self._is_linked = False  # a batch is, and has to go out as it is
        self._synced_at_s = 0.0
        self._is_dirty = False
        self._no_rotation_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)

    # ---- for the loop

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records handed over that are not written yet."""
        return self._put - self._taken

    @property
    def owes_gap(self) -> bool:
        return self._gap is not None

    @property
    def failing(self) -> bool:
        """Whether records do not reach their file just now."""
        busy_since_s = self._busy_since_s
        is_stalled = busy_since_s is not None and time.monotonic() - busy_since_s > STALL_S
        return self._has_failed or is_stalled or not self._thread.is_alive()

    def put(self, entries: list[Entry]) -> None:
        """Hand over a batch. Never waits; a batch that finds no room is dropped and counted."""
        if self.waiting + len(entries) > self._max_waiting:
            free(entries)
            self._drop(len(entries))
            return
        if self._gap is not None:
            entries = [self._gap, *entries]
            self._gap = None
        self._put += len(entries)
        self._batches.put(entries)

    def _drop(self, count: int) -> None:
        now = datetime.now(UTC)
        if self._gap is None:
            self._gap = Gap(timestamp=now, until=now, count=0)
            log.error("audit_records_dropped", extra={"file": self._file.path, "waiting": self.waiting})
        self._gap.until = now
        self._gap.count += count
        self.dropped += count

    def tell_gap(self) -> None:
        """Hand over the record of what was lost, if there is room again."""
        if self._gap is not None and self.waiting < self._max_waiting:
            self.put([])

    def close(self) -> None:
        """Write what was handed over, and the last checkpoint. Gives up when the file cannot be written."""
        self.tell_gap()
        self._closes_by_s = time.monotonic() + CLOSE_WAIT_S
        self._batches.put(None)
        self._closing.set()
        self._thread.join(CLOSE_WAIT_S)
        if lost := self.waiting:
            self.dropped += lost
            log.error("audit_records_lost", extra={"file": self._file.path, "count": lost})

    # ---- on the thread

    def _run(self) -> None:
        self._attempt(self._make_ready)  # a file that cannot be written is told at start, not at the first request
        while (batch := self._next()) is not None:
            if not self._deliver(batch):
                return
        self._attempt(self._finish)

    def _next(self) -> list[Entry] | None:
        while True:
            try:
                return self._batches.get(timeout=self._patience_s())
            except queue.Empty:
                self._attempt(self._make_ready)

    def _patience_s(self) -> float | None:
        if self._has_failed:
            return self._retry_s
        return SYNC_S if self._is_dirty else None

    def _deliver(self, batch: list[Entry]) -> bool:
        """Until it is written. False when the gateway closes and it cannot be."""
        tell_bodies(batch, self._is_behind)
        while not self._attempt(lambda: self._write(batch)):
            if self._closing.is_set():
                return False
            self._closing.wait(self._retry_s)
        self._taken += len(batch)
        return True

    def _is_behind(self) -> bool:
        return self.waiting > self._max_waiting // 2 or time.monotonic() > self._closes_by_s - CLOSE_WAIT_S / 2

    def _write(self, batch: list[Entry]) -> None:
        if self._is_linked:  # part of it is in a pipe already
            self._flush()
        else:
            self._make_ready()
            chain, since_checkpoint = self._chain, self._since_checkpoint
            self._chain = Chain(chain.id, chain.seq, chain.head)
            self._link(batch)
            try:
                self._flush()
            except OSError:
                self._is_linked = not self._file.is_regular
                if not self._is_linked:  # nothing of it was written: it may well go into another file than this one
                    self._chain, self._since_checkpoint = chain, since_checkpoint
                    self._pending = b""
                    self._checkpoints.clear()
                raise
        self._is_linked = False

    def _attempt(self, action: Callable[[], None]) -> bool:
        self._busy_since_s = time.monotonic()
        try:
            action()
        except OSError as exc:
            if not self._has_failed:
                log.error("audit_failing", extra={"file": self._file.path, "reason": exc.strerror or str(exc)})
            self._has_failed = True
            return False
        finally:
            self._busy_since_s = None
        if self._has_failed:
            log.warning("audit_recovered", extra={"file": self._file.path})
        self._has_failed = False
        return True

    def _make_ready(self) -> None:
        """Everything is written and the file is open, synchronised and not full."""
        if self._has_failed and self._file.is_open:
            self._file.leave_if_moved()  # perhaps to make room on the disk
        self._open()
        self._flush()
        now_s = time.monotonic()
        if self._is_dirty and now_s - self._synced_at_s >= SYNC_S:
            self._sync(now_s)
            self._open()
            self._flush()
        if self._file.is_full and now_s >= self._no_rotation_until_s:
            self._rotate(now_s)

    def _open(self) -> None:
        if self._file.is_open:
            return
        found = self._file.open()
        try:
            self._resume(found)
        except OSError:
            self._file.close()
            raise

    def _resume(self, found: Found) -> None:
        present = _chain_of(found, self._file.path)
        if found.tail_bytes:
            self._file.cut(found.tail_bytes)
        if not self._chain.id:
            before = present or _chain_of(self._file.predecessor(), self._file.path)
            self._chain = before or Chain(os.urandom(8).hex())
        self._pending += self._chain.open(datetime.now(UTC), found.tail_bytes)

    def _link(self, batch: list[Entry]) -> None:
        lines = [self._pending]
        for entry in batch:
            lines.append(self._chain.add(entry))
            self._since_checkpoint += 1
            if self._since_checkpoint >= self._checkpoint_records:
                lines.append(self._checkpoint("interval"))
        self._pending = b"".join(lines)

    def _checkpoint(self, reason: str) -> bytes:
        line = self._chain.checkpoint(datetime.now(UTC), reason, self._sign)
        self._since_checkpoint = 0
        self._checkpoints.append(line)
        return line

    def _flush(self) -> None:
        if not self._pending:
            return
        self._open()  # a pipe's reader may have left at the last try
        self._file.write(self._pending)
        self._pending = b""
        self._is_dirty = True
        checkpoints, self._checkpoints = self._checkpoints, []
        for line in checkpoints:
            self._announce(line)

    def _sync(self, now_s: float) -> None:
        self._file.sync()
        self._synced_at_s = now_s
        self._is_dirty = False

    def _rotate(self, now_s: float) -> None:
        self._pending += self._checkpoint("rotated")
        self._flush()
        self._sync(now_s)
        try:
            self._file.rotate(self._chain.seq - 1)
        except OSError as exc:  # it goes on growing: better a large file than none
            self._no_rotation_until_s = now_s + ROTATE_AGAIN_S
            log.error("audit_rotation_failed", extra={"file": self._file.path, "reason": exc.strerror})
        self._open()
        self._flush()

    def _finish(self) -> None:
        if self._file.is_open:
            self._pending += self._checkpoint("closed")
            self._flush()
            self._file.sync()
            self._file.close()


def _chain_of(found: Found, path: str) -> Chain | None:
    """The chain that a file ends with. Raises ForeignFile for one that nothing may be added to."""
    if found.first is None or found.last is None:
        if not LINE_BEGIN.startswith(found.tail_begin):
            raise ForeignFile(0, "It holds no audit chain", path)
        return None
    first, last = read_link(found.first), read_link(found.last)
    if first is None or first.chain is None or last is None:
        raise ForeignFile(0, "Its first or last line is not of an audit chain", path)
    return Chain(first.chain, last.seq + 1, last.hash)
