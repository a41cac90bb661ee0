"""What a head may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.errors import HeadTooLarge, TargetTooLong
from nexus_gateway.edge.framing import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    Refused,
    check_fields,
    check_size,
    check_target,
    without_upgrade,
)

HOST = (b"host", b"h")
LENGTH = (b"content-length", b"3")
CHUNKED = (b"transfer-encoding", b"chunked")


def check(version: str, head: list[tuple[bytes, bytes]]) -> bool:
    return check_fields(version, head, dict(head))


tokens = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz-"), min_size=1, max_size=8).map(str.encode)
fields = st.lists(
    st.tuples(tokens.map(lambda token: b"x-" + token), st.binary(max_size=8).filter(lambda value: b"," not in value)),
    max_size=8,
)


@given(fields, st.sampled_from([(), (LENGTH,), (CHUNKED,)]))
def test_one_host_and_at_most_one_length_are_accepted_among_any_other_fields(
    others: list[tuple[bytes, bytes]], framing: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert check("1.1", [*others, HOST, *framing]) is False


@pytest.mark.parametrize(
    ("version", "head"),
    [
        ("1.1", []),
        ("1.1", [HOST, HOST]),
        ("1.0", [HOST, HOST]),
        ("1.1", [HOST, LENGTH, LENGTH]),
        ("1.1", [HOST, LENGTH, CHUNKED]),
        ("1.1", [HOST, CHUNKED, CHUNKED]),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")]),
        ("1.1", [HOST, (b"transfer-encoding", b"chunked, identity")]),
        ("1.0", [HOST, CHUNKED]),
        ("2.0", [HOST]),
        ("0.9", []),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(
    version: str, head: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(Refused):
        check(version, head)


def test_an_old_client_need_not_name_the_host() -> None:
    assert check("1.0", []) is False


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_who_waits_before_the_body_is_told_apart(value: bytes) -> None:
    assert check("1.1", [HOST, (b"expect", value)]) is True


def test_each_limit_holds_to_the_byte() -> None:
    check_target(b"/" * MAX_TARGET_BYTES)
    check("1.1", [HOST, *[(b"a", b"b")] * (MAX_FIELDS - 1)])
    check_size(b"/", [(b"a", b"b" * (MAX_HEAD_BYTES - 6))])
    with pytest.raises(Refused) as target:
        check_target(b"/" * (MAX_TARGET_BYTES + 1))
    with pytest.raises(Refused) as count:
        check("1.1", [HOST, *[(b"a", b"b")] * MAX_FIELDS])
    with pytest.raises(Refused) as size:
        check_size(b"/", [(b"a", b"b" * (MAX_HEAD_BYTES - 5))])
    kinds = [type(refusal.value.error) for refusal in (target, count, size)]
    assert kinds == [TargetTooLong, HeadTooLarge, HeadTooLarge]


@given(fields, st.sampled_from([b"Upgrade", b"upgrade, HTTP2-Settings", b"keep-alive, Upgrade", b"close, upgrade"]))
def test_without_its_offer_a_head_says_what_it_said(others: list[tuple[bytes, bytes]], connection: bytes) -> None:
    offer = [(b"connection", connection), (b"upgrade", b"h2c"), (b"http2-settings", b"AAMAAABk")]
    head = without_upgrade(b"POST", b"/v1", "1.1", [*others[:3], *offer, *others[3:]])
    kept = [*others, (b"connection", b"close")] if b"close" in connection else others
    assert head == b"POST /v1 HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % field for field in kept) + b"\r\n"
