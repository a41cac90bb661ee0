"""Identifiers of Korea: registration numbers, passport, driver's licence, business number, telephone, bank account.

For:      saying of a candidate whether it is one, by date, check digit, area code or the words around it.
Touches:  nothing.
"""

from calendar import isleap
from operator import mul
from typing import Final

from .evidence import LETTERS, Check, Detector, Hit, Number, Rule, composed, number_at, pairs
from .linear import Search, has, prefixer, searcher, whole

SEPARATOR: Final = r"(?: {0,2}[-.] {0,2}| {1,2})"
LEFT: Final = r"(?:\b|_)"
PHONE_LEFT: Final = r"(?:\b|[A-Za-z_])"  # Tel010-…

# ---- resident and foreigner registration numbers

LAST_BIRTH_YEAR: Final = 2035  # the clock is not ours to read; later dates are some other number
FIRST_BARE_YEAR: Final = 1925  # thirteen bare digits that begin with an older date are rather a barcode or an instant

_RRN_WORDS: Final = searcher(r"(?i)주민|외국인|등록증|신분증|resident|\brrn\b|\barc\b|foreigner|alien")
_REGISTRATION_GROUPS: Final = ((6, 7), (13,), (1,) * 13)
_WEIGHTS: Final = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_WEIGHED: Final = tuple(  # what each group of three digits adds: a look-up costs a third of the sum
    {
        b"%03d" % group: sum(map(mul, _WEIGHTS[at : at + 3], (group // 100, group // 10 % 10, group % 10)))
        for group in range(1000)
    }
    for at in (0, 3, 6, 9)
)
_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_OF_YEAR: Final = frozenset(
    b"%02d%02d" % (month + 1, day + 1) for month in range(12) for day in range(_DAYS[month])
)
_CENTURY: Final = {ord(str(digit)): 1900 if digit in (1, 2, 5, 6) else 2000 for digit in range(1, 9)}
_CENTURY.update({ord("9"): 1800, ord("0"): 1800})


def _check_registration(detector: str, centuries: bytes) -> Check:
    checked_rule = Rule(detector, detector.upper(), "date and check digit")
    shaped_rule = Rule(detector, detector.upper(), "date and shape")

    def check(number: Number) -> Hit | None:
        digits = number.digits
        day = digits[2:6]
        if digits[6] not in centuries or day not in _DAYS_OF_YEAR:
            return None
        year = _CENTURY[digits[6]] + int(digits[:2])
        if year > LAST_BIRTH_YEAR or (day == b"0229" and not isleap(year)):
            return None
        if number.groups not in _REGISTRATION_GROUPS or not number.is_free:
            return None
        checked = registration_check_digit(digits) == digits[12] - 48
        if not _is_plausible(number, year, checked=checked):
            return None
        return (number.start, number.end, checked_rule if checked else shaped_rule, digits)

    return check


def registration_check_digit(digits: bytes) -> int:
    """Of a resident number, by the first twelve digits; a foreigner's is two more (mod 10)."""
    first, second, third, fourth = _WEIGHED
    total = first[digits[:3]] + second[digits[3:6]] + third[digits[6:9]] + fourth[digits[9:12]]
    own: int = (11 - total % 11) % 10
    return (own + 2) % 10 if digits[6] in b"5678" else own


def _is_plausible(number: Number, year: int, *, checked: bool) -> bool:
    """Numbers given since October 2020 have no check digit, so shape and date must do unless something else fits."""
    if year >= 1900 and not number.is_plain:
        fits_else = not checked and (number.is_labelled_otherwise or _is_company_number(number.digits))
        return not fits_else or number.near(_RRN_WORDS)
    if has(_RRN_WORDS, composed(number.text[max(0, number.start - 45) : number.start])):
        return True
    if number.is_plain and not checked and _is_account_label(number):
        return False
    if number.near(_RRN_WORDS):
        return True
    if year < 1900 or number.is_labelled_otherwise:
        return False
    return checked or not (year < FIRST_BARE_YEAR or _looks_else(number))


def _looks_else(number: Number) -> bool:
    return _is_instant(number.digits) or _is_barcode(number.digits)


_MAKERS: Final = (b"880", b"40", b"41", b"42", b"43", b"44", b"45", b"49", b"69")


def _is_instant(digits: bytes) -> bool:
    return b"1600000000000" <= digits < b"1900000000000"  # milliseconds of the years 2020 to 2030


def _is_barcode(digits: bytes) -> bool:
    """EAN-13 of a maker in Korea, Germany, Japan or China, whose codes could be years of birth."""
    odd, even = sum(digits[0:12:2]) - 48 * 6, sum(digits[1:12:2]) - 48 * 6
    return digits.startswith(_MAKERS) and (-odd - 3 * even) % 10 == digits[12] - 48


def _is_company_number(digits: bytes) -> bool:
    """Corporate registration: registry (4), kind of company (2: 11 to 15 …), serial (6), check digit."""
    if digits[2:6] not in (b"0111", b"1111", b"0114", b"1114"):
        return False
    odd, even = sum(digits[0:12:2]) - 48 * 6, sum(digits[1:12:2]) - 48 * 6
    return (-odd - 2 * even) % 10 == digits[12] - 48


_REGISTRATION_SHAPE: Final = LEFT + r"\d{6}(?: {0,2}- {0,2}| {1,2})\d{7}"
RRN: Final = Detector(
    name="rrn",
    about="Korean resident registration numbers, by birth date and century digit; the check digit, which numbers given "
    "since October 2020 lack, only decides where something else would fit as well.",
    shapes=(_REGISTRATION_SHAPE,),
    checks={13: _check_registration("rrn", b"123490")},
)
FRN: Final = Detector(
    name="frn",
    about="Korean foreigner registration numbers: the same, with a century digit of 5 to 8.",
    shapes=(_REGISTRATION_SHAPE,),
    checks={13: _check_registration("frn", b"5678")},
)

# ---- passport

_PASSPORT_WORDS: Final = searcher(
    r"(?i)여권|passport|출입국|출국|입국|비자|사증|\bvisa\b|immigration|travel doc|탑승|\bmrz\b|항공권|외교부"
)
_PASSPORT_NEXT: Final = searcher(r"(?i)(?:여권|passport)(?: ?(?:번호|number|num|no|nr))?[\s.:#=()은는이가]{0,10}$")
_KOREAN_PASSPORT: Final = whole(r"(?i)[A-Z][ -]?(?:\d{8}|\d{3}[A-Z]\d{4})")
_OTHER_PASSPORT: Final = whole(r"(?i)[A-Z]{1,2}[ -]?\d{7,8}")
_PASSPORT: Final = Rule("passport", "PASSPORT", "shape and a word about travel nearby")


def _judge_passport(text: bytes, start: int, end: int) -> Hit | None:
    piece = text[start:end]
    if whole_matches(_KOREAN_PASSPORT, piece):
        number = number_at(text, start, end)
        found = number.near(_PASSPORT_WORDS) and not number.is_labelled_otherwise
    else:
        found = whole_matches(_OTHER_PASSPORT, piece) and has(
            _PASSPORT_NEXT, composed(text[max(0, start - 60) : start])
        )
    if not found:
        return None
    return (start, end, _PASSPORT, piece.translate(None, b" -").upper())


def whole_matches(pattern: Search, piece: bytes) -> bool:
    return pattern(piece, 0, len(piece))[0][0] == 0


PASSPORT: Final = Detector(
    name="passport",
    about="Passport numbers: a letter and eight digits, or a letter, three digits, a letter and four digits, near a "
    "word about travel; other countries' right behind the word passport.",
    shapes=(r"\b[A-Za-z]{1,2}[ -]?\d{7,8}\b", r"\b[A-Za-z][ -]?\d{3}[A-Za-z]\d{4}\b"),
    word=_judge_passport,
    leads=LETTERS,
)

# ---- driver's licence

_LICENSE_WORDS: Final = searcher(r"(?i)면허|licen[cs]e|운전|driver")
_BY_CODE: Final = Rule("driver_license", "DRIVER_LICENSE", "shape and region code")
_BY_NAME: Final = Rule("driver_license", "DRIVER_LICENSE", "shape and region name")
_REGIONS: Final = (
    "서울|부산|대구|인천|광주|대전|울산|세종|경기(?:남부|북부)?|강원|충북|충남|전북|전남|경북|경남|제주|"
    "충청북도|충청남도|전라북도|전라남도|경상북도|경상남도"
)


_BARE_LICENSE_GROUPS: Final = ((12,), (2, 10), (1,) * 12)
_NAMED: Final = prefixer(_REGIONS)
_HANGUL_LEADS: Final = b"\xea\xeb\xec\xed"  # first bytes of syllables in UTF-8


def _check_license(number: Number) -> Hit | None:
    if number.groups == (2, 2, 6, 2):
        found = number.is_free and not number.is_labelled_otherwise
    else:
        found = number.groups in _BARE_LICENSE_GROUPS and number.is_free and number.near(_LICENSE_WORDS, 60, 40)
    return (number.start, number.end, _BY_CODE, number.digits) if found else None


def _judge_named_license(text: bytes, start: int, end: int) -> Hit | None:
    if text[end : end + 1].isdigit() or _NAMED(text, start, end)[0][0] < 0:
        return None
    return (start, end, _BY_NAME, text[start:end].translate(None, b" -."))


DRIVER_LICENSE: Final = Detector(
    name="driver_license",
    about="Driver's licences: 2-2-6-2 digits with a region code of 11 to 28, or a region's name and 2-6-2 digits; "
    "twelve bare digits near a word about driving.",
    shapes=(
        LEFT + rf"[12]\d{SEPARATOR}\d{{2}}{SEPARATOR}\d{{6}}{SEPARATOR}\d{{2}}",
        rf"(?:{_REGIONS})[ -]{{0,3}}\d{{2}}{SEPARATOR}\d{{6}}{SEPARATOR}\d{{2}}",
    ),
    checks={12: _check_license},
    begins=pairs(11, 28) - {b"27"},  # the regions
    word=_judge_named_license,
    leads=_HANGUL_LEADS,
)

# ---- business registration number

_BUSINESS_WORDS: Final = searcher(r"(?i)사업자|business (?:reg|no|num)|\bbrn\b|\bvat\b|tax id")
_BUSINESS_WEIGHTS: Final = (1, 3, 7, 1, 3, 7, 1, 3, 5, 1)
_BUSINESS: Final = Rule("business_number", "BUSINESS_NUMBER", "check digit")


def _check_business(number: Number) -> Hit | None:
    if not is_business_number(number.digits) or not number.is_free or number.is_labelled_otherwise:
        return None
    if number.groups != (3, 2, 5) and not number.near(_BUSINESS_WORDS, 60, 40):
        return None
    return (number.start, number.end, _BUSINESS, number.digits)


def is_business_number(digits: bytes) -> bool:
    """The National Tax Service's check digit; office and kind of business are never zero."""
    total = sum(map(mul, _BUSINESS_WEIGHTS, digits)) - 48 * sum(_BUSINESS_WEIGHTS) + (digits[8] - 48) * 5 // 10
    return total % 10 == 0 and digits[:3] > b"100" and digits[3:5] != b"00"


BUSINESS_NUMBER: Final = Detector(
    name="business_number",
    about="Business registration numbers: 3-2-5 digits with a valid check digit; ten bare digits near the word.",
    shapes=(LEFT + rf"\d{{3}}{SEPARATOR}\d{{2}}{SEPARATOR}\d{{5}}",),
    checks={10: _check_business},
    begins=pairs(10, 99),
)

# ---- telephone

_PHONE_WORDS: Final = searcher(
    r"(?i)전화|연락|번호|휴대|핸드폰|팩스|문의|대표|사무실|자택|직통|내선|통화|문자|카톡|"
    r"tel|phone|mobile|\bcell|call|fax|contact|dial|text me|whatsapp"
)
_MOBILE: Final = Rule("mobile", "PHONE", "mobile prefix and length")
_LANDLINE: Final = Rule("landline", "PHONE", "area code and length")
_AREA: Final = r"(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50\d)"
_CLOSE: Final = rf"(?:\) ?-? ?|{SEPARATOR})"
_AREAS: Final = (b"031 032 033 041 042 043 044 051 052 053 054 055 061 062 063 064 070").split()


def _check_mobile(number: Number) -> Hit | None:
    digits = national(number.digits)
    if digits[:2] != b"01" or digits[2] not in b"016789":
        return None
    subscriber = len(digits) - 3
    if (subscriber != 8 and (subscriber != 7 or digits[2] == 48)) or not _is_phone_grouping(number.groups):
        return None
    if not number.is_free or (number.is_plain and not _is_bare_mobile(number, digits)):
        return None
    return (number.start, number.end, _MOBILE, b"+82" + digits[1:])


def _is_phone_grouping(groups: tuple[int, ...]) -> bool:
    return groups[-1] in (4, 7, 8) or len(groups) == 1 or max(groups) == 1


def _is_bare_mobile(number: Number, digits: bytes) -> bool:
    if set(digits) <= {48, 49}:
        return False  # written in binary
    if number.near(_PHONE_WORDS, 60, 40):
        return True
    return not number.is_labelled_otherwise and (len(digits) == 11 or digits[3] > 49)


def _check_landline(number: Number) -> Hit | None:
    digits = national(number.digits)
    area = _area_of(digits)
    if not area or not 7 <= len(digits) - area <= 8 or not _is_phone_grouping(number.groups) or not number.is_free:
        return None
    if number.is_plain and not (number.near(_PHONE_WORDS, 60, 40) or _is_bare_landline(number, digits[area])):
        return None
    return (number.start, number.end, _LANDLINE, b"+82" + digits[1:])


def _is_bare_landline(number: Number, exchange: int) -> bool:
    return number.digits[0] == 48 and exchange > 49 and not number.is_labelled_otherwise


def _area_of(digits: bytes) -> int:
    """Length of the area code, 0 when there is none."""
    if digits.startswith(b"02"):
        return 2
    if digits[:3] in _AREAS:
        return 3
    return 4 if digits.startswith(b"050") else 0


def national(digits: bytes) -> bytes:
    """With the trunk zero in place of the country code."""
    if digits[:2] != b"82":
        return digits
    return digits[2:] if digits[2:3] == b"0" else b"0" + digits[2:]


def _with_country_code(area: str) -> str:
    return rf"(?:\+ ?\(?|\(|{PHONE_LEFT})82\)?{SEPARATOR}?\(?0?\)? ?-?{area}{_CLOSE}?\d{{3,4}}{SEPARATOR}?\d{{4}}"


MOBILE: Final = Detector(
    name="mobile",
    about="Korean mobile numbers (010, 011, 016 to 019), with or without +82, in any grouping.",
    shapes=(
        rf"(?:\(|{PHONE_LEFT})01[016-9]{_CLOSE}?\d{{3,4}}{SEPARATOR}?\d{{4}}",
        _with_country_code("1[016-9]"),
    ),
    checks=dict.fromkeys((10, 11, 12, 13), _check_mobile),
    begins=frozenset((b"01", b"82")),
)
LANDLINE: Final = Detector(
    name="landline",
    about="Korean fixed lines by area code (02, 031 to 064), 070 and 050x. Service numbers (15xx, 16xx, 18xx, 080) "
    "belong to companies and are left.",
    shapes=(
        rf"(?:\(|{PHONE_LEFT})0{_AREA}{_CLOSE}?\d{{3,4}}{SEPARATOR}?\d{{4}}",
        _with_country_code(_AREA),
    ),
    checks=dict.fromkeys((9, 10, 11, 12, 13, 14), _check_landline),
    begins=pairs(2, 7) | {b"82"},
)

# ---- bank account

_BANKS: Final = (
    r"국민|\bKB|신한|우리|하나|농협|\bNH|기업|\bIBK|카카오|카뱅|토스|케이뱅크|\bK뱅크|SC제일|제일|씨티|우체국|새마을(?:금고)?|\bMG|수협|신협|"
    r"부산|대구|\biM|광주|전북|경남|제주|산업|\bKDB|저축|산림조합"
)
_ACCOUNT_WORDS: Final = searcher(
    r"(?i)계좌|은행|뱅크|입금|송금|이체|예금|통장|환불받|농협|우체국|새마을금고|수협|신협|bank|account|\bacct|\ba/c\b|deposit|wire"
    rf"|(?:{_BANKS})[\s:)]{{0,3}}\d|\d[\s(,/]{{0,3}}(?:{_BANKS})"
)
_ACCOUNT_BEFORE: Final = searcher(
    rf"(?i)(?:(?:계좌|통장)(?:번호)?|은행|뱅크|입금|송금|이체|(?:{_BANKS})(?:은행|뱅크|금고|투자|증권)?|"
    r"bank account|account (?:no\.?|num(?:ber)?|#)|acct\.?(?: no\.?)?|a/c)[^0-9A-Za-z]{0,30}$"
)
_ACCOUNT_BEHIND: Final = searcher(
    rf"(?i)^[\s(,/\[]{{0,4}}(?:(?:{_BANKS})(?:은행|뱅크|금고)?|계좌|[가-힣]{{0,6}}은행|"
    r"[가-힣]{0,6}(?:로|으로)? ?(?:입금|송금|이체))"
)
_ACCOUNT_GROUPS: Final = frozenset(  # as the banks write them
    {
        (6, 2, 6),
        (3, 3, 6),
        (4, 3, 6),
        (3, 6, 5),
        (3, 4, 4, 2),
        (3, 2, 6),
        (3, 6, 2, 3),
        (4, 2, 7),
        (4, 4, 4),
        (3, 2, 6, 1),
    }
    | {
        (4, 4, 4, 1),
        (3, 5, 5),
        (3, 3, 7),
        (5, 2, 6),
        (3, 2, 7),
        (4, 3, 7),
        (3, 2, 5, 1),
        (4, 4, 5),
        (3, 4, 6),
        (2, 2, 7),
    }
)
_ACCOUNT: Final = Rule("bank_account", "BANK_ACCOUNT", "length and a word about banking nearby")
_INSTANT: Final = whole(
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-3])(?:[0-5]\d){1,2})?\d{0,3}"
)


