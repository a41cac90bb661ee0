"""What tests of the audit file share: a writer with short waits, and what stands in the file."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nexus_gateway.core.audit import Entry
from nexus_gateway.core.audit_verify import Outcome, Verification, read_anchor
from nexus_gateway.core.model import CallRecord, Operation
from nexus_gateway.observe.audit_file import AuditFile
from nexus_gateway.observe.audit_writer import AuditWriter

RETRY_S = 0.02
PATIENCE_S = 10.0


def records(count: int, first: int = 0) -> list[Entry]:
    return [
        CallRecord(f"req-{first + number}", Operation.CHAT, 1_700_000_000.0, 0.0, key_id="key_1")
        for number in range(count)
    ]


class Checkpoints:
    """Takes what the writer announces."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def __call__(self, line: bytes) -> None:
        self.lines.append(line)


def writer_of(path: Path, **options: Any) -> AuditWriter:
    chosen = {"checkpoint_records": 1000, "sign": None, "announce": Checkpoints(), "retry_s": RETRY_S, **options}
    return AuditWriter(AuditFile(str(path), chosen.pop("max_bytes", 1 << 30)), **chosen)


@contextmanager
def writing(path: Path, **options: Any) -> Iterator[AuditWriter]:
    writer = writer_of(path, **options)
    writer.start()
    try:
        yield writer
    finally:
        writer.close()


def eventually(holds: Callable[[], bool]) -> None:
    """Waits for another thread or process, a moment at a time."""
    deadline_s = time.monotonic() + PATIENCE_S
    moment = threading.Event()
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come to that"
        moment.wait(0.005)


def lines_of(*paths: Path) -> list[Any]:
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def verify(*paths: Path, anchors: tuple[bytes, ...] = ()) -> Outcome:
    found = [anchor for line in anchors if (anchor := read_anchor(line)) is not None]
    assert len(found) == len(anchors)
    verification = Verification(found)
    for path in paths:
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
            if line.endswith(b"\n"):
                verification.feed(line[:-1], f"{path.name}:{number}")
            else:
                verification.feed_tail(line, f"{path.name}:{number}")
    return verification.finish()


def request_ids(*paths: Path) -> list[str]:
    return [line["request_id"] for line in lines_of(*paths) if line["event"] == "audit"]
