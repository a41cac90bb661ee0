"""Identifiers that are not bound to Korea: telephone, payment card, IBAN, US social security number, IP address.

For:      saying of a candidate whether it is one, by check digits and numbering plans.
Touches:  nothing but the tables of phonenumbers and stdnum, read once at start-up.
"""

import ipaddress
from string import ascii_uppercase
from typing import Final

import phonenumbers
from phonenumbers import PhoneMetadata
from stdnum import numdb

from .evidence import AS_GROUPS, DIGITS, LETTERS, SEPARATORS, Detector, Hit, Number, Rule, number_at, pairs
from .korean import LEFT, SEPARATOR, national, whole_matches
from .linear import Search, has, prefixer, searcher, spans, whole

# ---- telephone with a country code

_PHONE_WORDS: Final = searcher(
    r"(?i)전화|연락|번호|휴대|핸드폰|팩스|tel|phone|mobile|\bcell|call|fax|contact|dial|whatsapp"
)
_PLUS: Final = ord("+")
_DIALLED_SHAPE: Final = r"00(?:[ .\-()/]{0,3}\d){9,16}"
_DIALLED: Final = prefixer(_DIALLED_SHAPE)
_PHONE: Final = Rule("phone", "PHONE", "country code and numbering plan")


def numbering_plan() -> Search:
    """Country code and national number of every region, as digits. About 0.2 s, for the tables are Python modules."""
    plans: dict[int, set[str]] = {}
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        for region in regions:
            found = (
                PhoneMetadata.metadata_for_nongeo_region(code)
                if region == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY
                else PhoneMetadata.metadata_for_region(region)
            )
            if found is not None and found.general_desc is not None:
                plans.setdefault(code, set()).add(found.general_desc.national_number_pattern or "")
    return whole("|".join(f"{code}(?:{'|'.join(sorted(numbers))})" for code, numbers in sorted(plans.items())))


def phone(plan: Search) -> Detector:
    def judge(text: bytes, start: int, end: int) -> Hit | None:
        """The longest run of whole groups that is a number of some country."""
        is_dialled = text[start : start + 2] == b"00"
        if text[max(0, start - 1) : start].isdigit() or not (is_dialled or text[start] == _PLUS):
            return None
        if is_dialled:
            end = max(end, _DIALLED(text, start, len(text))[0][1])
        if text[end : end + 1].isdigit():
            end = _without_last_group(text, start, end)
        number = number_at(text, start, end)
        digits, groups = number.digits, list(number.groups)
        if is_dialled:
            if len(groups) < 3 and not number.near(_PHONE_WORDS, 60, 40):
                return None
            digits, groups[0] = digits[2:], groups[0] - 2
        while len(digits) > 6:
            if known := _known(plan, digits):
                return (start, end, _PHONE, b"+" + known)
            digits = digits[: -groups.pop()]
            end = _without_last_group(text, start, end)
        return None

    return Detector(
        name="phone",
        about="Telephone numbers of any country, with + or 00 and the country code.",
        shapes=(r"\+(?:[ .\-()/]{0,3}\d){7,15}",),
        open_shapes=(rf"\b{_DIALLED_SHAPE}",),
        word=judge,
        leads=b"+0",
    )


def _without_last_group(text: bytes, start: int, end: int) -> int:
    return start + len(text[start:end].rstrip(DIGITS).rstrip(SEPARATORS))


def _known(plan: Search, digits: bytes) -> bytes:
    """The digits that dial it, without a trunk zero that is written in parentheses; empty when no plan has them."""
    if digits[:2] == b"82":
        digits = b"82" + national(digits)[1:]
    if whole_matches(plan, digits):
        return digits
    for code in (1, 2, 3):
        if digits[code : code + 1] == b"0" and whole_matches(plan, digits[:code] + digits[code + 1 :]):
            return digits[:code] + digits[code + 1 :]
    return b""


# ---- payment card

_CARD_WORDS: Final = searcher(r"(?i)카드|card|visa|master|amex|credit|debit|\bpan\b|결제")
_CARD: Final = Rule("card", "CARD", "issuer range and check digit")
_LENGTHS: Final = (  # issuer range, lengths of the number
    (3000, 3059, (14, 16)),
    (3095, 3095, (14, 16)),
    (3400, 3499, (15,)),
    (3528, 3589, (16,)),
    (3600, 3699, (14, 16)),
    (3700, 3799, (15,)),
    (3800, 3999, (14, 16)),
    (4000, 4999, (13, 16, 19)),
    (5018, 5018, (16, 18, 19)),
    (5020, 5020, (16, 18, 19)),
    (5038, 5038, (16, 18, 19)),
    (5060, 5082, (16, 19)),
    (5100, 5599, (16,)),
    (5610, 5610, (16,)),
    (5893, 5893, (16, 18, 19)),
    (6011, 6011, (16, 19)),
    (6060, 6062, (16,)),
    (6200, 6299, (16, 17, 18, 19)),
    (6304, 6304, (16, 18, 19)),
    (6360, 6399, (16,)),
    (6440, 6599, (16, 19)),
    (6759, 6763, (16, 18, 19)),
    (8100, 8199, (16,)),
    (2200, 2204, (16, 19)),
    (2221, 2720, (16,)),
    (9400, 9499, (16,)),
)
_ISSUERS: Final = {b"%d" % prefix: lengths for first, last, lengths in _LENGTHS for prefix in range(first, last + 1)}
_GROUPINGS: Final = frozenset(
    {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 4, 4, 3), (4, 4, 4, 2), (4, 4, 4, 1), (6, 13)}
)
_PARCEL: Final = prefixer(r"9[1-5]\d\d(?:(?: \d{4}){4} \d\d|(?:-\d{4}){4}-\d\d)\b")  # of the US mail: 22 digits
_LUHN_OF_ASCII: Final = 16 * ord("0") % 10
_DOUBLED: Final = bytes.maketrans(DIGITS, b"0246813579")