def _check_account(number: Number) -> Hit | None:
    groups, piece = number.groups, number.piece
    if not piece[:1].isdigit() or b"." in piece or b"(" in piece or not number.near(_ACCOUNT_WORDS):
        return None
    if not number.is_free or number.is_labelled_otherwise:
        return None
    if groups in _ACCOUNT_GROUPS and b"-" in piece:
        found = True
    elif number.is_plain:
        found = not whole_matches(_INSTANT, number.digits) and _is_account_label(number)
    else:
        found = (b"-" in piece or groups in _ACCOUNT_GROUPS) and _is_account_label(number) and not _is_dated(groups)
    return (number.start, number.end, _ACCOUNT, number.digits) if found else None


def _is_dated(groups: tuple[int, ...]) -> bool:
    """Begins with a date, or is a date and a time of day."""
    return groups[:3] in ((4, 2, 2), (2, 2, 4)) or groups == (6, 6)


def _is_account_label(number: Number) -> bool:
    before = composed(number.text[max(0, number.start - 100) : number.start])
    return has(_ACCOUNT_BEFORE, before) or has(_ACCOUNT_BEHIND, composed(number.text[number.end : number.end + 60]))


_TEN_DIGITS: Final = r"\d(?:[ -]{0,3}\d){9}"
_MONEY_WORDS: Final = (
    r"계좌|은행|뱅크|입금|송금|이체|예금|통장|농협|우체국|새마을|수협|신협|[Bb]ank|[Aa]cc(?:oun)?t|A/C|a/c|BANK|ACC"
)

