"""The arithmetic of the public formats: check digits, and dates that exist.

For:      making identifiers that are valid, and lookalikes that are not.
Touches:  nothing. Arguments are bare ASCII digits (or letters and digits for an IBAN).

Sources: the check digit of resident and foreigner numbers as published with the former numbering (since October 2020
the last six digits are random); the National Tax Service's weights for business numbers; ISO/IEC 7812 (Luhn) and its
ranges for cards; ISO 13616 with ISO 7064 MOD 97-10 for IBANs; GS1 for EAN and ISBN-13.
"""

import datetime
from typing import Final

RRN_WEIGHTS: Final = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
BUSINESS_WEIGHTS: Final = (1, 3, 7, 1, 3, 7, 1, 3, 5)
RANDOM_SINCE: Final = datetime.date(2020, 10, 5)  # numbers given from this day on carry no check digit
CENTURIES: Final = {"1": 1900, "2": 1900, "5": 1900, "6": 1900, "3": 2000, "4": 2000, "7": 2000, "8": 2000}
TODAY: Final = datetime.date(2026, 6, 30)  # fixed: the corpus must not change with the calendar

# Length -> first digits in use; 9410 is the national range (9) of Korea (410).
CARD_RANGES: Final[dict[int, tuple[str, ...]]] = {
    14: ("36", "38"),
    15: ("34", "37"),
    16: (
        "4",
        *map(str, range(51, 56)),
        *map(str, range(2221, 2721)),
        *map(str, range(3528, 3590)),
        "6011",
        "62",
        "65",
        "9410",
    ),
    19: ("62",),
}


def rrn_check_digit(first_twelve: str) -> str:
    """Of a resident number; a foreigner number's is two more, modulo ten."""
    total = sum(weight * int(digit) for weight, digit in zip(RRN_WEIGHTS, first_twelve, strict=True))
    return str((11 - total % 11) % 10)


def foreigner_check_digit(first_twelve: str) -> str:
    return str((int(rrn_check_digit(first_twelve)) + 2) % 10)


def birth_date(number: str) -> datetime.date | None:
    """The date that the first seven digits of a resident or foreigner number say, if it exists."""
    century = CENTURIES.get(number[6])
    if century is None:
        return None
    try:
        return datetime.date(century + int(number[:2]), int(number[2:4]), int(number[4:6]))
    except ValueError:
        return None


def is_resident_like(number: str) -> bool:
    """Thirteen digits that nobody could tell from a resident or foreigner number without knowing what they are."""
    born = birth_date(number)
    if born is None or born > TODAY:
        return False
    check = foreigner_check_digit if number[6] in "5678" else rrn_check_digit
    return born >= RANDOM_SINCE or check(number[:12]) == number[12]


def business_check_digit(first_nine: str) -> str:
    total = sum(weight * int(digit) for weight, digit in zip(BUSINESS_WEIGHTS, first_nine, strict=True))
    total += int(first_nine[8]) * 5 // 10
    return str(-total % 10)


def luhn_check_digit(payload: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(payload)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def is_card(number: str) -> bool:
    return number.startswith(CARD_RANGES.get(len(number), ())) and luhn_check_digit(number[:-1]) == number[-1]


def mod97(iban: str) -> int:
    """1 for a valid IBAN."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97


def iban_check_digits(country: str, account: str) -> str:
    return f"{98 - mod97(f'{country}00{account}'):02d}"


def ean_check_digit(payload: str) -> str:
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(payload))
    return str(-total % 10)
