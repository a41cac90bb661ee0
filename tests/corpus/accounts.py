"""Makers of the numbers that money moves by: bank accounts, IBANs, payment cards.

For:      the slots of positive fragments.
Touches:  the dice that it is given.
"""

from random import Random
from typing import Final

from . import formats
from .spelling import Piece, digits, in_fours, spell, split

# Bank, its short names, the usual first digits and group lengths of an account.
BANKS: Final[tuple[tuple[tuple[str, ...], str, tuple[int, ...]], ...]] = (
    (("국민은행", "KB국민은행", "국민"), "", (6, 2, 6)),
    (("신한은행", "신한"), "110", (3, 3, 6)),
    (("우리은행", "우리"), "1002", (4, 3, 6)),
    (("하나은행", "KEB하나은행"), "", (3, 6, 5)),
    (("농협은행", "NH농협", "농협"), "302", (3, 4, 4, 2)),
    (("기업은행", "IBK기업은행"), "", (3, 6, 2, 3)),
    (("카카오뱅크", "카뱅"), "3333", (4, 2, 7)),
    (("토스뱅크",), "1000", (4, 4, 4)),
    (("케이뱅크",), "100", (3, 3, 6)),
    (("SC제일은행", "제일은행"), "", (3, 2, 6)),
    (("새마을금고",), "9002", (4, 4, 4, 1)),
    (("우체국",), "", (6, 2, 6)),
    (("부산은행",), "112", (3, 4, 4, 2)),
    (("대구은행", "iM뱅크"), "508", (3, 2, 6, 1)),
)


def _account(rng: Random, first: str, sizes: tuple[int, ...]) -> str:
    while True:
        number = first + digits(rng, sum(sizes) - len(first), "123456789")
        if not formats.is_card(number) and not (len(number) == 13 and formats.is_resident_like(number)):
            break
    return spell(rng, split(number, list(sizes)), {"hyphen": 62, "none": 24, "space": 6, "wide_digits": 4, "wide": 4})


def account(rng: Random, _: bool) -> list[Piece]:
    """Always with context: the fragment says 계좌 or 입금, or names a bank."""
    first, sizes = rng.choice(BANKS)[1:]
    return [(_account(rng, first, sizes), "BANK_ACCOUNT")]


def bank_account(rng: Random, context: bool) -> list[Piece]:
    """An account next to its bank's name; by its short name ("우리") only where the fragment says 계좌 or 이체 too."""
    names, first, sizes = rng.choice(BANKS)
    if not context:
        names = tuple(name for name in names if name.endswith(("은행", "뱅크", "금고", "우체국")))
    name, number = rng.choice(names), _account(rng, first, sizes)
    form = rng.randrange(6)
    if form == 0:
        return [(number, "BANK_ACCOUNT"), (f" ({name})", None)]
    if form == 1:
        return [(f"{name} 계좌번호 ", None), (number, "BANK_ACCOUNT")]
    return [(name + rng.choice([" ", " ", ": ", "\n"]), None), (number, "BANK_ACCOUNT")]


# Account part per country: n a digit, a a letter, c either.
IBANS: Final = {
    "DE": "n" * 18,
    "GB": "aaaa" + "n" * 14,
    "FR": "n" * 10 + "c" * 11 + "nn",
    "ES": "n" * 20,
    "NL": "aaaa" + "n" * 10,
    "IT": "a" + "n" * 10 + "c" * 12,
    "CH": "n" * 5 + "c" * 12,
    "AT": "n" * 16,
    "BE": "n" * 12,
    "SE": "n" * 20,
    "PL": "n" * 24,
    "IE": "aaaa" + "n" * 14,
    "FI": "n" * 14,
    "DK": "n" * 14,
    "NO": "n" * 11,
    "PT": "n" * 21,
    "LU": "nnn" + "c" * 13,
}
CHOICES: Final = {"n": "0123456789", "a": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "c": "0123456789ABCDEFGHJKLMNP"}


def iban(rng: Random, _: bool) -> list[Piece]:
    country = rng.choice(list(IBANS))
    part = "".join(rng.choice(CHOICES[place]) for place in IBANS[country])
    whole = country + formats.iban_check_digits(country, part) + part
    return [(whole if rng.random() < 0.45 else in_fours(whole, " "), "IBAN")]


def card(rng: Random, context: bool) -> list[Piece]:
    head, size = rng.choice(_card_families(context))
    payload = head + digits(rng, size - 1 - len(head))
    number = payload + formats.luhn_check_digit(payload)
    groups = {14: [4, 6, 4], 15: [4, 6, 5], 19: [6, 13]}.get(size, [4, 4, 4, 4])
    shares = {"hyphen": 45, "space": 25, "none": 22, "wide": 4, "wide_digits": 3, "spaced": 1}
    return [(spell(rng, split(number, groups), shares), "CARD")]


def _card_families(context: bool) -> list[tuple[str, int]]:
    families = [("4", 16)] * 8 + [(str(head), 16) for head in (51, 52, 53, 54, 55, 2221, 2345, 2720)]
    families += [("37", 15), ("34", 15), ("3528", 16), ("3589", 16), ("6011", 16), ("65", 16), ("62", 16), ("36", 14)]
    return [*families, ("9410", 16), ("62", 19)] if context else families
