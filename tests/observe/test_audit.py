"""What becomes a record, what becomes a sum, and what is said when stdout took nothing."""

import asyncio
import json
import os
from typing import Any

import pytest

from nexus_gateway.core.audit import Entry, LoginsFailed
from nexus_gateway.core.model import CallRecord, Operation
from nexus_gateway.observe.audit import FLUSH_S, MAX_ADDRESSES, OTHERS, PROBE_S, AuditLog, AuditStdout
from nexus_gateway.observe.lines import LineWriter
from tests.support.stepped_loop import SteppedLoop

from .audit_files import eventually, records

pytestmark = pytest.mark.anyio


class Taken:
    """An AuditSink that keeps what it gets."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.batches = 0
        self.dropped = 0
        self.failing = False
        self.owes_gap = False
        self.gaps_told = asyncio.Event()

    def put(self, entries: list[Entry]) -> None:
        self.batches += 1
        self.entries += entries

    def tell_gap(self) -> None:
        self.gaps_told.set()

    def close(self) -> None:
        """Nothing is open."""


def refused(number: int, client: str | None, status: int = 401) -> CallRecord:
    code = "invalid_api_key" if status == 401 else "rate_limit_exceeded"
    return CallRecord(
        f"req-{number}", Operation.CHAT, 1_700_000_000.0 + number, 0.0, client, status=status, error_code=code
    )


async def test_records_go_out_together_and_in_order() -> None:
    sink = Taken()
    log = AuditLog(sink, blocks=False)
    expected = records(50)
    for record in expected:
        assert isinstance(record, CallRecord)
        log.finished(record)
    assert not sink.entries
    log.flush()
    assert (sink.entries, sink.batches) == (expected, 1)


async def test_refused_credentials_are_summed_by_address() -> None:
    sink = Taken()
    log = AuditLog(sink, blocks=False)
    for number in range(90):
        log.finished(refused(number, f"192.0.2.{number % 3}", 429 if number > 60 else 401))
    log.close()
    assert [
        (entry.client, entry.count, entry.last_request_id) for entry in sink.entries if isinstance(entry, LoginsFailed)
    ] == [("192.0.2.0", 30, "req-87"), ("192.0.2.1", 30, "req-88"), ("192.0.2.2", 30, "req-89")]
    assert len(sink.entries) == 3


async def test_a_flood_from_everywhere_stays_small_and_is_counted_whole() -> None:
    sink = Taken()
    log = AuditLog(sink, blocks=False)
    count = 5 * MAX_ADDRESSES
    for number in range(count):
        log.finished(refused(number, f"2001:db8::{number:x}"))
    log.flush_logins()
    sums = [entry for entry in sink.entries if isinstance(entry, LoginsFailed)]
    assert len(sums) == MAX_ADDRESSES + 1
    assert sum(entry.count for entry in sums) == count
    assert sums[-1].client == OTHERS


async def test_only_what_reached_authentication_is_recorded() -> None:
    sink = Taken()
    log = AuditLog(sink, blocks=True)
    crashed = CallRecord("crashed", Operation.CHAT, 0.0, 0.0, status=500, error_code="internal_error")
    limited = CallRecord("limited", Operation.CHAT, 0.0, 0.0, key_id="key_1", status=429)
    turned_away = CallRecord("away", Operation.CHAT, 0.0, 0.0, status=503, error_code="audit_unavailable")
    for record in (crashed, limited, turned_away):
        log.finished(record)
    log.close()
    assert sink.entries == [crashed, limited]


@pytest.mark.parametrize(("blocks", "failing"), [(True, True), (True, False), (False, True), (False, False)])
async def test_requests_are_refused_only_where_the_policy_says_so(blocks: bool, failing: bool) -> None:
    sink = Taken()
    sink.failing = failing
    assert AuditLog(sink, blocks=blocks).refuses is (blocks and failing)


async def test_a_gap_is_told_later_although_no_request_comes() -> None:
    sink = Taken()
    sink.owes_gap = True
    log = AuditLog(sink, blocks=True)
    log.flush()
    async with asyncio.timeout(5):
        await sink.gaps_told.wait()
    sink.owes_gap = False


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": SteppedLoop})])
async def test_what_is_lost_after_it_was_handed_over_is_told_until_it_is_out() -> None:
    loop = SteppedLoop.current()
    sink = Taken()
    log = AuditLog(sink, blocks=False)
    log.finished(refused(0, None, status=200))
    loop.advance(FLUSH_S)
    sink.owes_gap = True  # the writer has found out meanwhile
    for _ in range(3):  # and the record of the gap is lost likewise
        sink.gaps_told.clear()
        loop.advance(PROBE_S)
        assert sink.gaps_told.is_set()
    sink.owes_gap = False
    loop.advance(PROBE_S)
    assert loop.armed_timers == 0, "nothing is owed"


def read_lines(fd: int) -> list[Any]:
    return [json.loads(line) for line in os.read(fd, 1 << 20).splitlines()]


async def test_stdout_that_was_away_is_told_how_much_it_missed() -> None:
    reader, pipe = os.pipe()
    writer = LineWriter(pipe)
    sink = AuditStdout(writer)
    writer.start()
    sink.put(records(2))
    eventually(lambda: writer.idle)
    assert [line["request_id"] for line in read_lines(reader)] == ["req-0", "req-1"]
    away = os.dup(pipe)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, pipe)
    for _ in range(3):
        sink.put(records(5))
    sink.tell_gap()
    eventually(lambda: writer.idle)
    assert writer.failing
    assert (sink.failing, sink.owes_gap, sink.dropped) == (True, True, 15)
    os.dup2(away, pipe)
    sink.tell_gap()
    eventually(lambda: writer.idle)
    assert not sink.failing
    assert not sink.owes_gap
    (line,) = read_lines(reader)
    assert (line["event"], line["count"]) == ("audit_gap", 15)
    writer.close()
    for fd in (reader, pipe, away, full):
        os.close(fd)
