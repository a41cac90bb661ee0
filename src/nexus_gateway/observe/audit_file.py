"""Where audit lines go: a regular file that is rotated by size, or something that is read as it is written.

For:      the audit's writer thread, which may wait; every call here may block for about a second.
Touches:  the file that GATEWAY_AUDIT_FILE names, and its rotated siblings. All failures are OSError.
"""

import errno
import fcntl
import os
import re
import select
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexus_gateway.core.audit import LINE_BEGIN

STALL_S: Final = 1.0  # a pipe that takes nothing for so long counts as failing
MODE: Final = 0o600  # who asked what is nobody's business but the auditor's
_BLOCK_BYTES: Final = 64 << 10
_ROTATED: Final = re.compile(r"\.\d{12}(-\d+)?")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in a file already. Lines come without newline; None where there is none."""

    first: bytes | None
    last: bytes | None
    tail_bytes: int = 0  # after the last newline: what a killed process left
    tail_begin: bytes = b""  # of a file without a full line


EMPTY: Final = Found(None, None)


class AuditFile:
    """Opened when it can be. A regular file is written whole lines at a time or not at all."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._fd = -1
        self.is_regular = False
        self._size = 0
        self._is_torn = False  # a failed write left something behind that has to go first
        self._sent = 0  # of the lines being written to a pipe

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    @property
    def is_full(self) -> bool:
        return self.is_regular and self._size >= self._max_bytes

    def open(self) -> Found:
        """Open it for this process alone, and say what is in it."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(self.path, flags, MODE)
        try:
            status = os.fstat(fd)
            self.is_regular = stat.S_ISREG(status.st_mode)
            found = self._look(fd, status.st_size) if self.is_regular else EMPTY
        except OSError:
            os.close(fd)
            raise
        self._fd, self._size = fd, status.st_size
        return found

    def _look(self, fd: int, size: int) -> Found:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "Another process writes to it", self.path) from None
        return read_ends(self.path) if size else EMPTY

    def cut(self, tail_bytes: int) -> None:
        """Remove the half line at the end."""
        os.ftruncate(self._fd, self._size - tail_bytes)
        self._size -= tail_bytes

    def predecessor(self) -> Found:
        """What the last rotated file holds: the chain goes on from there when a new file was about to be begun."""
        own = Path(self.path)
        rotated = [each for each in own.parent.glob(f"{own.name}.*") if _ROTATED.fullmatch(each.name[len(own.name) :])]
        return read_ends(str(max(rotated))) if rotated and self.is_regular else EMPTY

    def write(self, lines: bytes) -> None:
        """Write all of it. After a failure the next call must bring the same bytes."""
        if self.is_regular:
            self._write_whole(lines)
        else:
            self._write_on(lines)

    def _write_whole(self, lines: bytes) -> None:
        self._mend()
        rest = memoryview(lines)
        self._is_torn = True
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with suppress(OSError):  # then it is tried again before the next write
                self._mend()
            raise
        self._is_torn = False
        self._size += len(lines)

    def _mend(self) -> None:
        if self._is_torn:
            os.ftruncate(self._fd, self._size)
            self._is_torn = False

    def _write_on(self, lines: bytes) -> None:
        try:
            while self._sent < len(lines):
                try:
                    self._sent += os.write(self._fd, memoryview(lines)[self._sent :])
                except BlockingIOError:
                    self._wait_for_reader()
        except BrokenPipeError:  # the next reader gets whole lines
            self._sent = lines.rfind(b"\n", 0, self._sent) + 1
            self.close()
            raise
        self._sent = 0

    def _wait_for_reader(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(STALL_S * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "Nobody reads it", self.path)

    def sync(self) -> None:
        """To the disk."""
        if self.is_regular:
            os.fsync(self._fd)
            self.leave_if_moved()

    def leave_if_moved(self) -> None:
        """Close a file that was moved away, or deleted, so that the next `open` makes a new one."""
        if not self.is_regular:
            return
        try:
            is_there = os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self.close()

    def rotate(self, last_seq: int) -> None:
        """Move the file aside, named by its last record so that names sort as the chain does, and close it."""
        name = rotated = f"{self.path}.{last_seq:012d}"
        tries = 0
        while os.path.lexists(rotated):  # of a chain that was begun anew; nothing is ever written over
            tries += 1
            rotated = f"{name}-{tries}"
        os.rename(self.path, rotated)
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._is_torn = False
            os.close(fd)


def read_ends(path: str) -> Found:
    """The first and the last full line of a file."""
    with open(path, "rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return Found(None, None, len(first), first[: len(LINE_BEGIN)])
        end = at = file.seek(0, os.SEEK_END)
        text = b""
        while at > 0 and text.rstrip(b"\n").count(b"\n") < 2:  # a half line, a full one, and the newline before it
            step = min(_BLOCK_BYTES, at)
            at -= step
            file.seek(at)
            text = file.read(step) + text
        last_end = text.rfind(b"\n")
        last_begin = text.rfind(b"\n", 0, last_end) + 1
        return Found(first[:-1], text[last_begin:last_end], end - (at + last_end + 1))
