"""Identifiers made from the public formats, ways to write them, and text to put them in."""

import hashlib
import json
import random
import unicodedata
from dataclasses import dataclass
from datetime import date
from typing import Any

from hypothesis import strategies as st
from stdnum import luhn
from stdnum.iso7064 import mod_97_10
from stdnum.kr import rrn

from nexus_gateway.core.pii import DETECTORS, Masker, MaskingConfig

MASKER = Masker(MaskingConfig(salt=b"a salt for tests", detectors=frozenset(DETECTORS)))


@dataclass(frozen=True)
class Sample:
    """A value of one type, with words that a detector may need before it."""

    type: str
    text: str
    label: str = ""


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=count, max_size=count)


def _with_check_digit(front: str) -> str:
    body = front[:-1]
    return body + rrn.calc_check_digit(body)


def _births() -> st.SearchStrategy[tuple[str, str]]:
    """Six digits of a date, and the century digit of a citizen."""
    return st.dates(min_value=date(1926, 1, 1), max_value=date(2025, 1, 1)).flatmap(
        lambda born: st.tuples(st.just(born.strftime("%y%m%d")), st.sampled_from("12" if born.year < 2000 else "34"))
    )


RESIDENTS = st.tuples(_births(), digits(6), st.sampled_from(["-", " - ", "-"])).map(
    lambda made: Sample("RRN", f"{made[0][0]}{made[2]}{made[0][1]}{made[1]}")
)
CHECKED_RESIDENTS = st.tuples(_births(), digits(6)).map(
    lambda made: Sample("RRN", _with_check_digit(made[0][0] + made[0][1] + made[1]), "주민등록번호 ")
)
MOBILES = st.tuples(
    st.sampled_from(
        [
            "010-{}-{}",
            "010 {} {}",
            "010.{}.{}",
            "010{}{}",
            "(010) {}-{}",
            "+82 10-{}-{}",
            "+8210{}{}",
            "+82 (0)10-{}-{}",
        ]
    ),
    st.integers(2000, 9999),
    st.integers(0, 9999),
).map(lambda made: Sample("PHONE", made[0].format(made[1], f"{made[2]:04d}")))
LANDLINES = st.tuples(
    st.sampled_from(["02-{}-{}", "(02) {}-{}", "031-{}-{}", "064) {}-{}", "070-{}-{}", "+82-2-{}-{}"]),
    st.integers(200, 9999),
    st.integers(0, 9999),
).map(lambda made: Sample("PHONE", made[0].format(made[1], f"{made[2]:04d}")))
LICENSES = st.tuples(st.sampled_from(["11", "13", "26", "28"]), digits(2), digits(6), digits(2)).map(
    lambda made: Sample("DRIVER_LICENSE", "-".join(made))
)
CARDS = st.tuples(st.sampled_from(["4", "51", "9410", "6221"]), digits(15), st.sampled_from(["", " ", "-"])).map(
    lambda made: Sample("CARD", _grouped(made[0], made[1], made[2]), "card ")
)
SSNS = st.tuples(st.integers(1, 665), st.integers(1, 99), st.integers(1, 9999)).map(
    lambda made: Sample("SSN", f"{made[0]:03d}-{made[1]:02d}-{made[2]:04d}")
)
IBANS = st.tuples(digits(18), st.sampled_from(["", " "])).map(
    lambda made: Sample("IBAN", _german_iban(made[0], made[1]))
)
MAILS = st.tuples(
    st.from_regex(r"[a-z][a-z0-9]{1,8}([._+-][a-z0-9]{1,5})?", fullmatch=True), st.sampled_from(["com", "co.kr", "io"])
).map(lambda made: Sample("EMAIL", f"{made[0]}@example.{made[1]}"))
KEYS = st.tuples(st.sampled_from(["sk-proj-", "sk-", "ghp_", "sk_live_"]), st.integers()).map(
    lambda made: Sample("API_KEY", made[0] + hashlib.sha256(str(made[1]).encode()).hexdigest()[:40])
)
PASSPORTS = digits(8).map(lambda made: Sample("PASSPORT", f"M{made}", "여권번호 "))
ACCOUNTS = st.tuples(digits(3), digits(3), digits(6)).map(
    lambda made: Sample("BANK_ACCOUNT", "1" + "-".join(made)[1:], "신한은행 ")
)

