"""Makers of telephone numbers and e-mail addresses.

For:      the slots of positive fragments.
Touches:  the dice that it is given.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from .spelling import WIDE, Piece, digits, spell

AREA_CODES: Final = (
    *("02", "02", "02", "031", "032", "033", "041", "042", "043", "044", "051", "052", "053", "054", "055"),
    *("061", "062", "063", "064", "070"),
)


def phone(rng: Random, context: bool) -> list[Piece]:
    middle = digits(rng, 4, "123456789" if rng.random() < 0.1 else "23456789")
    if rng.random() < 0.72:
        code = "010" if rng.random() < 0.95 else rng.choice(["011", "016", "017", "018", "019"])
        if code != "010" and rng.random() < 0.6:
            middle = digits(rng, 3, "23456789")
    else:
        code = rng.choice(AREA_CODES)
        if code != "070" and rng.random() < 0.7:
            middle = digits(rng, 3, "23456789")
    if rng.random() < 0.2:
        return [(_from_abroad(rng, code, middle, digits(rng, 4)), "PHONE")]
    return [(_at_home(rng, code, middle, digits(rng, 4), context), "PHONE")]


def _at_home(rng: Random, code: str, middle: str, last: str, context: bool) -> str:
    if rng.random() < 0.1:
        opening = rng.choice([f"({code})", f"({code}) ", f"{code})"])
        return f"{opening}{middle}-{last}"
    shares = {"hyphen": 58, "space": 8, "dot": 8, "spaced": 3, "dash": 3, "nobreak": 2, "wide": 4, "wide_digits": 4}
    if code == "010" or context:
        shares |= {"none": 16}
    return spell(rng, [code, middle, last], shares)


def _from_abroad(rng: Random, code: str, middle: str, last: str) -> str:
    area = code[1:]
    forms = [
        f"+82-{area}-{middle}-{last}",
        f"+82 {area} {middle} {last}",
        f"+82 {area}-{middle}-{last}",
        f"+82{area}{middle}{last}",
        f"+82 (0){area}-{middle}-{last}",
        f"+82(0){area}-{middle}-{last}",
        f"+82-(0){area}-{middle}-{last}",
        f"(+82) {area}-{middle}-{last}",
        f"+82.{area}.{middle}.{last}",
        f"+82-{area}-{middle}-{last}".translate(WIDE),
    ]
    return rng.choice(forms)


def intl_phone(rng: Random, _: bool) -> list[Piece]:
    d = digits
    forms: list[Callable[[], str]] = [
        lambda: f"+1 {d(rng, 3, '23456789')} {d(rng, 3, '23456789')} {d(rng, 4)}",
        lambda: f"+1-{d(rng, 3, '23456789')}-{d(rng, 3, '23456789')}-{d(rng, 4)}",
        lambda: f"+1 ({d(rng, 3, '23456789')}) {d(rng, 3, '23456789')}-{d(rng, 4)}",
        lambda: f"+1{d(rng, 3, '23456789')}{d(rng, 3, '23456789')}{d(rng, 4)}",
        lambda: f"+44 20 7{d(rng, 3)} {d(rng, 4)}",
        lambda: f"+44 (0)20 7{d(rng, 3)} {d(rng, 4)}",
        lambda: f"+447{d(rng, 9)}",
        lambda: f"+81-3-{d(rng, 4, '3456')}-{d(rng, 4)}",
        lambda: f"+81 90 {d(rng, 4, '123456789')} {d(rng, 4)}",
        lambda: f"+86 13{d(rng, 1)} {d(rng, 4)} {d(rng, 4)}",
        lambda: f"+49 30 {d(rng, 8, '23456789')}",
        lambda: f"+49-151-{d(rng, 8, '23456789')}",
        lambda: f"+33 6 {d(rng, 2)} {d(rng, 2)} {d(rng, 2)} {d(rng, 2)}",
        lambda: f"+65 {d(rng, 4, '89')} {d(rng, 4)}",
        lambda: f"+84 9{d(rng, 1)} {d(rng, 3)} {d(rng, 4)}",
        lambda: f"+91 {d(rng, 5, '789')} {d(rng, 5)}",
        lambda: f"+61 4{d(rng, 2)} {d(rng, 3)} {d(rng, 3)}",
    ]
    return [(rng.choice(forms)(), "INTL_PHONE")]


FAMILY: Final = ("kim", "lee", "park", "choi", "jung", "kang", "cho", "yoon", "jang", "lim", "han", "oh", "seo", "hong")
GIVEN: Final = ("minjun", "seoyeon", "jiho", "haeun", "dohyun", "jiwoo", "yuna", "sungmin", "hyejin", "woojin", "nari")
WESTERN: Final = ("anna.meyer", "john.whitfield", "priya.raman", "o.dubois", "m-garcia", "sofia_rossi", "lars.berg")
MAIL_HOSTS: Final = (
    *("naver.com", "gmail.com", "daum.net", "hanmail.net", "kakao.com", "nate.com", "outlook.kr", "icloud.com"),
    *("hanbit-logis.co.kr", "sejongmed.or.kr", "mirae-tech.co.kr", "cs.hankook.ac.kr", "mail.dongbang.go.kr"),
    *("northwind-freight.com", "acme-labs.io", "eu.brightwater.co.uk", "lindqvist.se", "ops.parcelo.dev", "kestrel.ai"),
)


def email(rng: Random, _: bool) -> list[Piece]:
    family, given = rng.choice(FAMILY), rng.choice(GIVEN)
    local = rng.choice(
        [
            f"{given}.{family}",
            f"{family}{given}{digits(rng, 2)}",
            f"{given[0]}{family}",
            f"{given}_{family}{digits(rng, 2)}",
            f"{family}-{given}",
            f"{given}{digits(rng, 4)}",
            f"{given}.{family}+{rng.choice(['billing', 'test', 'news', '2025'])}",
            f"{family.title()}.{given.title()}",
            rng.choice(WESTERN),
            rng.choice(WESTERN),
        ]
    )
    host = rng.choice(MAIL_HOSTS)
    draw = rng.random()
    if draw < 0.04:
        return [(f"{local}\N{FULLWIDTH COMMERCIAL AT}{host}", "EMAIL")]
    if draw < 0.06:
        return [(f"{local}@{host}".translate(WIDE), "EMAIL")]
    return [(f"{local}@{host.upper() if draw < 0.09 else host}", "EMAIL")]
