"""The chain: whatever is done to a record, verification names it; what was not touched verifies."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.audit import GENESIS, Chain, Gap, LoginsFailed, read_link, render_lines
from nexus_gateway.core.audit_verify import Anchor, Outcome, Verification, read_anchor
from nexus_gateway.core.model import AttemptRecord, CallRecord, Operation, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(number: int, **facts: object) -> CallRecord:
    return CallRecord(f"req-{number}", Operation.CHAT, 1_700_000_000.0 + number, 0.0, finished_at_s=0.5, **facts)  # type: ignore[arg-type]


def chain_of(count: int, id_: str = "c0ffee", sign: Callable[[bytes], bytes] | None = None) -> list[bytes]:
    """`count` records between an opening record and an orderly end; a checkpoint after each third."""
    chain = Chain(id_)
    lines = [chain.open(NOW)]
    for number in range(count):
        lines.append(chain.add(record(number, key_id="key_1", model='na"me\n')))
        if number % 3 == 2:
            lines.append(chain.checkpoint(NOW, "interval", sign))
    lines.append(chain.checkpoint(NOW, "closed", sign))
    return [line[:-1] for line in lines]


def verify(
    lines: Sequence[bytes], anchors: Sequence[Anchor] = (), check: Callable[[bytes, bytes], bool] | None = None
) -> Outcome:
    verification = Verification(anchors, check)
    for number, line in enumerate(lines, start=1):
        verification.feed(line, f"line {number}")
    return verification.finish()


def anchor_of(line: bytes) -> Anchor:
    found = read_anchor(line)
    assert found is not None
    return found


LINES = chain_of(20)
INDEXES = st.integers(0, len(LINES) - 1)


@given(count=st.integers(0, 40))
def test_what_nobody_touched_is_unbroken(count: int) -> None:
    lines = chain_of(count)
    outcome = verify(lines)
    assert outcome.finding is None
    assert (outcome.first_seq, outcome.last_seq, outcome.records) == (0, len(lines) - 1, len(lines))
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))


@given(index=INDEXES, data=st.data())
def test_a_record_with_any_changed_byte_is_named(index: int, data: st.DataObject) -> None:
    line = bytearray(LINES[index])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    outcome = verify([*LINES[:index], bytes(line), *LINES[index + 1 :]])
    assert outcome.finding is not None
    assert (outcome.finding.kind, outcome.finding.seq) == ("altered", index)
    assert outcome.finding.place == f"line {index + 1}"


@given(index=INDEXES, cut=st.integers(1, 100))
def test_a_record_that_was_shortened_is_named(index: int, cut: int) -> None:
    outcome = verify([*LINES[:index], LINES[index][:-cut], *LINES[index + 1 :]])
    assert outcome.finding is not None
    assert (outcome.finding.kind, outcome.finding.seq) == ("altered", index)


@given(index=INDEXES.filter(lambda index: index < len(LINES) - 1))
def test_a_record_altered_with_its_hash_made_to_fit_is_named(index: int) -> None:
    head = GENESIS if index == 0 else json.loads(LINES[index - 1])["hash"]
    forger = Chain("c0ffee", index, head)
    forged = forger.open(datetime(2027, 1, 1, tzinfo=UTC)) if index == 0 else forger.add(record(99))
    outcome = verify([*LINES[:index], forged[:-1], *LINES[index + 1 :]])
    assert outcome.finding is not None
    assert (outcome.finding.kind, outcome.finding.seq) == ("altered", index)


@given(first=INDEXES, count=st.integers(1, 5))
def test_removed_records_are_named_but_at_the_end(first: int, count: int) -> None:
    outcome = verify([*LINES[:first], *LINES[first + count :]])
    if first + count >= len(LINES):
        assert outcome.finding is None  # only an anchor could show it
        assert any("cut off" in doubt for doubt in outcome.unproved)
        return
    assert outcome.finding is not None
    assert outcome.finding.kind == "removed"
    assert outcome.finding.seq == (first if first else count - 1)  # at the begin: the nearest that is missing


@given(pair=st.tuples(INDEXES, INDEXES).filter(lambda pair: pair[0] < pair[1]))
def test_records_that_changed_places_are_named(pair: tuple[int, int]) -> None:
    first, second = pair
    lines = list(LINES)
    lines[first], lines[second] = lines[second], lines[first]
    outcome = verify(lines)
    assert outcome.finding is not None
    assert outcome.finding.kind == "reordered"
    assert outcome.finding.seq in (first, second - 1 if first == 0 else first)


@given(source=INDEXES, at=INDEXES)
def test_a_record_that_stands_twice_is_named(source: int, at: int) -> None:
    outcome = verify([*LINES[:at], LINES[source], *LINES[at:]])
    assert outcome.finding is not None
    assert outcome.finding.kind in ("inserted", "reordered")


@given(kept=st.integers(1, len(LINES) - 1))
def test_with_an_anchor_a_cut_end_is_named(kept: int) -> None:
    outcome = verify(LINES[:kept], [anchor_of(LINES[-1])])
    assert outcome.finding is not None
    assert (outcome.finding.kind, outcome.finding.seq) == ("truncated", kept)


@given(index=st.integers(1, len(LINES) - 1))
def test_with_an_anchor_a_chain_made_anew_is_found(index: int) -> None:
    chain = Chain("c0ffee", index, json.loads(LINES[index - 1])["hash"])
    anew = [chain.add(record(1000 + number))[:-1] for number in range(len(LINES) - index)]
    anchors = [anchor_of(line) for line in LINES if b'"audit_checkpoint"' in line]
    assert verify([*LINES[:index], *anew]).finding is None
    outcome = verify([*LINES[:index], *anew], anchors)
    assert outcome.finding is not None
    assert outcome.finding.kind == "recomputed"
    assert outcome.finding.seq == min(anchor.seq for anchor in anchors if anchor.seq >= index)


def test_a_chain_of_another_name_is_not_vouched_for() -> None:
    outcome = verify(chain_of(20, "decaf"), [anchor_of(LINES[-1])])
    assert outcome.finding is not None
    assert outcome.finding.kind == "recomputed"


def test_with_an_anchor_at_the_end_nothing_is_in_doubt() -> None:
    outcome = verify(LINES, [anchor_of(LINES[-1])])
    assert outcome.finding is None
    assert not outcome.unproved


def test_without_an_anchor_the_doubts_are_told() -> None:
    whole, cut = verify(LINES).unproved, verify(LINES[:-1]).unproved
    assert [doubt.partition(":")[0] for doubt in whole] == [
        "that the chain was not made anew as a whole",
        f"that no records after record {len(LINES) - 1} were cut off",
    ]
    assert "orderly stop" in cut[-1]


def test_early_files_may_be_gone_and_that_is_told() -> None:
    chain = Chain("c0ffee", 5, "ab" * 32)
    lines = [chain.open(NOW)[:-1], chain.add(record(1))[:-1]]
    outcome = verify(lines)
    assert outcome.finding is None
    assert outcome.unproved[0] == "what the 5 records before record 5 were"


def is_good(text: bytes, signature: bytes) -> bool:
    return signature == b"mine:" + text


def test_a_signature_vouches_and_a_forged_one_is_named() -> None:
    signed = chain_of(20, sign=lambda text: b"mine:" + text)
    assert verify(signed, check=is_good).finding is None
    assert len(verify(signed, check=is_good).unproved) == 1  # whether the end was cut off
    assert "give --public-key" in verify(signed).unproved[-1]
    for forger in (None, lambda text: b"theirs:" + text):
        finding = verify(chain_of(20, sign=forger), check=is_good).finding
        assert finding is not None
        assert (finding.kind, finding.seq) == ("forged", 4)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"null", b"\xff", LINES[0], LINES[-1][:-1], LINES[-1].replace(b"c", b"d", 1)]
)
def test_an_anchor_is_a_whole_checkpoint(text: bytes) -> None:
    assert read_anchor(text) is None


@given(line=st.binary(max_size=300))
def test_any_bytes_are_read_without_failing(line: bytes) -> None:
    assert read_link(line) is None
    assert verify([line]).finding is not None


def test_a_record_tells_who_asked_what_and_how_it_ended() -> None:
    call = record(
        1, client="192.0.2.1", key_id="key_1", model="m", route="r", upstream="u", status=200, usage=Usage(3, 4),
        masked={"EMAIL": 2}, shadow="s", attempts=[AttemptRecord("t", "timeout", None, 0.1)],
    )  # fmt: skip
    told = json.loads(render_lines([call]))
    assert told.items() >= {
        "event": "audit", "request_id": "req-1", "client": "192.0.2.1", "key_id": "key_1", "model": "m", "route": "r",
        "upstream": "u", "status": 200, "prompt_tokens": 3, "completion_tokens": 4, "tokens_estimated": False,
        "masked": {"EMAIL": 2}, "shadow": "s", "timestamp": "2023-11-14T22:13:21Z", "total_ms": 500.0,
        "attempts": [{"upstream": "t", "outcome": "timeout", "status": None, "seconds": 0.1}],
    }.items()  # fmt: skip


def test_sums_and_gaps_are_records_of_the_chain() -> None:
    chain = Chain("c0ffee")
    lines = [
        chain.open(NOW, cut_bytes=7),
        chain.add(LoginsFailed(timestamp=NOW, until=NOW, client=None, count=3, last_request_id="req-9")),
        chain.add(Gap(timestamp=NOW, until=NOW, count=12)),
    ]
    told = [json.loads(line) for line in lines]
    assert [line["event"] for line in told] == ["audit_opened", "audit_logins_failed", "audit_gap"]
    assert (told[0]["cut_bytes"], told[1]["count"], told[2]["count"]) == (7, 3, 12)
    assert verify([line[:-1] for line in lines]).finding is None
