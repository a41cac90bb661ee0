"""Reads an audit chain back and says exactly what is wrong with it, or what it cannot prove.

For:      `nexus-gateway audit verify`. One pass over any number of lines, in the order of their files.
Touches:  nothing. The lines, the anchors and the check of signatures are brought.

The first line that does not follow from the one before decides the verdict; the rest is looked at only to tell a record
that was moved from one that is missing.
"""

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from .audit import GENESIS, Link, read_link, signed_text

CHECKPOINT: Final = "audit_checkpoint"
OPENED: Final = "audit_opened"

CheckSignature = Callable[[bytes, bytes], bool]  # text, signature


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong first.

    `kind` is altered, removed, reordered, inserted, truncated, recomputed, forged (a signature) or foreign (a chain).
    """

    kind: str
    seq: int  # of the record that is concerned
    place: str  # file and line where it shows
    says: str


@dataclass(slots=True)
class Anchor:
    """A checkpoint that was kept elsewhere."""

    seq: int
    chain: str
    hash: str
    is_met: bool = False


@dataclass(slots=True)
class Outcome:
    """What a verification found. `unproved` are sentences; `first_seq` is None where there was no record."""

    records: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    chain: str | None = None
    tail: str | None = None  # an incomplete last line: where, and how long
    finding: Finding | None = None
    unproved: list[str] = field(default_factory=list)


def read_anchor(line: bytes) -> Anchor | None:
    """A checkpoint from a line of any log. None for other lines, and for a checkpoint that was altered."""
    link = read_link(line.strip())
    if link is None or link.event != CHECKPOINT or link.chain is None:
        return None
    return Anchor(link.seq, link.chain, link.hash)


class Verification:
    """Feed it every line, then ask for the outcome."""

    def __init__(self, anchors: Iterable[Anchor] = (), check_signature: CheckSignature | None = None) -> None:
        self._outcome = Outcome()
        self._anchors = sorted(anchors, key=lambda anchor: anchor.seq)
        self._anchors_at = {anchor.seq: anchor for anchor in self._anchors}
        self._check_signature = check_signature
        self._head = GENESIS
        self._vouched_seq: int | None = None  # up to here an anchor, or a checked signature, stands for the chain
        self._has_signatures = False
        self._is_closed = False  # the last record is the checkpoint of an orderly end
        self._moved: int | None = None  # the missing record, while the rest is searched for it

    def feed(self, line: bytes, place: str) -> None:
        """`line` without its newline; `place` is told with what is wrong."""
        if self._moved is not None:
            self._search(line)
        elif self._outcome.finding is None:
            self._follow(line, place)

    def feed_tail(self, tail: bytes, place: str) -> None:
        """What stands after the last newline of the last file."""
        self._outcome.tail = f"{place}: {len(tail)} bytes"

    @property
    def is_over(self) -> bool:
        """Nothing that still comes can change the verdict."""
        return self._outcome.finding is not None and self._moved is None

    def _follow(self, line: bytes, place: str) -> None:
        outcome = self._outcome
        link = read_link(line)
        expected = 0 if outcome.last_seq is None else outcome.last_seq + 1
        if link is None:
            self._find("altered", expected, place, f"Record {expected} is altered: its bytes do not have its hash.")
        elif outcome.last_seq is None:
            self._begin(link, place)
        elif link.seq == expected and link.prev != self._head:
            self._find(
                "altered",
                expected - 1,
                place,
                f"Record {expected - 1} is altered: its hash is not the one that record {expected} names.",
            )
        elif link.seq > expected:
            says = f"Record {expected} is removed: record {link.seq} stands in its place."
            self._find("removed", expected, place, says)
            self._moved = expected
        elif link.seq < expected:
            self._find("inserted", link.seq, place, f"Record {link.seq} stands here a second time.")
        else:
            self._accept(link, place)

    def _begin(self, link: Link, place: str) -> None:
        if link.event != OPENED or (link.seq == 0 and link.prev != GENESIS):
            first = max(link.seq - 1, 0)
            says = f"Record {first} is removed: record {link.seq} comes first, and no file begins with it."
            self._find("removed", first, place, says)
            self._moved = first
            return
        if link.seq:
            self._outcome.unproved.append(f"what the {link.seq} records before record {link.seq} were")
        self._outcome.chain = link.chain
        self._outcome.first_seq = link.seq
        self._accept(link, place)

    def _accept(self, link: Link, place: str) -> None:
        outcome = self._outcome
        if link.event in (OPENED, CHECKPOINT) and not self._is_sound(link, place):
            return
        anchor = self._anchors_at.get(link.seq)
        if anchor is not None and not self._meets(anchor, link, place):
            return
        outcome.records += 1
        outcome.last_seq = link.seq
        self._head = link.hash
        self._is_closed = link.event == CHECKPOINT

    def _is_sound(self, link: Link, place: str) -> bool:
        if link.chain != self._outcome.chain:
            self._find("foreign", link.seq, place, f"Record {link.seq} is of another chain, {link.chain}.")
        elif link.event == CHECKPOINT:
            self._check_checkpoint(link, place)
        return self._outcome.finding is None

    def _check_checkpoint(self, link: Link, place: str) -> None:
        self._has_signatures = self._has_signatures or link.signature is not None
        if self._check_signature is None:
            return
        text = signed_text(link.chain or "", link.seq, link.prev)
        try:
            is_signed = link.signature is not None and self._check_signature(text, b64decode(link.signature))
        except NotBase64:
            is_signed = False
        if is_signed:
            self._vouched_seq = link.seq
        else:
            says = f"Checkpoint {link.seq} is not signed by this key: the chain was made anew at or before it."
            self._find("forged", link.seq, place, says)

    def _meets(self, anchor: Anchor, link: Link, place: str) -> bool:
        if anchor.chain == self._outcome.chain and anchor.hash == link.hash:
            anchor.is_met = True
            self._vouched_seq = link.seq
            return True
        since = "" if self._vouched_seq is None else f" and after record {self._vouched_seq}, which is vouched for"
        says = (
            f"Record {link.seq} is not the one that the anchor names: the chain was made anew at or before it{since}."
        )
        self._find("recomputed", link.seq, place, says)
        return False

    def _search(self, line: bytes) -> None:
        """Whether the missing record stands further on."""
        link = read_link(line)
        if link is not None and link.seq == self._moved and self._outcome.finding is not None:
            found = self._outcome.finding
            says = f"Record {link.seq} is out of order: it stands after others that follow it."
            self._outcome.finding = Finding("reordered", link.seq, found.place, says)
            self._moved = None

    def _find(self, kind: str, seq: int, place: str, says: str) -> None:
        self._outcome.finding = Finding(kind, seq, place, says)

    def finish(self) -> Outcome:
        outcome = self._outcome
        self._moved = None
        if outcome.finding is None:
            self._check_end()
        if outcome.finding is None:
            self._doubt()
        return outcome

    def _check_end(self) -> None:
        outcome = self._outcome
        missing = [anchor for anchor in self._anchors if not anchor.is_met and self._concerns(anchor)]
        if not missing:
            return
        last, anchor = outcome.last_seq, missing[-1]
        if last is None or anchor.chain != outcome.chain:
            says = f"No anchor is of this chain ({outcome.chain}): it was made anew, or the anchor is of another file."
            self._find("recomputed", outcome.first_seq or 0, "the end", says)
        else:
            says = f"Records {last + 1} to {anchor.seq} are cut off: the anchor names them."
            self._find("truncated", last + 1, "the end", says)

    def _concerns(self, anchor: Anchor) -> bool:
        """Anchors of other chains matter only when there is none of this one."""
        if any(each.chain == self._outcome.chain for each in self._anchors):
            return anchor.chain == self._outcome.chain and anchor.seq >= (self._outcome.first_seq or 0)
        return True

    def _doubt(self) -> None:
        outcome, vouched = self._outcome, self._vouched_seq
        if vouched is None:
            outcome.unproved.append("that the chain was not made anew as a whole: give --anchor or --public-key")
        elif outcome.last_seq is not None and vouched < outcome.last_seq:
            outcome.unproved.append(f"that nothing after record {vouched} was made anew: nothing vouches for it yet")
        if not any(anchor.seq == outcome.last_seq for anchor in self._anchors):
            end = "" if self._is_closed else ", and the file does not end as an orderly stop leaves it"
            outcome.unproved.append(f"that no records after record {outcome.last_seq} were cut off{end}")
        if self._has_signatures and self._check_signature is None:
            outcome.unproved.append("the signatures of the checkpoints: give --public-key")
