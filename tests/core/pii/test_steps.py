"""Large texts are looked through piece by piece, with the same result, in time linear in their size."""

import itertools
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.core.model import Operation
from nexus_gateway.core.pii import Masked, MaskingFailed
from nexus_gateway.core.pii.mask import WINDOW_BYTES

from .samples import MASKER, SAMPLES, Sample, chat, content_of


def through(body: bytes) -> tuple[Masked | None, int]:
    """The result of the steps, and how many there were."""
    steps = MASKER.mask_steps(body, Operation.CHAT, "k")
    for count in itertools.count():
        try:
            next(steps)
        except StopIteration as done:
            return done.value, count
    raise AssertionError


@settings(max_examples=60)
@given(
    samples=st.lists(SAMPLES, min_size=1, max_size=5),
    gaps=st.lists(st.integers(0, 2 * WINDOW_BYTES), min_size=5, max_size=5),
    filler=st.sampled_from(["lorem ipsum ", "가나다라 ", "\\n\n ", "😀 ", "x. "]),
    escape=st.booleans(),
)
def test_no_border_of_a_piece_hides_an_identifier(
    samples: list[Sample], gaps: list[int], filler: str, escape: bool
) -> None:
    text = ""
    for sample, gap in zip(samples, gaps, strict=False):
        text += filler * (gap // len(filler.encode())) + f", {sample.label}{sample.text}, "
    body = chat(text, ensure_ascii=escape)
    found, _ = through(body)
    assert found is not None
    for sample in samples:
        assert sample.text not in content_of(found.body)
    assert found == MASKER.mask_body(body, Operation.CHAT, "k")


@given(shift=st.integers(0, 700), size=st.integers(600, 6000))
@settings(max_examples=40)
def test_no_border_of_a_piece_cuts_a_long_secret(shift: int, size: int) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9." + "Ab0_" * (size // 4) + "." + "sig-" * 10
    key = "-----BEGIN PRIVATE KEY-----\n" + "QUJD\n" * (size // 5) + "-----END PRIVATE KEY-----"
    for secret in (token, key):
        found, _ = through(chat("x " * ((WINDOW_BYTES - shift) // 2) + secret + " end"))
        assert found is not None
        assert list(found.table.values()) == [secret]


def test_a_large_body_has_many_pauses() -> None:
    _, pauses = through(chat("가나다 kim@example.com " * 20_000, ensure_ascii=False))
    assert pauses > 50
    _, pauses = through(b'{"messages":[],"x":[%b]}' % b",".join([b"1"] * 1_000_000))
    assert pauses > 5
    _, pauses = through(b'{"messages":[],"x":"%b"}' % (b'\\"' * 1_000_000))
    assert pauses > 5


def test_a_failure_in_a_later_piece_is_one_too() -> None:
    steps = MASKER.mask_steps(b'{"messages":["%b","%b' % (b"x" * 100_000, b"y" * 10), Operation.CHAT, "k")
    with pytest.raises(MaskingFailed):
        list(steps)


HARD: dict[str, Iterator[str]] = {
    "mail": (f"{a}{b}@{c}.co " for a, b, c in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3)),
    "mobile": (f"010-{n:04d}-{n:04d} " for n in itertools.count(2000)),
    "groups of four": (f"4{n % 1000:03d} " for n in itertools.count(7, 37)),
    "digits apart": (f"{n % 10} " for n in itertools.count(3, 7)),
    "digits": itertools.repeat("0101"),
    "resident": (f"9001{1 + n % 28:02d}-1{n % 1000000:06d} " for n in itertools.count(0, 7919)),
    "plus": itertools.repeat("+1 2 3 4 5 6 7 8 9 1 2 3 4 5 "),
    "token": itertools.chain(["eyJhbGciOiJIUzI1NiJ9."], itertools.repeat("eyJ")),
    "key": itertools.repeat("-----BEGIN PRIVATE KEY-----"),
    "at": itertools.repeat("a@b."),
    "quotes": itertools.repeat('"'),
    "backslashes": itertools.repeat("\\"),
    "full width": itertools.repeat("０１０－１２３４－５６７８ "),
    "invisible": itertools.repeat("1\u200b"),
    "bank": (f"은행 110-{n % 1000:03d}-{n:06d} " for n in itertools.count(100_000, 91)),
    "label": itertools.repeat("order no: 1234567890123 "),
    "secret": itertools.repeat("secret aaaaaaaaaaaaaaaa "),
}


@pytest.mark.parametrize("name", HARD)
def test_time_is_linear_in_any_text(name: str) -> None:
    """Four times the text may take at most ten times as long; a quadratic search would take sixteen."""
    pieces, size = [], 0
    for piece in HARD[name]:
        pieces.append(piece)
        size += len(piece.encode())
        if size >= 160_000:
            break
    text = "".join(pieces)
    small, large = (_seconds(chat(text[: len(text) // part], ensure_ascii=False)) for part in (4, 1))
    assert large < 10 * small + 0.05


def _seconds(body: bytes) -> float:
    """Of the processor, so that a busy machine does no harm."""
    json.loads(body)
    best = 60.0
    for _ in range(3):
        began = time.process_time()
        MASKER.mask_body(body, Operation.CHAT, "k")
        best = min(best, time.process_time() - began)
    return best
