"""What the head of a request may be, and where two readers of it could disagree.

For:      our protocol, before anything is made of a head. The parser (llhttp, strict) refuses most of it by itself.
Touches:  nothing.
Source:   RFC 9112, sections 3.2 (Host), 6.1 and 6.3 (the length of a body); RFC 9110, section 7.8 (Upgrade).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from nexus_gateway.core.errors import GatewayError, HeadTooLarge, MalformedRequest, TargetTooLong

MAX_TARGET_BYTES: Final = 8 << 10
MAX_HEAD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 128
MAX_UNFRAMED_BYTES: Final = (
    64 << 10
)  # chunk extensions and trailers on end: the parser holds a trailer until it is whole

Fields = Sequence[tuple[bytes, bytes]]


class Refused(Exception):
    """Raised inside a parser callback to stop the parser; `error` is what the client is told."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


def not_http() -> GatewayError:
    return MalformedRequest("The request is not valid HTTP/1.1.")


def head_too_large() -> GatewayError:
    return HeadTooLarge(f"The request head is over {MAX_HEAD_BYTES} bytes.")


def unframed_too_large() -> GatewayError:
    return HeadTooLarge(f"The trailers or chunk extensions of the body are over {MAX_UNFRAMED_BYTES} bytes.")


def check_target(target: bytes) -> None:
    if len(target) > MAX_TARGET_BYTES:
        raise Refused(TargetTooLong(f"The request target is over {MAX_TARGET_BYTES} bytes."))


def check_size(target: bytes, fields: Fields) -> None:
    """For heads that came together with other bytes, so that counting what arrived says too much."""
    if len(target) + sum(len(name) + len(value) + len(b": \r\n") for name, value in fields) > MAX_HEAD_BYTES:
        raise Refused(head_too_large())


def check_fields(version: str, fields: Fields, by_name: Mapping[bytes, bytes]) -> bool:
    """Whether the client waits for `100 Continue`. Names are in lower case. Raises Refused.

    `by_name` holds the last field of each name.
    """
    if len(fields) > MAX_FIELDS:
        raise Refused(HeadTooLarge(f"The request has more than {MAX_FIELDS} header fields."))
    if version not in ("1.1", "1.0"):
        raise Refused(not_http())
    if len(by_name) != len(fields) or b"host" not in by_name or b"transfer-encoding" in by_name:
        _check_doubtful(version, fields)
    return b"expect" in by_name and by_name[b"expect"].lower() == b"100-continue"


def _check_doubtful(version: str, fields: Fields) -> None:
    """Which host is asked for, and where the body ends, for heads in which both do not go without saying."""
    names = [name for name, _ in fields]
    hosts = names.count(b"host")
    if hosts != 1 and (hosts or version == "1.1"):
        raise Refused(MalformedRequest("The request must have exactly one Host header."))
    if b"transfer-encoding" in names:
        _check_encoding(version, names, fields)
    elif names.count(b"content-length") > 1:
        raise Refused(MalformedRequest("The request states its body's length more than once."))


def _check_encoding(version: str, names: list[bytes], fields: Fields) -> None:
    if names.count(b"transfer-encoding") + names.count(b"content-length") > 1:
        raise Refused(MalformedRequest("The request states its body's length more than once."))
    coding = next(value for name, value in fields if name == b"transfer-encoding")
    if version == "1.0" or coding.lower() != b"chunked":
        raise Refused(MalformedRequest("The only transfer coding that is understood is chunked, in HTTP/1.1."))


def without_upgrade(method: bytes, target: bytes, version: str, fields: Fields) -> bytes:
    """The same head, but for its offer to speak another protocol: that may always be ignored.

    The parser takes a body after such an offer for the other protocol's bytes. Clients make the offer with ordinary
    requests (Java's own makes it, for HTTP/2, unless told otherwise).
    """
    options = [
        option.strip() for name, value in fields if name == b"connection" for option in value.lower().split(b",")
    ]
    kept = [(name, value) for name, value in fields if name not in (b"upgrade", b"http2-settings", b"connection")]
    if b"close" in options:
        kept.append((b"connection", b"close"))
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode("ascii")), *(b"%b: %b" % field for field in kept)]
    return b"\r\n".join([*lines, b"", b""])
