"""Makers of values that are no identifiers, most of them chosen to resemble one.

For:      the slots of hard negatives, and the surroundings of identifiers in positives.
Touches:  the dice that it is given.

A number that by accident is a valid card or resident number is drawn again: nobody could call it a false find. Ten
digits are not: a business number of bare digits is one by its context only, and timestamps have ten digits too.
Left out as ambiguous: documented example keys, git@host addresses, passwords, masked e-mail addresses.
"""

import base64
import datetime
import re
import uuid
from collections.abc import Callable
from random import Random
from typing import Final

from . import formats
from .accounts import IBANS
from .credentials import ALPHANUMERIC, BASE64
from .identifiers import business_digits
from .spelling import digits, in_fours, letters, split

HEX: Final = "0123456789abcdef"
Noise = Callable[[Random], str]

KO_NAMES: Final = (
    *("김민준", "이서연", "박지호", "최하은", "정도현", "강지우", "조유나", "윤성민", "장혜진", "임태양"),
    *("한은지", "오우진", "서나리", "신재현", "남궁민수", "황보라"),
)
EN_NAMES: Final = (
    *("Anna Meyer", "John Whitfield", "Priya Raman", "Olivier Dubois", "Maria Garcia", "Sofia Rossi", "Thu Nguyen"),
    *("Lars Berg", "Minjun Kim", "Grace Lee", "Daniel Okafor", "Hannah Schulz", "Tom Baker", "Yuki Tanaka"),
)
KO_COMPANIES: Final = (
    *("(주)한빛로지스", "미래테크 주식회사", "세종메디컬", "동방유통", "㈜푸른식품", "대한기전", "주식회사 나래소프트"),
    *("성신무역", "가온건설", "우리동네약국", "한결회계법인", "에이원물산"),
)
EN_COMPANIES: Final = (
    *("Northwind Freight", "Acme Labs", "Brightwater Ltd", "Kestrel AI", "Lindqvist AB", "Parcelo", "Hanbit Logistics"),
    *("Mirae Tech", "Blue Harbor Clinic", "Osprey Insurance", "Fairfield Foods"),
)


def is_accident(text: str) -> bool:
    """Some run of digits in it is a valid identifier by its digits alone."""
    runs = re.findall(r"\d(?:[ .-]?\d)*", text)
    numbers = [re.sub(r"\D", "", run) for run in runs] + re.findall(r"\d+", text)
    return any(
        formats.is_card(number) or (len(number) == 13 and formats.is_resident_like(number)) for number in numbers
    )


def moment(rng: Random) -> datetime.datetime:
    return datetime.datetime(2023, 1, 1) + datetime.timedelta(milliseconds=rng.randrange(3 * 365 * 86_400_000))


def date(rng: Random) -> str:
    shapes = ["%Y-%m-%d", "%Y.%m.%d", "%Y/%m/%d", "%y-%m-%d", "%Y%m%d", "%y%m%d", "%Y. %m. %d.", "%d-%b-%Y", "%m/%d/%Y"]
    return moment(rng).strftime(rng.choice(shapes))


def ko_date(rng: Random) -> str:
    at = moment(rng)
    return rng.choice([f"{at.year}년 {at.month}월 {at.day}일", f"{at.month}월 {at.day}일", at.strftime("%Y.%m.%d")])


def timestamp(rng: Random) -> str:
    at = moment(rng)
    shapes = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+09:00", "%d/%b/%Y:%H:%M:%S +0900"]
    shapes += ["%a, %d %b %Y %H:%M:%S GMT", "%Y%m%d%H%M%S", "%Y%m%d-%H%M%S", "%y%m%d-%H%M%S"]
    shapes += [f"%Y-%m-%d %H:%M:%S,{at.microsecond // 1000:03d}"]
    return at.strftime(rng.choice(shapes))


def epoch(rng: Random) -> str:
    return str(rng.randint(1_680_000_000, 1_780_000_000))


def epoch_ms(rng: Random) -> str:
    return str(rng.randint(1_680_000_000_000, 1_780_000_000_000))


def clock(rng: Random) -> str:
    return moment(rng).strftime(rng.choice(["%H:%M", "%H:%M:%S"]))


def order(rng: Random) -> str:
    day = moment(rng)
    forms = [
        f"{day:%Y%m%d}-{digits(rng, 7)}",
        f"{day:%Y%m%d}{digits(rng, 8)}",
        f"ORD-{day:%Y}-{digits(rng, 6)}",
        f"SO{digits(rng, 10, '123456789')}",
        f"{rng.randint(2, 9)}1000{digits(rng, 9)}",
        f"{digits(rng, 3, '1234')}-{digits(rng, 7)}-{digits(rng, 7)}",
        f"#{digits(rng, 5, '123456789')}",
        f"PO-{digits(rng, 3)}-{digits(rng, 5)}",
    ]
    return rng.choice(forms)