def _check_card(number: Number) -> Hit | None:
    end, digits = number.end, number.digits
    if not _is_card(digits):
        if len(digits) < 17 or number.groups[:4] != (4, 4, 4, 4) or not _is_card(digits[:16]):
            return None
        end, digits = _without_last_group(number.text, number.start, end), digits[:16]
        number = number_at(number.text, number.start, end)
    if (
        number.groups[:4] not in _GROUPINGS
        and number.groups[:3] not in _GROUPINGS
        and max(number.groups[:-1], default=1) > 1
    ):
        return None
    if not number.is_free or (
        number.is_plain and number.is_labelled_otherwise and not number.near(_CARD_WORDS, 60, 40)
    ):
        return None
    return (number.start, end, _CARD, digits)


def _cards_in_row(text: bytes, start: int, end: int) -> list[Hit]:
    """Those in a row of groups of four. One pass, for a table of numbers can be as long as the text."""
    groups = text[start:end].translate(AS_GROUPS).split()
    sums = [sum(group[1::2]) + sum(group[0::2].translate(_DOUBLED)) for group in groups]
    hits = []
    at = first = 0  # groups: the next one to try, and the one that stands at `start`
    while at < len(groups) - 3:
        is_card = sum(sums[at : at + 4]) % 10 == _LUHN_OF_ASCII and 16 in _ISSUERS.get(groups[at], ())
        if not is_card:
            at += 1
            continue
        start = _group_start(text, start, end, at - first)
        stop = _group_start(text, start, end, 3) + len(groups[at + 3])
        first = at
        card = number_at(text, start, stop)
        if len(card.digits) == 16 and card.is_free and _PARCEL(text, start, len(text))[0][0] < 0:
            hits.append((start, stop, _CARD, card.digits))
            at += 4
        else:
            at += 1
    return hits


def _group_start(text: bytes, start: int, end: int, groups: int) -> int:
    """Where the group of four stands that is so many behind the one at `start`."""
    for _ in range(groups):
        start += 4  # all but the last group have four digits
        start = end - len(text[start:end].lstrip(SEPARATORS))
    return start


def _is_card(digits: bytes) -> bool:
    return len(digits) in _ISSUERS.get(digits[:4], ()) and is_luhn(digits)


def is_luhn(digits: bytes) -> bool:
    """ISO/IEC 7812-1: every second digit from the right, but the last, counts twice, by its digits."""
    plain, doubled = digits[::-2], digits[-2::-2].translate(_DOUBLED)
    return (sum(plain) + sum(doubled) - 48 * len(digits)) % 10 == 0


CARD: Final = Detector(
    name="card",
    about="Payment cards: 13 to 19 digits in an issuer's range with a valid check digit.",
    shapes=(
        LEFT + rf"[2-69]\d{{3}}(?:{SEPARATOR}\d{{4}}){{3}}{SEPARATOR}\d{{1,3}}\b",
        LEFT + rf"6\d{{5}}{SEPARATOR}\d{{13}}\b",
        LEFT + rf"[2-69]\d{{3}}(?:{SEPARATOR}\d{{4}}){{3,}}",
        LEFT + rf"3\d{{3}}{SEPARATOR}\d{{6}}{SEPARATOR}\d{{4,5}}",
        LEFT + rf"4\d{{3}}{SEPARATOR}\d{{4}}{SEPARATOR}\d{{5}}",
    ),
    checks=dict.fromkeys(range(13, 20), _check_card),
    begins=frozenset(prefix[:2] for prefix in _ISSUERS),
    table=_cards_in_row,
)

# ---- IBAN

_IBAN: Final = Rule("iban", "IBAN", "country's length and check digits")
_AS_NUMBERS: Final = {ord(letter): str(10 + at) for at, letter in enumerate(ascii_uppercase)}
_KINDS: Final = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}


def iban_structures() -> dict[bytes, tuple[int, Search]]:
    """By country: length, and the pattern of the whole, from the registry that SWIFT keeps (ISO 13616)."""
    registry = numdb.get("iban")
    structures = {}
    for country in (first + second for first in ascii_uppercase for second in ascii_uppercase):
        fields = registry.info(country)[0][1].get("bban")
        if fields:
            parts = [(part[:-1].rstrip("!"), part[-1]) for part in _fields_of(fields)]
            pattern = "".join(f"{_KINDS[kind]}{{{count}}}" for count, kind in parts)
            structures[country.encode()] = (
                4 + sum(int(count) for count, _ in parts),
                whole(f"{country}[0-9]{{2}}{pattern}"),
            )
    return structures


