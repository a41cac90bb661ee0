"""What each detector finds, and what looks like it and is left. More of both is in the labelled corpus."""

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban as stdnum_iban
from stdnum import luhn
from stdnum.iso7064 import mod_97_10
from stdnum.kr import rrn as stdnum_rrn

from nexus_gateway.core.pii.detectors import DETECTORS, about
from nexus_gateway.core.pii.international import is_luhn, is_mod97
from nexus_gateway.core.pii.korean import is_business_number, registration_check_digit

from .samples import MASKER, digits

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc+/=\n-----END RSA PRIVATE KEY-----"

FOUND = [
    ("rrn", "900101-1234567"),
    ("rrn", "제 번호는 [900101-1234567]입니다"),
    ("rrn", "[900101 - 2234567]로"),
    ("rrn", "주민등록번호 [9001011234567]"),
    ("rrn", "[201105-4123456] 아이"),
    ("rrn", "주민번호[９００１０１－１２３４５６７]"),
    ("rrn", "주민번호: [9 0 0 1 0 1 - 1 2 3 4 5 6 7]"),
    ("rrn", "[9710131019901]"),
    ("frn", "외국인등록번호 [900101-5234567]"),
    ("frn", "[850615-6123456]"),
    ("passport", "여권번호 [M12345678]"),
    ("passport", "my passport is [M123A4567]."),
    ("passport", "[S12345678] 여권으로 출국"),
    ("passport", "Passport No. [AB1234567]"),
    ("driver_license", "[11-22-123456-78]"),
    ("driver_license", "운전면허 [13 05 654321 01]"),
    ("driver_license", "[서울 95-123456-78]"),
    ("driver_license", "면허번호: [112212345678]"),
    ("business_number", "사업자등록번호 [116-82-00276]"),
    ("business_number", "[220-81-62517]"),
    ("mobile", "[010-1234-5678]로 전화"),
    ("mobile", "[01012345678]"),
    ("mobile", "[010 1234 5678]"),
    ("mobile", "[010.1234.5678]"),
    ("mobile", "[(010)1234-5678]"),
    ("mobile", "[011-123-4567]"),
    ("mobile", "[+82 10-1234-5678]"),
    ("mobile", "[+82-(0)10-1234-5678]"),
    ("mobile", "[+821012345678]"),
    ("mobile", "[82-10-1234-5678]"),
    ("mobile", "Tel[010-1234-5678]"),
    ("mobile", "번호는 [0 1 0 1 2 3 4 5 6 7 8]"),
    ("landline", "[02-123-4567]"),
    ("landline", "[(031) 123-4567]"),
    ("landline", "[064) 1234-5678]"),
    ("landline", "[070-1234-5678]"),
    ("landline", "[0507-1234-5678]"),
    ("landline", "[+82 2 1234 5678]"),
    ("landline", "대표전화 [0212345678]"),
    ("bank_account", "국민은행 [123456-78-123456]"),
    ("bank_account", "신한 [110-123-456789]"),
    ("bank_account", "[3333-01-1234567] 카카오뱅크"),
    ("bank_account", "농협 [302-1234-5678-91]로 입금"),
    ("bank_account", "계좌번호: [1002123456789]"),
    ("bank_account", "계좌 [110 123 456789]"),
    ("bank_account", "account number [110-123-456789]"),
    ("bank_account", "신한 [110-12-345678]"),
    ("email", "메일은[kim@example.com]입니다"),
    ("email", "[kim.lee+tag@sub.example.co.kr]."),
    ("email", "<[kim@example.com]>"),
    ("email", "[홍길동@회사.한국]으로"),
    ("email", "[josé@exämple.de]"),
    ("email", "[почта@пример.рф]"),
    ("email", "[kim@xn--9d0bm53a.xn--3e0b707e]"),
    ("email", "[ｋｉｍ＠ｅｘａｍｐｌｅ．ｃｏｍ]"),
    ("email", "연락처[01012345678@example.com]"),
    ("email", "mailto:[kim@example.com]"),
    ("email", "[kim@example.com](김)"),
    ("phone", "[+1 (415) 555-2671] 2024"),
    ("phone", "[+44 20 7946 0958]"),
    ("phone", "[+44 (0)20 7946 0958]"),
    ("phone", "[+81-90-1234-5678]"),
    ("phone", "[+8613800138000]"),
    ("phone", "[0044 20 7946 0958]"),
    ("card", "[4111 1111 1111 1111]"),
    ("card", "[4111-1111-1111-1111] 12/27"),
    ("card", "[5555555555554444]"),
    ("card", "[3782 822463 10005]"),
    ("card", "1234 5678 [4111 1111 1111 1111] [5555 5555 5555 4444] 9999"),
    ("card", "[9410 0198 4097 6869]. 2024"),
    ("card", "2024 [9410-0198-4097-6869]"),
    ("card", "[9410 0198 4097 6869] 2024-11-24"),
    ("rrn", "주민등록번호 [0001013000008] 2024-11-24"),
    ("phone", "[0044 20 7946 0958] 2024-11-24"),
    ("ssn", "[007-56-6127] 3. 2024"),
    ("iban", "[ⅮE92449245755724158969]"),
    ("iban", "[GB82 WEST 1234 5698 7654 32] AND"),
    ("iban", "[DE89370400440532013000]"),
    ("iban", "[nl91abna0417164300]"),
    ("ssn", "[123-45-6789]"),
    ("ssn", "SSN [123 45 6789]"),
    ("ssn", "social security number [123456789]"),
    ("api_key", "[sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12_Mn34]"),
    ("api_key", "key=[sk-Ab12Cd34Ef56Gh78Ij90Kl12Mn34]"),
    ("api_key", "[AKIAIOSFODNN7ABCDEFG]"),
    ("api_key", "aws_secret_access_key = [wJalrXUtnFEMI/K7MDENG/bPxRfiCYzExampleK2]"),
    ("api_key", '"SecretAccessKey": "[wJalrXUtnFEMI/K7MDENG/bPxRfiCYzExampleK2]"'),
    ("api_key", "[ghp_Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78]"),
    ("api_key", "[github_pat_11ABCDEFG0Ab12Cd34Ef56_Gh78Ij90Kl12Mn34Op56]"),
    ("api_key", "[xoxb-123456789012-Ab12Cd34Ef56]"),
    ("api_key", "[AIzaSyA1B2C3D4E5F6G7H8I9J0K1L2M3N4O5P6Q]"),
    ("jwt", f"Bearer [{JWT}]"),
    ("private_key", f"[{PEM}] end"),
    ("private_key", "[-----BEGIN PRIVATE KEY-----\nQUJDREVG]\n\n(cut off)"),
    ("ip", "from [8.8.8.8]:443"),
    ("ip", "[2001:4860:4860::8888]"),
]