def tracking(rng: Random) -> str:
    forms = [
        digits(rng, 12, "3456"),
        "-".join(split(digits(rng, 12, "3456"), [4, 4, 4])),
        f"1Z{letters(rng, 6, ALPHANUMERIC[:26] + '0123456789')}{digits(rng, 10)}",
        f"EG{digits(rng, 9)}KR",
        f"RR{digits(rng, 9)}DE",
        digits(rng, 10, "56789"),
        f"JD01{digits(rng, 14)}",
        f"9400 1{digits(rng, 3)} {digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)} {digits(rng, 2)}",
    ]
    return rng.choice(forms)


def version(rng: Random) -> str:
    a, b, c, d = (rng.randint(0, 40) for _ in range(4))
    forms = [f"{a}.{b}.{c}", f"v{a}.{b}.{c}-rc.{d}", f"{a}.{b}.{c}-{d}", f"10.0.{c}-{d}", f"{a}.{b}.{c}+build.{d}"]
    forms += [f"1:{a}.{b}.{c}-{d}ubuntu0.1", f"{moment(rng):%Y.%m.%d}-{d}", f"10.0.19045.{digits(rng, 4, '1234')}"]
    return rng.choice(forms)


def article(rng: Random) -> str:
    """Numbers of things, grouped as telephone and licence numbers are, but joined to more than those have."""
    forms = [
        f"A010-{digits(rng, 4)}-{digits(rng, 4)}",
        f"02-{digits(rng, 4)}-{digits(rng, 4)}-{letters(rng, 2)}",
        f"SKU031-{digits(rng, 2)}-{digits(rng, 4)}",
        f"KR010-{digits(rng, 4)}-{digits(rng, 4)}-B",
        f"{digits(rng, 3, '345')}-{digits(rng, 4)}-{digits(rng, 2)}-{digits(rng, 3)}",
        f"P{digits(rng, 3)}-{digits(rng, 3)}-{digits(rng, 4)}",
        f"{rng.choice('789')}{digits(rng, 1)}-{digits(rng, 2)}-{digits(rng, 6)}-{digits(rng, 2)}",
        f"{rng.choice(['000', '666'])}-{digits(rng, 2)}-{digits(rng, 4)}",
        f"{digits(rng, 5, '123456789')}-{digits(rng, 4)}",
        f"X{digits(rng, 8)}",
    ]
    return rng.choice(forms)


def bad_card(rng: Random) -> str:
    """In a card's range and grouping, with a wrong check digit."""
    payload = rng.choice(["4", "51", "53", "55", "62", "65"])
    payload += digits(rng, 15 - len(payload))
    wrong = (int(formats.luhn_check_digit(payload)) + rng.randint(1, 9)) % 10
    return rng.choice(["-", " ", ""]).join(split(f"{payload}{wrong}", [4, 4, 4, 4]))


def bad_rrn(rng: Random) -> str:
    """Grouped as a resident number, on a day that no calendar has."""
    month, day = rng.choice(
        [(rng.randint(13, 99), rng.randint(1, 28)), (rng.randint(1, 12), rng.randint(32, 99)), (2, 30)]
    )
    return f"{digits(rng, 2)}{month:02d}{day:02d}-{digits(rng, 7, '1234')}"


def bad_business(rng: Random) -> str:
    number = business_digits(rng)
    wrong = (int(number[9]) + rng.randint(1, 9)) % 10
    return "-".join(split(f"{number[:9]}{wrong}", [3, 2, 5]))


def bad_iban(rng: Random) -> str:
    size = len(IBANS["DE"])
    while True:
        number = f"DE{digits(rng, 2)}{digits(rng, size)}"
        if formats.mod97(number) != 1:
            return in_fours(number, rng.choice([" ", ""]))


def barcode(rng: Random) -> str:
    payload = rng.choice(["880", "880", "400", "501", "076"]) + digits(rng, 9)
    return payload + formats.ean_check_digit(payload)


def isbn(rng: Random) -> str:
    payload = f"978{rng.choice(['89', '11', '0'])}"
    payload += digits(rng, 12 - len(payload))
    number = payload + formats.ean_check_digit(payload)
    return rng.choice([number, f"{number[:3]}-{number[3:5]}-{number[5:8]}-{number[8:12]}-{number[12]}"])


def amount(rng: Random) -> str:
    return f"{rng.randint(1, 99_999) * rng.choice([10, 100, 1_000, 10_000]):,}"


def mac(rng: Random) -> str:
    return rng.choice([":", "-"]).join(letters(rng, 2, HEX) for _ in range(6))