def _fields_of(structure: str) -> list[str]:
    """`4!a6!n` -> `4!a`, `6!n`."""
    for kind in _KINDS:
        structure = structure.replace(kind, kind + " ")
    return structure.split()


def iban(structures: dict[bytes, tuple[int, Search]]) -> Detector:
    joined = DIGITS + LETTERS

    def judge(text: bytes, start: int, end: int) -> Hit | None:
        """The match is only the head: how long the rest is, the country says."""
        length, pattern = structures.get(text[start : start + 2].upper(), (0, None))
        if pattern is None:
            return None
        window = text[start : start + 2 * length]
        compact = window.translate(None, b" -")[:length].upper()
        if not whole_matches(pattern, compact) or not is_mod97(compact):
            return None
        end = start + _length_with_separators(window, length)
        if text[end : end + 1].translate(None, joined) != text[end : end + 1]:
            return None
        return (start, end, _IBAN, compact)

    return Detector(
        name="iban",
        about="International bank account numbers of every country in the registry, with valid check digits.",
        shapes=(r"\b[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{1,3}",),
        word=judge,
        leads=LETTERS,
    )


def is_mod97(compact: bytes) -> bool:
    """ISO 7064 MOD 97-10, over digits and upper-case letters."""
    moved = compact[4:] + compact[:4]
    return int(moved.decode().translate(_AS_NUMBERS)) % 97 == 1


def _length_with_separators(window: bytes, length: int) -> int:
    if window[:length].translate(None, b" -") == window[:length]:
        return length
    at = count = 0
    while count < length:
        count += window[at] not in b" -"
        at += 1
    return at


# ---- US social security number

_SSN_WORDS: Final = searcher(r"(?i)\bssn\b|social security|사회 ?보장|소셜 ?시큐리티|\bitin\b|tax ?payer")
_SSN: Final = Rule("ssn", "SSN", "shape and assigned ranges")
_ADVERTISED: Final = (b"078051120", b"219099999", b"457555462")  # printed in advertisements, nobody's


def _check_ssn(number: Number) -> Hit | None:
    digits = number.digits
    if digits[:3] in (b"000", b"666") or digits[0] == 57 or digits[3:5] == b"00" or digits[5:] == b"0000":
        return None
    if digits in _ADVERTISED or not number.is_free:
        return None
    hyphenated = number.groups == (3, 2, 4) and b"-" in number.piece
    if not (number.near(_SSN_WORDS, 60, 40) or (hyphenated and not number.is_labelled_otherwise)):
        return None
    return (number.start, number.end, _SSN, digits)


SSN: Final = Detector(
    name="ssn",
    about="US social security numbers: 3-2-4 digits in assigned ranges; bare or with spaces near the words.",
    shapes=(LEFT + rf"\d{{3}}{SEPARATOR}\d{{2}}{SEPARATOR}\d{{4}}",),
    checks={9: _check_ssn},
    begins=pairs(0, 89),
)

# ---- IP address

_IP: Final = Rule("ip", "IP", "an address of the public internet")
_VERSION: Final = searcher(r"(?i)(?:\bv|version|버전|release|build|firmware|section|oid|=v?)[ .:=]{0,3}$")


_ADDRESS: Final = searcher(
    r"\b(?:\d{1,3}\.){3}\d{1,3}\b"
    r"|\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b"
    r"|\b(?:[0-9A-Fa-f]{1,4}:){1,7}(?::[0-9A-Fa-f]{1,4}){1,7}\b"
    r"|\b(?:[0-9A-Fa-f]{1,4}:){1,7}:"
)


def _find_addresses(text: bytes) -> list[Hit]:
    return [hit for start, end in spans(_ADDRESS, text) if (hit := _judge_address(text, start, end))]


def _judge_address(text: bytes, start: int, end: int) -> Hit | None:
    before, after = text[max(0, start - 16) : start], text[end : end + 2]
    joints = b".-" if b"." in text[start:end] else b".-:"  # 8.8.8.8:443 has a port
    if before.endswith((b".", b":", b"-")) or (after[:1] and after[:1] in joints and after[1:].isalnum()):
        return None
    try:
        address = ipaddress.ip_address(text[start:end].decode("ascii"))
    except ValueError:
        return None
    if not address.is_global or (address.version == 4 and has(_VERSION, before)):
        return None
    return (start, end, _IP, str(address).encode())


IP: Final = Detector(
    name="ip",
    about="Public IPv4 and IPv6 addresses; private and reserved ranges never. Not chosen by default.",
    find=_find_addresses,
    hints=(r"\d\.\d{1,3}\.\d{1,3}\.\d", r"[0-9A-Fa-f]:[0-9A-Fa-f:]{0,4}:"),
)
