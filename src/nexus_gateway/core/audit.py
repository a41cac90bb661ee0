"""The audit chain: each line of the file holds the hash of the line before it, and its own.

For:      making a file in which nobody alters, removes or moves a record without it being seen.
Touches:  nothing. The clock, the signature and the file are brought.
Source:   hash chains as of Haber and Stornetta, "How to Time-Stamp a Digital Document" (1991).

    {"seq":7,"event":"audit", … ,"prev":"<hash of line 6>","hash":"<SHA-256 of all bytes before this member>"}

Lines are compared as bytes, so that no two writings of one JSON value can be mistaken for each other.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import msgspec

from .model import CallRecord
from .request_line import audit_line_of

GENESIS: Final = "0" * 64  # what the first record of a chain names as the hash before it
LINE_BEGIN: Final = b'{"seq":'
HASH_MEMBER_BYTES: Final = len(b',"hash":""}') + 64

Signature = Callable[[bytes], bytes]

_encoder: Final = msgspec.json.Encoder()
_encode: Final = _encoder.encode
_encode_lines: Final = _encoder.encode_lines


class LoginsFailed(msgspec.Struct, tag_field="event", tag="audit_logins_failed", kw_only=True):
    """Refused credentials of one address within a few seconds; a record for each would let anybody fill the disk."""

    level: str = "warning"
    timestamp: datetime  # of the first
    until: datetime  # of the last
    client: str | None
    count: int
    last_request_id: str


class Gap(msgspec.Struct, tag_field="event", tag="audit_gap", kw_only=True):
    """Records that are lost, and are known to be: nobody took them in time."""

    level: str = "error"
    timestamp: datetime  # when the first was lost
    until: datetime
    count: int


class Opened(msgspec.Struct, tag_field="event", tag="audit_opened", kw_only=True):
    """The first record of every file, and of every start of the gateway."""

    level: str = "info"
    timestamp: datetime
    version: int = 1
    chain: str  # random, the same in all files of a chain
    cut_bytes: int = 0  # of a half line that a killed process left behind


class Checkpoint(msgspec.Struct, tag_field="event", tag="audit_checkpoint", kw_only=True):
    """Says how far the chain goes. Kept elsewhere it is an anchor: the chain up to it can no longer be made anew."""

    level: str = "info"
    timestamp: datetime
    chain: str
    reason: str  # "interval", "rotated" or "closed"
    signature: str | None  # Ed25519 of `signed_text`, in base64


Entry = CallRecord | LoginsFailed | Gap


def render(entry: Entry) -> bytes:
    """JSON of one entry, outside of any chain and without a newline."""
    return _encode(_told(entry))


def render_lines(entries: list[Entry]) -> bytes:
    """A line for each, outside of any chain."""
    return _encode_lines([_told(entry) for entry in entries])


def _told(entry: Entry) -> msgspec.Struct:
    return audit_line_of(entry) if isinstance(entry, CallRecord) else entry


def tell_bodies(entries: Iterable[Entry], is_behind: Callable[[], bool]) -> None:
    """Make masked text of the bodies that are kept, but not while the records themselves would come too late for it."""
    for entry in entries:
        if isinstance(entry, CallRecord) and entry.bodies is not None:
            if is_behind():
                entry.bodies.free()
            entry.bodies.tell(entry.key_id or "")


def free(entries: Iterable[Entry]) -> None:
    """Let go of the bodies that are kept for entries nobody will render."""
    for entry in entries:
        if isinstance(entry, CallRecord) and entry.bodies is not None:
            entry.bodies.free()


def signed_text(chain: str, seq: int, prev: str) -> bytes:
    """What the signature of a checkpoint is made over: `prev` vouches for all before it."""
    return f"nexus-gateway audit v1\n{chain}\n{seq}\n{prev}\n".encode("ascii")


class Chain:
    """The end of a chain: what the next line must name. `seq` is the number of the next line."""

    __slots__ = ("head", "id", "seq")

    def __init__(self, id_: str, seq: int = 0, head: str = GENESIS) -> None:
        self.id = id_
        self.seq = seq
        self.head = head

    def link(self, body: bytes) -> bytes:
        """The line for a JSON object, as the next of the chain."""
        covered = b'{"seq":%d,%b,"prev":"%b"' % (self.seq, body[1:-1], self.head.encode("ascii"))
        self.head = hashlib.sha256(covered).hexdigest()
        self.seq += 1
        return b'%b,"hash":"%b"}\n' % (covered, self.head.encode("ascii"))

    def add(self, entry: Entry) -> bytes:
        return self.link(render(entry))

    def open(self, at: datetime, cut_bytes: int = 0) -> bytes:
        return self.link(_encode(Opened(timestamp=at, chain=self.id, cut_bytes=cut_bytes)))

    def checkpoint(self, at: datetime, reason: str, sign: Signature | None) -> bytes:
        signature = None
        if sign is not None:
            signature = b64encode(sign(signed_text(self.id, self.seq, self.head))).decode("ascii")
        return self.link(_encode(Checkpoint(timestamp=at, chain=self.id, reason=reason, signature=signature)))


class Link(msgspec.Struct, gc=False):
    """What the chain needs of any line; `chain` and `signature` are checkpoints' (and `chain` of opening records)."""

    seq: int
    event: str
    prev: str
    hash: str
    chain: str | None = None
    signature: str | None = None


_decode: Final = msgspec.json.Decoder(Link).decode


def read_link(line: bytes) -> Link | None:
    """The line's place in its chain, or None where the line is not as the chain made it. Takes it without newline."""
    try:
        link = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    covered, member = line[:-HASH_MEMBER_BYTES], line[-HASH_MEMBER_BYTES:]
    digest = hashlib.sha256(covered).hexdigest()
    is_genuine = member == b',"hash":"%b"}' % digest.encode("ascii") and line.startswith(b'{"seq":%d,' % link.seq)
    return link if is_genuine and link.hash == digest else None
