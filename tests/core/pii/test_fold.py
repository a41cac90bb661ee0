"""Folded text points back to where it came from."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.pii.fold import Folded

from .samples import escaped

TEXT = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from('0123456789-.@ab ０１２＠．－①⑩㏂²Ⅳ\u200b\u00ad\ufeff\\"/\n\té가😀𝟘\u3000'),
    )
)


@given(TEXT, st.data())
def test_every_span_maps_to_whole_characters_in_order(text: str, data: st.DataObject) -> None:
    raw = data.draw(st.one_of(st.just(json.dumps(text, ensure_ascii=False)[1:-1]), escaped(text))).encode()
    folded = Folded(raw)
    plain = folded.text.decode()
    position, previous = 0, 0
    for sign in plain:
        start, end = folded.source_span(position, position + len(sign.encode()))
        assert previous <= start <= end
        raw[start:end].decode()
        previous = start
        position += len(sign.encode())
    assert folded.source_span(0, len(folded.text))[1] <= len(raw)


@given(TEXT, st.data())
def test_escapes_make_no_difference(text: str, data: st.DataObject) -> None:
    text = text.replace("\\", "").replace("\x00", "")
    written = data.draw(escaped(text)).encode()
    folded, plain = Folded(written).text.decode(), Folded(text.encode()).text.decode()
    assert "".join(folded.split()) == "".join(plain.split()) or _doubled(folded) == _doubled(plain)


def _doubled(text: str) -> str:
    """An escape of two characters may stand twice, so that positions need no map."""
    return "".join(text.replace('""', '"').split()).replace('""', '"')


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("０１０－１２３４", "010-1234"),
        ("\\uff10\\uFF11", "01"),
        ("\\\\u0040 \\\\\\\\u0040", "@ @"),
        ("\\ud835\\udfd8", "0"),
        ("a\u200bb\u00adc\ufe0fd", "abcd"),
        ("①⑩", "110"),
        ("٠١٢", "012"),
        ("\u2013\u2212\u3000", "-- "),
        ("a\\/b", "a/b"),
        ("\\ud800x", "\ufffdx"),
        ("\\u005cu0031\\\\\\u0075003\\u0032", "12"),
        ("\\u005cu005cu0033", "3"),
        ("C:\\\\dir", "C:\\\\dir"),
    ],
)
def test_how_things_read(written: str, read: str) -> None:
    assert Folded(written.encode()).text.decode() == read


def test_compatibility_digits_and_letters_all_fold() -> None:
    """Whatever NFKC makes one ASCII letter or digit of, we do as well."""
    for code in range(0x80, 0x20000):
        plain = unicodedata.normalize("NFKC", chr(code))
        if len(plain) == 1 and plain.isascii() and plain.isalnum():
            assert Folded(chr(code).encode()).text.decode() == plain
