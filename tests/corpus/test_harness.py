"""The corpus keeps its own rules, and the scoring tells a good finder from a bad one."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from . import formats, fragments_en, fragments_ko
from .corpus import TYPES, Labelled, Span, load, score
from .make_corpus import build, main


@pytest.fixture(scope="module")
def corpus() -> list[Labelled]:
    return load()


@pytest.fixture(scope="module")
def labels(corpus: list[Labelled]) -> dict[str, list[str]]:
    """Letters and digits of every labelled value by type, in NFKC and capitals."""
    bare: dict[str, list[str]] = {kind: [] for kind in TYPES}
    for labelled in corpus:
        for span in labelled.spans:
            value = unicodedata.normalize("NFKC", labelled.text[span.start : span.end]).upper()
            bare[span.type].append("".join(filter(str.isalnum, value)))
    return bare


def test_it_is_large_and_two_in_five_texts_hold_nothing(corpus: list[Labelled]) -> None:
    negatives = [labelled for labelled in corpus if labelled.kind == "negative"]
    assert len(corpus) >= 2_000
    assert len(negatives) >= 0.4 * len(corpus)
    assert len({labelled.text for labelled in corpus}) == len(corpus)
    for language in ("ko", "en"):
        assert sum(labelled.language == language for labelled in corpus) >= 0.4 * len(corpus)


def test_a_text_is_negative_exactly_when_it_has_no_label(corpus: list[Labelled]) -> None:
    assert all((labelled.kind == "negative") == (not labelled.spans) for labelled in corpus)


def test_every_type_is_labelled_often_enough_to_measure_one_percent(labels: dict[str, list[str]]) -> None:
    assert min(len(values) for values in labels.values()) >= 100


def test_every_fragment_is_used(corpus: list[Labelled]) -> None:
    used = Counter(part for labelled in corpus for part in labelled.source.split("+"))
    for language, fragments in (("ko", fragments_ko), ("en", fragments_en)):
        for kind, named in (("positive", fragments.POSITIVE), ("negative", fragments.NEGATIVE)):
            assert all(used[f"{language}-{kind}-{name}"] >= 5 for name in named)


def test_labels_lie_inside_the_text_in_order_and_are_whole_words(corpus: list[Labelled]) -> None:
    for labelled in corpus:
        end = 0
        for span in labelled.spans:
            assert end <= span.start < span.end <= len(labelled.text)
            assert span.type in TYPES
            around = labelled.text[max(0, span.start - 1) : span.start] + labelled.text[span.end : span.end + 1]
            assert not re.search("[0-9A-Za-z]", around), labelled.text
            end = span.end


def test_no_slot_is_left_unfilled(corpus: list[Labelled]) -> None:
    assert not [labelled.source for labelled in corpus if re.search("[«»]", labelled.text)]


def test_numbers_carry_the_check_digit_that_their_format_has(labels: dict[str, list[str]]) -> None:
    assert all(formats.is_card(number) for number in labels["CARD"])
    assert all(formats.mod97(number) == 1 for number in labels["IBAN"])
    assert all(formats.business_check_digit(number[:9]) == number[9] for number in labels["BUSINESS_NUMBER"])
    for kind, sexes in (("RRN", "1234"), ("FOREIGNER_NUMBER", "5678")):
        assert all(len(number) == 13 and number[6] in sexes for number in labels[kind])
        assert all(formats.birth_date(number) for number in labels[kind])
        recognisable = sum(formats.is_resident_like(number) for number in labels[kind])
        assert recognisable >= 0.9 * len(labels[kind])  # the rest: adults given a new number since October 2020


@pytest.mark.parametrize(
    ("check", "number"),
    [
        (formats.is_card, "4111111111111111"),
        (formats.is_card, "378282246310005"),
        (lambda number: formats.mod97(number) == 1, "DE89370400440532013000"),
        (lambda number: formats.mod97(number) == 1, "GB82WEST12345698765432"),
        (lambda number: formats.business_check_digit(number[:9]) == number[9], "1248100998"),
        (lambda number: formats.business_check_digit(number[:9]) == number[9], "2208162517"),
        (lambda number: formats.rrn_check_digit(number[:12]) == number[12], "9001011234568"),
        (lambda number: formats.ean_check_digit(number[:12]) == number[12], "9780306406157"),
    ],
)
def test_the_arithmetic_agrees_with_published_examples(check: Callable[[str], bool], number: str) -> None:
    assert check(number)


def test_the_same_seed_makes_the_same_corpus() -> None:
    assert build(7, 40, 30) == build(7, 40, 30)
    assert build(7, 40, 30) != build(8, 40, 30)


def test_a_perfect_finder_scores_one(corpus: list[Labelled]) -> None:
    known = {labelled.text: labelled.spans for labelled in corpus}
    report = score(known.__getitem__, corpus)
    assert all((tally.recall, tally.precision) == (1, 1) for tally in report.tallies.values())
    assert not report.misses
    assert not report.false_finds


def test_an_empty_finder_recalls_nothing(corpus: list[Labelled]) -> None:
    report = score(lambda text: (), corpus)
    assert all(tally.recall == 0 for tally in report.tallies.values())
    assert len(report.misses) == sum(len(labelled.spans) for labelled in corpus)


def test_a_finder_that_marks_whole_texts_is_never_right(corpus: list[Labelled]) -> None:
    report = score(lambda text: [Span(0, len(text), "EMAIL")], corpus)
    assert report.tallies["EMAIL"].precision < 0.01


def _one(text: str, value: str, kind: str) -> Labelled:
    start = text.index(value)
    span = Span(start, start + len(value), next(known for known in TYPES if known == kind))
    return Labelled(text, (span,), "ko", "positive", "test")


@pytest.mark.parametrize(
    ("text", "value", "kind", "found", "as_kind", "right"),
    [
        ("번호는 (010-1234-5678)로", "010-1234-5678", "PHONE", "(010-1234-5678)", "PHONE", True),
        ("번호는 010-1234-5678로 ", "010-1234-5678", "PHONE", "010-1234-5678로", "PHONE", True),
        ("번호는 010-1234-5678로 ", "010-1234-5678", "PHONE", "는 010-1234-5678", "PHONE", False),
        ("번호는 010-1234-5678 호출", "010-1234-5678", "PHONE", "010-1234-5678 호출", "PHONE", False),
        ("번호는 010-1234-5678로 ", "010-1234-5678", "PHONE", "010-1234-567", "PHONE", False),
        ("번호는 010-1234-5678로 ", "010-1234-5678", "PHONE", "010-1234-5678", "INTL_PHONE", False),
        ("to (+82) 10-1234-5678", "(+82) 10-1234-5678", "PHONE", "+82) 10-1234-5678", "INTL_PHONE", True),
        ("to +82 10-1234-5678", "+82 10-1234-5678", "PHONE", "10-1234-5678", "PHONE", False),
        ("면허 서울 12-345678-90", "12-345678-90", "DRIVER_LICENSE", "서울 12-345678-90", "DRIVER_LICENSE", True),
        ("면허 서울 12-345678-90", "12-345678-90", "DRIVER_LICENSE", "면허 서울 12-345678-90", "DRIVER_LICENSE", False),
        ("write a@b.kr.", "a@b.kr", "EMAIL", "a@b.kr.", "EMAIL", True),
        ("user=a@b.kr", "a@b.kr", "EMAIL", "user=a@b.kr", "EMAIL", False),
    ],
)
def test_a_find_may_exceed_its_label_by_separators_and_particles_alone(
    text: str, value: str, kind: str, found: str, as_kind: str, right: bool
) -> None:
    labelled = _one(text, value, kind)
    report = score(lambda _: _one(text, found, as_kind).spans, [labelled])
    assert len(report.misses) == len(report.false_finds) == (0 if right else 1)


def test_a_label_is_found_once() -> None:
    labelled = _one("write a@b.kr.", "a@b.kr", "EMAIL")
    twice = [*labelled.spans, replace(labelled.spans[0], end=labelled.spans[0].end + 1)]
    tally = score(lambda _: twice, [labelled]).tallies["EMAIL"]
    assert (tally.labels, tally.found, tally.false) == (1, 1, 1)


def test_the_report_names_what_was_missed_and_what_is_false() -> None:
    labelled = _one("write a@b.kr.", "a@b.kr", "EMAIL")
    shown = score(lambda text: [Span(0, 5, "CARD")], [labelled]).render()
    assert re.search(r"^EMAIL +1 +1 +0 +0\.00% +100\.00%$", shown, re.MULTILINE)
    assert re.search(r"^missed: EMAIL .*a@b\.kr", shown, re.MULTILINE)
    assert re.search(r"^false: CARD .*write", shown, re.MULTILINE)


def test_the_script_writes_one_text_a_line(capsys: pytest.CaptureFixture[str], corpus: list[Labelled]) -> None:
    main([])
    assert capsys.readouterr().out.count("\n") == len(corpus)