LEFT = [
    "2024-11-24 10:23:45.123",
    "epoch 1700000000123 and 1704067200000",
    "주문번호 20240115-1234567",
    "주문번호: 240115-3234567",
    "운송장번호 6012-3456-7890",
    "법인등록번호 110111-1234567",
    "바코드 8801043012345",
    "990230-1234567",
    "901301-1234567",
    "9900101-1234567",
    "900101-12345678",
    "v1.2.3.4, 10.20.30-rc.1, 3.14159265358979",
    "550e8400-e29b-41d4-a716-446655440000",
    "550e8400-0101-1234-5678-446655440000",
    "0101010101010101 and 01010101010",
    "1,234,567,890원 12345678901원",
    "1588-1234",
    "SKU M12345678, 모델 S123A4567",
    "123-45-67890",
    "4111111111111112",
    "IMEI 356938035643809",
    "9400 1123 4567 8908 0000 03",
    "GB82 WEST 1234 5698 7654 33",
    "000-12-3456 666-12-3456 900-12-3456 123-00-4567",
    "git@github.com:org/repo.git",
    "ssh://git@host.com/x postgres://user:pass@db.example.com/x",
    "icon@2x.png react@18.2.0 X@W.sum() @app.route('/x')",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx sk-proj-your-api-key-goes-here-now",
    "task-Ab12Cd34Ef56Gh78Ij90Kl12",
    "git 2f1e8c7b5a9d3e4f6a7b8c9d0e1f2a3b4c5d6e7f",
    "secret sha 2f1e8c7b5a9d3e4f6a7b8c9d0e1f2a3b4c5d6e7f",
    "eyJhbGciOiJub3QganNvbg.eyJ.x and eyJhbGci",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "192.168.0.1 10.0.0.1 127.0.0.1 ::1 fe80::1 version 8.8.8.8",
    "0x1234567890 1e10 #1234567890",
    "+1234567 +09:00 C++11",
    "국민은행 2024-01-15 14:30 입금 50,000원",
    "은행 승인번호 12345678901",
    "900101-1****** 010-****-5678",
    "img_20240101_1234567.png",
]