def address(rng: Random) -> str:
    """An IP address: not among the types, and not hidden unless an operator asks."""
    v4 = ".".join(str(rng.randint(1, 254)) for _ in range(4))
    return rng.choice(
        [v4, f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}", f"{v4}:8443", f"{v4}/24"]
    )


def coordinates(rng: Random) -> str:
    north, east = 33 + rng.random() * 5, 126 + rng.random() * 3
    return rng.choice([f"{north:.6f}, {east:.6f}", f"{north:.4f},{east:.4f}", f"({north:.7f}, {east:.7f})"])


def service(rng: Random) -> str:
    """Numbers of companies and emergency services belong to nobody in particular."""
    head = rng.choice(["1588", "1577", "1544", "1566", "1600", "1661", "1899"])
    return rng.choice([f"{head}-{digits(rng, 4)}", f"{head}-{digits(rng, 4)}", "119", "112", "1339", "국번 없이 120"])


def en_service(rng: Random) -> str:
    return rng.choice(["911", "311", "extension 4021", "ext. 220", "short code 40404", "option 3"])


STARRED: Final[dict[str, Noise]] = {  # masked before it reached us: nothing is left to hide
    "starredrrn": lambda rng: f"{digits(rng, 2)}0{digits(rng, 1, '12345')}12-{digits(rng, 1, '1234')}******",
    "starredphone": lambda rng: f"010-****-{digits(rng, 4)}",
    "starredcard": lambda rng: f"{rng.choice(['****', digits(rng, 4, '45')])}-****-****-{digits(rng, 4)}",
    "starredssn": lambda rng: f"***-**-{digits(rng, 4)}",
}


def placeholder(rng: Random) -> str:
    kind = rng.choice(["EMAIL", "PHONE", "RRN", "CARD", "PERSON", "SECRET"])
    return f"[{kind}_{letters(rng, 16, 'ABCDEFGHJKMNPQRSTVWXYZ23456789')}]"


def no_key(rng: Random) -> str:
    return rng.choice(
        ["sk-...", "sk-…", "sk-<your key>", "AKIA...", "AKIA1234", "ghp_...", "ghp_<token>", "eyJ...", "sk-***"]
    )


def blob(rng: Random) -> str:
    """The beginning of an image, as base64."""
    starts = [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01", b"GIF89a\x01\x00"]
    return base64.b64encode(rng.choice(starts) + rng.randbytes(96)).decode()


def hexdump(rng: Random) -> str:
    rows = []
    for row in range(3):
        octets = rng.randbytes(16)
        shown = "".join(chr(octet) if 48 <= octet < 58 or 97 <= octet < 123 else "." for octet in octets)
        rows.append(f"{row * 16:08x}  {octets[:8].hex(' ')}  {octets[8:].hex(' ')}  |{shown}|")
    return "\n".join(rows)


NOISE: Final[dict[str, Noise]] = {
    "name": lambda rng: rng.choice(KO_NAMES),
    "enname": lambda rng: rng.choice(EN_NAMES),
    "company": lambda rng: rng.choice(KO_COMPANIES),
    "encompany": lambda rng: rng.choice(EN_COMPANIES),
    "date": date,
    "kodate": ko_date,
    "timestamp": timestamp,
    "epoch": epoch,
    "epochms": epoch_ms,
    "clock": clock,
    "order": order,
    "tracking": tracking,
    "version": version,
    "article": article,
    "badcard": bad_card,
    "badrrn": bad_rrn,
    "badbusiness": bad_business,
    "badiban": bad_iban,
    "barcode": barcode,
    "isbn": isbn,
    "amount": amount,
    "mac": mac,
    "ip": address,
    "coordinates": coordinates,
    "service": service,
    "enservice": en_service,
    **STARRED,
    "placeholder": placeholder,
    "nokey": no_key,
    "blob": blob,
    "hexdump": hexdump,
    "certificate": lambda rng: "\n".join(letters(rng, 64, BASE64) for _ in range(4)),
    "uuid": lambda rng: str(uuid.UUID(bytes=rng.randbytes(16), version=4)),
    "sha": lambda rng: letters(rng, rng.choice([7, 12, 40]), HEX),
    "sha256": lambda rng: letters(rng, 64, HEX),
    "md5": lambda rng: letters(rng, 32, HEX),
    "hex": lambda rng: f"0x{letters(rng, rng.choice([8, 16]), HEX)}",
    "long": lambda rng: digits(rng, rng.choice([8, 11, 17, 18, 19]), "12"),
    "id": lambda rng: digits(rng, rng.choice([4, 6, 7, 8]), "123456789"),
    "n": lambda rng: str(rng.randint(1, 99)),
    "ms": lambda rng: f"{rng.random() * 900:.3f}",
}


def noise(rng: Random, name: str) -> str:
    while True:
        text = NOISE[name](rng)
        if not is_accident(text):
            return text