SAMPLES = st.one_of(
    RESIDENTS, CHECKED_RESIDENTS, MOBILES, LANDLINES, LICENSES, CARDS, SSNS, IBANS, MAILS, KEYS, PASSPORTS, ACCOUNTS
)


def _grouped(prefix: str, rest: str, separator: str) -> str:
    front = (prefix + rest)[:15]
    number = front + luhn.calc_check_digit(front)
    return separator.join(number[at : at + 4] for at in range(0, 16, 4))


def _german_iban(bban: str, separator: str) -> str:
    number = "DE" + mod_97_10.calc_check_digits(bban + "DE") + bban
    return separator.join(number[at : at + 4] for at in range(0, 22, 4))


_VOCABULARY = (
    "안녕하세요 회의 자료를 the quick brown fox 2024년 3월 v1.2 요약해 주세요 (참고) “인용” … def f(x): 😀 C:\\dir"
)
WORDS = st.lists(st.sampled_from([*_VOCABULARY.split(), "\n", "\t"]), max_size=6).map(" ".join)

_FULL_WIDTH = {ord(sign): chr(ord(sign) + 0xFEE0) for sign in "0123456789@.-+()"}
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


def _look_alikes() -> dict[str, list[str]]:
    """By Unicode's own tables: what NFKC makes an ASCII letter or digit of, and the digits of every script."""
    found: dict[str, list[str]] = {}
    for code in range(0x80, 0x20000):
        sign = chr(code)
        plain = unicodedata.normalize("NFKC", sign)
        digit = unicodedata.decimal(sign, None)
        if digit is not None or (len(plain) == 1 and plain.isascii() and plain.isalnum()):
            found.setdefault(plain if digit is None else str(digit), []).append(sign)
    return found


_LOOK_ALIKES = _look_alikes()
_DASHES = {ord("-"): "\u2013", ord(" "): "\u00a0"}


@st.composite
def disguised(draw: st.DrawFn, text: str) -> str:
    """The same value in other characters: full width, other dashes and spaces, something invisible within."""
    table: dict[int, str] = draw(st.sampled_from([{}, _FULL_WIDTH, _DASHES]))
    shown = "".join(sign.translate(table) if draw(st.booleans()) else sign for sign in text)
    if draw(st.booleans()) and len(shown) > 2:
        at = draw(st.integers(1, len(shown) - 1))
        shown = shown[:at] + draw(st.sampled_from(_INVISIBLE)) + shown[at:]
    return shown


def with_look_alikes(text: str, rnd: random.Random) -> str:
    """The same value with any of its letters and digits taken from elsewhere, and invisible characters between."""
    often = rnd.choice([0.0, 0.1, 0.5, 1.0])
    shown = ""
    for sign in text:
        shown += rnd.choice(_LOOK_ALIKES[sign]) if sign in _LOOK_ALIKES and rnd.random() < often else sign
        if rnd.random() < 0.05:
            shown += rnd.choice(_INVISIBLE)
    return shown.rstrip(_INVISIBLE)


def written_as_json(text: str, rnd: random.Random) -> str:
    """A JSON string, without its quotes, with some, all or none of the characters written as escapes."""
    often = rnd.choice([0.0, 0.1, 0.5, 1.0])
    return "".join(
        "".join(f"\\u{unit:04x}" for unit in _utf16(sign))
        if rnd.random() < often
        else json.dumps(sign, ensure_ascii=False)[1:-1]
        for sign in text
    )


@st.composite
def escaped(draw: st.DrawFn, text: str) -> str:
    """A JSON string (without its quotes) that means this text, with any of its characters written as escapes."""
    shown = []
    for sign in text:
        plain = json.dumps(sign, ensure_ascii=False)[1:-1]
        if draw(st.integers(0, 3)) == 0:
            plain = "".join(f"\\u{unit:04x}" for unit in _utf16(sign))
        shown.append(plain)
    return "".join(shown)


def _utf16(sign: str) -> list[int]:
    encoded = sign.encode("utf-16-be")
    return [int.from_bytes(encoded[at : at + 2], "big") for at in range(0, len(encoded), 2)]


def chat(text: str, **layout: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, **layout).encode()


def content_of(body: bytes) -> str:
    content = json.loads(body)["messages"][0]["content"]
    assert isinstance(content, str)
    return content
