"""The writer's thread against disks and pipes that misbehave: nothing is lost silently, nothing needs a restart."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nexus_gateway.core.audit import Entry
from nexus_gateway.core.audit_bodies import Kept, Room
from nexus_gateway.core.model import CallRecord

from .audit_files import Checkpoints, eventually, lines_of, records, request_ids, verify, writer_of, writing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_all_that_was_put_stands_in_the_file_in_order_and_verifies(path: Path) -> None:
    announce = Checkpoints()
    with writing(path, checkpoint_records=10, announce=announce) as writer:
        for first in range(0, 100, 7):
            writer.put(records(7, first))
    outcome = verify(path, anchors=tuple(announce.lines))
    assert (outcome.finding, outcome.unproved) == (None, [])
    assert request_ids(path) == [f"req-{number}" for number in range(105)]
    assert len(announce.lines) == 11
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_restart_continues_the_chain(path: Path) -> None:
    for first in (0, 5, 10):
        with writing(path) as writer:
            writer.put(records(5, first))
    assert verify(path).finding is None
    assert [line["chain"] for line in lines_of(path) if line["event"] == "audit_opened"] == [
        lines_of(path)[0]["chain"]
    ] * 3


@pytest.mark.parametrize("left", [b'{"seq":7,"event":"aud', b"\0" * 5000], ids=["half a line", "zeros of a power cut"])
def test_a_half_line_of_a_killed_process_is_cut_and_told(path: Path, left: bytes) -> None:
    with writing(path) as writer:
        writer.put(records(5))
    with path.open("ab") as file:
        file.write(left)
    with writing(path) as writer:
        writer.put(records(5, 5))
    assert verify(path).finding is None
    assert verify(path).tail is None
    assert [line["cut_bytes"] for line in lines_of(path) if line["event"] == "audit_opened"] == [0, len(left)]


def test_files_are_rotated_by_size_and_verify_together(path: Path) -> None:
    with writing(path, max_bytes=3000) as writer:
        for first in range(50):
            writer.put(records(1, first))
            eventually(lambda: not writer.waiting)
    files = [*sorted(path.parent.glob("audit.jsonl.*")), path]
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 5000
    assert request_ids(*files) == [f"req-{number}" for number in range(50)]
    assert verify(*files).finding is None
    assert verify(*files[2:]).finding is None, "the earliest may be deleted"
    assert verify(files[0], *files[2:]).finding is not None


def test_a_start_between_two_files_continues_the_chain(path: Path) -> None:
    with writing(path) as writer:
        writer.put(records(5))
    rotated = path.rename(f"{path}.000000000006")
    with writing(path) as writer:
        writer.put(records(5, 5))
    assert verify(rotated, path).finding is None


def test_a_file_that_was_moved_away_is_noticed(path: Path) -> None:
    with writing(path) as writer:
        writer.put(records(5))
        eventually(lambda: path.exists() and request_ids(path)[-1:] == ["req-4"])
        moved = path.rename(path.parent / "moved")
        writer.put(records(5, 5))
        eventually(path.exists)
        writer.put(records(5, 10))
    assert verify(moved, path).finding is None
    assert request_ids(moved, path) == [f"req-{number}" for number in range(15)]


def test_two_writers_never_share_a_file(path: Path) -> None:
    with writing(path) as first:
        first.put(records(5))
        eventually(lambda: not first.waiting)  # the file exists before it is locked
        with writing(path) as second:
            eventually(lambda: second.failing)
            second.put(records(5, 100))
            first.put(records(5, 5))
            eventually(lambda: not first.waiting)
        assert second.dropped == 5
    assert verify(path).finding is None
    assert request_ids(path) == [f"req-{number}" for number in range(10)]


@pytest.mark.parametrize("content", [b"precious\n", b"precious", b'{"seq":0}\n', b"{}\nx\n"])
def test_a_file_that_is_no_audit_chain_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with writing(path) as writer:
        writer.put(records(5))
        eventually(lambda: writer.failing)
    assert path.read_bytes() == content
    assert writer.dropped == 5


def test_what_the_disk_did_not_take_is_held_then_counted_and_told_in_the_chain(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nexus_gateway")
    path.mkdir()  # nothing can be written there
    with writing(path, max_waiting=10) as writer:
        eventually(lambda: writer.failing)
        writer.put(records(8))
        writer.put(records(4, 8))  # no room
        writer.put(records(3, 12))
        assert (writer.dropped, writer.owes_gap) == (7, True)
        path.rmdir()
        eventually(lambda: not writer.failing and not writer.waiting)
        writer.put(records(5, 15))
    assert verify(path).finding is None
    told = [line.get("request_id", line["event"]) for line in lines_of(path)]
    held, later = [f"req-{number}" for number in range(8)], [f"req-{number}" for number in range(15, 20)]
    assert told == ["audit_opened", *held, "audit_gap", *later, "audit_checkpoint"]
    assert [line["count"] for line in lines_of(path) if line["event"] == "audit_gap"] == [7]
    messages = [entry.message for entry in caplog.records]
    assert messages == ["audit_failing", "audit_records_dropped", "audit_recovered"]


def test_a_gap_is_told_although_nothing_follows(path: Path) -> None:
    path.mkdir()
    with writing(path, max_waiting=2) as writer:
        writer.put(records(3))
        eventually(lambda: writer.failing)
        path.rmdir()
        eventually(lambda: not writer.failing)
    assert [line["event"] for line in lines_of(path)] == ["audit_opened", "audit_gap", "audit_checkpoint"]


def test_bodies_neither_hold_records_up_nor_keep_their_room(path: Path) -> None:
    room, begun, may_mask = Room(), threading.Event(), threading.Event()
    left_bytes = room.left_bytes

    def mask(raw: bytes, _limit: int, _key: str) -> tuple[str, bool]:
        begun.set()
        may_mask.wait(10)
        return raw.decode().upper(), True

    def with_body(number: int) -> list[Entry]:
        (record,) = records(1, number)
        assert isinstance(record, CallRecord)
        record.bodies = kept = Kept(room, mask, says_vectors=False)
        kept.take_prompt(b"hello")
        return [record]

    with writing(path, max_waiting=8) as writer:
        writer.put(with_body(0))
        assert begun.wait(10)
        for number in range(1, 10):
            writer.put(with_body(number))
        assert writer.dropped == 2
        may_mask.set()
        eventually(lambda: not writer.waiting)
        writer.put(with_body(10))
        eventually(lambda: not writer.waiting)
    told = {line["request_id"]: line["prompt"] for line in lines_of(path) if line["event"] == "audit"}
    assert list(told) == [f"req-{number}" for number in (*range(8), 10)]
    masked, missing = {"bytes": 5, "text": "HELLO", "lacks": None}, {"bytes": 5, "text": None, "lacks": "overload"}
    assert (told["req-0"], told["req-1"], told["req-7"], told["req-10"]) == (masked, missing, masked, masked)
    assert room.left_bytes == left_bytes
    assert verify(path).finding is None


FULL = """
import resource, sys
from pathlib import Path
from tests.observe.audit_files import eventually, records, writing
path = Path(sys.argv[1])
with writing(path) as writer:
    writer.put(records(20))
    eventually(lambda: not writer.waiting)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, resource.RLIM_INFINITY))
    writer.put(records(20, 20))
    eventually(lambda: writer.failing)
    print(path.read_bytes()[-1:] == b"\\n")
    if sys.argv[2:]:
        path.rename(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    eventually(lambda: not writer.failing)
"""


def fill_the_disk(*arguments: Path) -> None:
    command = [sys.executable, "-c", FULL, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=25, check=False)
    assert (done.stderr, done.stdout) == (b"audit_failing\naudit_recovered\n", b"True\n")


def test_a_full_disk_leaves_whole_lines_and_loses_nothing(path: Path) -> None:
    fill_the_disk(path)
    assert verify(path).finding is None
    assert request_ids(path) == [f"req-{number}" for number in range(40)]


def test_a_file_that_is_moved_to_make_room_is_continued_in_a_new_one(path: Path) -> None:
    moved = path.parent / "moved"
    fill_the_disk(path, moved)
    assert verify(moved, path).finding is None
    assert verify(path).finding is None
    assert request_ids(moved, path) == [f"req-{number}" for number in range(40)]
    assert request_ids(path)


def test_a_device_that_is_always_full_is_survived() -> None:
    writer = writer_of(Path("/dev/full"), max_waiting=5)
    writer.start()
    eventually(lambda: writer.failing)
    writer.put(records(5))
    writer.put(records(1))
    writer.close()
    assert writer.dropped == 6


def test_a_pipe_nobody_reads_fails_until_somebody_does(path: Path) -> None:
    os.mkfifo(path)
    with writing(path) as writer:
        writer.put(records(3))
        eventually(lambda: writer.failing)
        reader = os.open(path, os.O_RDONLY)
        eventually(lambda: not writer.failing)
        text = os.read(reader, 1 << 16)
        os.close(reader)
        writer.put(records(3, 3))
        eventually(lambda: writer.failing)
        reader = os.open(path, os.O_RDONLY)
        eventually(lambda: not writer.failing)
        text += os.read(reader, 1 << 16)
    os.close(reader)
    copy = path.parent / "copy"
    copy.write_bytes(text)
    assert verify(copy).finding is None
    assert request_ids(copy) == [f"req-{number}" for number in range(6)]


def test_a_reader_that_stalls_gets_every_line_once_when_it_goes_on(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with writing(path) as writer:
        writer.put(records(500))  # more than a pipe holds
        eventually(lambda: writer.failing)
        text = b""
        while writer.failing or writer.waiting:
            try:
                text += os.read(reader, 1 << 16)
            except BlockingIOError:
                eventually(lambda: True)
    text += os.read(reader, 1 << 16)
    os.close(reader)
    copy = path.parent / "copy"
    copy.write_bytes(text)
    assert verify(copy).finding is None
    assert request_ids(copy) == [f"req-{number}" for number in range(500)]


ENDLESS = """
import sys
from pathlib import Path
from tests.observe.audit_files import eventually, records, writing
with writing(Path(sys.argv[1]), checkpoint_records=10, max_bytes=200_000) as writer:
    first = 0
    while True:
        writer.put(records(3, first))
        first += 3
        if first % 30 == 0:
            eventually(lambda: not writer.waiting)
            print(first, flush=True)
"""


def test_a_killed_process_leaves_a_chain_that_verifies_to_its_last_full_line(path: Path) -> None:
    for rounds in range(1, 7):
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(rounds * 3):
                written = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            process.wait()
        files = [*sorted(path.parent.glob("audit.jsonl.*")), path]
        assert verify(*files).finding is None
        assert len(request_ids(*_full_lines(files, path.parent))) >= written


def _full_lines(files: list[Path], folder: Path) -> list[Path]:
    """The files without the half line at the end."""
    copies = []
    for file in files:
        copy = folder / "copies" / file.name
        copy.parent.mkdir(exist_ok=True)
        text = file.read_bytes()
        copy.write_bytes(text[: text.rfind(b"\n") + 1])
        copies.append(copy)
    return copies
