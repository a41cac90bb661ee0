"""Makers of the numbers that states give: residents, passports, driver's licences, businesses, social security.

For:      the slots of positive fragments.
Touches:  the dice that it is given.
"""

import datetime
from collections.abc import Callable
from random import Random
from typing import Final

from . import formats
from .spelling import WIDE, Piece, digits, letters, spell, split


def _born(rng: Random, first: datetime.date, last: datetime.date) -> datetime.date:
    return first + datetime.timedelta(days=rng.randrange((last - first).days))


def _resident(rng: Random, context: bool, sexes: dict[int, str], tail: Callable[[Random], str]) -> str:
    kind = rng.choices(["checked", "random", "reissued"], [70, 24, 6 if context else 0])[0]
    newborn = kind == "random"
    born = (
        _born(rng, formats.RANDOM_SINCE, formats.TODAY)
        if newborn
        else _born(rng, datetime.date(1943, 1, 1), formats.RANDOM_SINCE)
    )
    head = born.strftime("%y%m%d") + rng.choice(sexes[born.year // 100])
    if kind != "checked":  # given since October 2020, to a child or to an adult whose number was changed
        return head + digits(rng, 6)
    twelve = head + tail(rng)
    check = formats.foreigner_check_digit if head[6] in "5678" else formats.rrn_check_digit
    return twelve + check(twelve)


def _spell_resident(rng: Random, number: str, context: bool) -> str:
    shares = {"hyphen": 70, "wide": 6, "wide_digits": 5, "dash": 3}
    if context:
        shares |= {"none": 16, "space": 9, "spaced": 6, "nobreak": 2}
    elif formats.birth_date(number) and formats.is_resident_like(number):
        shares |= {"none": 10}
    return spell(rng, [number[:6], number[6:]], shares)


def rrn(rng: Random, context: bool) -> list[Piece]:
    number = _resident(
        rng, context, {19: "12", 20: "34"}, lambda r: f"{r.randrange(96):02d}{r.randrange(100):02d}{r.randint(1, 4)}"
    )
    return [(_spell_resident(rng, number, context), "RRN")]


def foreigner(rng: Random, context: bool) -> list[Piece]:
    number = _resident(
        rng,
        context,
        {19: "56", 20: "78"},
        lambda r: f"{2 * r.randrange(50):02d}{r.randrange(100):02d}{r.randint(6, 9)}",
    )
    return [(_spell_resident(rng, number, context), "FOREIGNER_NUMBER")]


def passport(rng: Random, _: bool) -> list[Piece]:
    """Always with context: until 2021 a letter and eight digits, since then a letter among them."""
    kind = rng.choice("MMMMMSRGD")
    modern = kind == "M" and rng.random() < 0.5
    number = kind + digits(rng, 3) + letters(rng, 1) + digits(rng, 4) if modern else kind + digits(rng, 8)
    draw = rng.random()
    if draw < 0.05:
        number = number.translate(WIDE)
    elif draw < 0.09:
        number = number.lower()
    return [(number, "PASSPORT")]


LICENCE_REGIONS: Final = (
    "11",
    "12",
    "13",
    "14",
    "15",
    "16",
    "17",
    "18",
    "19",
    "20",
    "21",
    "22",
    "23",
    "24",
    "25",
    "26",
    "28",
)
REGION_NAMES: Final = (
    *("서울", "부산", "경기", "강원", "충북", "충남", "전북", "전남", "경북", "경남", "제주"),
    *("대구", "인천", "광주", "대전", "울산"),
)


def licence(rng: Random, context: bool) -> list[Piece]:
    year, serial, check = digits(rng, 2), digits(rng, 6), digits(rng, 2)
    if context and rng.random() < 0.12:  # cards printed with the region's name instead of its number
        rest = f"{year}-{serial}-{check}"
        return [(rng.choice(REGION_NAMES) + rng.choice([" ", "-"]), None), (rest, "DRIVER_LICENSE")]
    shares = {"hyphen": 80, "wide": 5, "wide_digits": 4, "dash": 3}
    if context:
        shares |= {"none": 15, "space": 8}
    groups = [rng.choice(LICENCE_REGIONS), year, serial, check]
    return [(spell(rng, groups, shares), "DRIVER_LICENSE")]


def business_digits(rng: Random) -> str:
    nine = f"{rng.randint(101, 899)}{rng.randint(1, 99):02d}{digits(rng, 4)}"
    return nine + formats.business_check_digit(nine)


def business(rng: Random, context: bool) -> list[Piece]:
    shares = {"hyphen": 80, "wide": 5, "wide_digits": 4, "dash": 3}
    if context:
        shares |= {"none": 16, "space": 6}
    return [(spell(rng, split(business_digits(rng), [3, 2, 5]), shares), "BUSINESS_NUMBER")]


def ssn(rng: Random, context: bool) -> list[Piece]:
    area = rng.choice([rng.randint(1, 665), rng.randint(667, 899)])
    groups = [f"{area:03d}", f"{rng.randint(1, 99):02d}", f"{rng.randint(1, 9999):04d}"]
    return [(spell(rng, groups, {"hyphen": 80, "space": 8, "none": 8, "dash": 4} if context else {"hyphen": 1}), "SSN")]