@pytest.mark.parametrize(("detector", "marked"), FOUND)
def test_found_whole_and_by_the_right_detector(detector: str, marked: str) -> None:
    begins = "[" if marked.count("[") else ""
    text = marked.replace("[", "").replace("]", "")
    expected = [part.split("]")[0] for part in marked.split("[")[1:]] if begins else [text]
    findings = MASKER.explain(text)
    assert [text[found.start : found.end] for found in findings] == expected
    assert {found.detector for found in findings} == {detector}
    assert all(found.why for found in findings)


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert [text[found.start : found.end] for found in MASKER.explain(text)] == []


@given(st.sampled_from([text for _, text in FOUND]), digits(3))
def test_glued_to_a_longer_number_it_is_none(marked: str, more: str) -> None:
    text = marked.replace("[", "").replace("]", "")
    found = MASKER.explain(text)
    if len(found) != 1 or found[0].type not in (
        "RRN",
        "FRN",
        "PHONE",
        "CARD",
        "SSN",
        "BUSINESS_NUMBER",
        "DRIVER_LICENSE",
    ):
        return
    longer = text[: found[0].end] + more + text[found[0].end :]
    assert all(again.end != found[0].end for again in MASKER.explain(longer))


@given(digits(16))
def test_luhn_agrees_with_stdnum(number: str) -> None:
    assert is_luhn(number.encode()) == luhn.is_valid(number)


@given(st.dates(min_value=date(1930, 1, 1), max_value=date(2020, 1, 1)), digits(6))
def test_the_resident_check_digit_agrees_with_stdnum(born: date, rest: str) -> None:
    number = f"{born:%y%m%d}{1 if born.year < 2000 else 3}{rest}"
    assert str(registration_check_digit(number.encode())) == stdnum_rrn.calc_check_digit(number[:12])


@given(digits(18))
def test_the_iban_check_agrees_with_stdnum(bban: str) -> None:
    number = "DE" + mod_97_10.calc_check_digits(bban + "DE") + bban
    assert stdnum_iban.is_valid(number)
    assert is_mod97(number.encode())
    assert not is_mod97((number[:-1] + str((int(number[-1]) + 1) % 10)).encode())


@pytest.mark.parametrize(("number", "valid"), [("1168200276", True), ("2208162517", True), ("1234567890", False)])
def test_the_business_check_digit(number: str, *, valid: bool) -> None:
    assert is_business_number(number.encode()) is valid


@given(
    st.lists(
        st.sampled_from([*"0123456789 -.()+/@:_가a", "010", "82", "00", "+1", "4111 ", "은행", "여권", "sk-", "eyJ"]),
        max_size=60,
    )
)
def test_no_text_whatever_makes_a_detector_fail(parts: list[str]) -> None:
    text = "".join(parts)
    end = 0
    for found in MASKER.explain(text):
        assert end <= found.start < found.end
        end = found.end


def test_every_detector_says_what_it_finds_here_and_in_the_documents() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "privacy.md").read_text()
    for name in DETECTORS:
        assert about(name).endswith(".")
        assert f"| `{name}` |" in documented


def test_findings_are_fit_to_be_shown() -> None:
    (finding,) = MASKER.explain("😀 메일 kim@example.com")
    assert (finding.start, finding.end, finding.type) == (5, 20, "EMAIL")
    json.dumps(finding)