SPACED_ACCOUNT: Final = (
    r"(?:\d{3} \d{2} \d{6}(?: \d)?|\d{3} \d{3} \d{6}|\d{6} \d{2} \d{6}|\d{4} \d{3} \d{6}|\d{3} \d{6} \d{5}"
    r"|\d{3} \d{6} \d{2} \d{3}|\d{4} \d{2} \d{7}|\d{4} \d{4} \d{4}(?: \d)?|\d{3} \d{4} \d{4} \d{2})\b"
)

BANK_ACCOUNT: Final = Detector(
    name="bank_account",
    about="Korean bank accounts: 10 to 16 digits near a bank's name or a word such as 계좌, 입금, account number.",
    shapes=(
        LEFT + r"\d{2,6}(?: ?- ?\d{1,7}){1,4}",
        LEFT + SPACED_ACCOUNT,
    ),
    checks=dict.fromkeys(range(10, 17), _check_account),
    hints=(
        rf"(?s:(?:{_MONEY_WORDS}).*{_TEN_DIGITS})",
        rf"(?s:{_TEN_DIGITS}.*(?:{_MONEY_WORDS}))",
        rf"(?:{_BANKS})(?:[\s:)]|\\+[nrt]){{0,3}}{_TEN_DIGITS}",
        rf"{_TEN_DIGITS}(?:[\s(,/\[]|\\+[nrt]){{0,4}}(?:{_BANKS})",
    ),
)
