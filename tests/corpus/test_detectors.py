"""How well the detectors do on texts that were written without sight of them."""

import sys
from collections.abc import Iterator

import pytest

from nexus_gateway.core.pii import Masker, MaskingConfig
from tests.corpus.corpus import TYPES, Report, Span, score
from tests.corpus.labels import IdentifierType

RECALL, PRECISION = 0.99, 0.97

NAMES: dict[str, IdentifierType] = {  # the corpus's types by detector
    "email": "EMAIL",
    "jwt": "SECRET",
    "private_key": "SECRET",
    "api_key": "SECRET",
    "rrn": "RRN",
    "frn": "FOREIGNER_NUMBER",
    "driver_license": "DRIVER_LICENSE",
    "card": "CARD",
    "mobile": "PHONE",
    "landline": "PHONE",
    "phone": "INTL_PHONE",
    "business_number": "BUSINESS_NUMBER",
    "ssn": "SSN",
    "passport": "PASSPORT",
    "iban": "IBAN",
    "bank_account": "BANK_ACCOUNT",
}


@pytest.fixture(scope="module")
def report() -> Report:
    masker = Masker(MaskingConfig(salt=b"corpus"))

    def found(text: str) -> Iterator[Span]:
        for finding in masker.explain(text):
            yield Span(finding.start, finding.end, NAMES[finding.detector])

    return score(found)


def test_the_figures_are_printed_with_what_was_missed(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{report.render()}\n")
    assert all(tally.labels for tally in report.tallies.values())


@pytest.mark.parametrize("kind", TYPES)
def test_recall_and_precision(kind: IdentifierType, report: Report) -> None:
    tally = report.tallies[kind]
    misses = [miss for miss in report.misses if miss.span.type == kind]
    assert tally.recall >= RECALL, misses[:20]
    false = [find for find in report.false_finds if find.span.type == kind]
    assert tally.precision >= PRECISION, false[:20]
