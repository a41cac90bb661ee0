"""The labelled corpus, and how well a finder of identifiers does on it.

For:      tests that hold finders to their recall and precision: `score(finder).render()` is the table to print.
Touches:  nothing; the corpus is made in memory, from `make_corpus`'s seed.

A find counts when it covers every letter and digit of the label, has its type, and goes beyond it by nothing but
separators, a Korean particle behind it, or the region's name before a driver's licence. PHONE and INTL_PHONE stand for
each other for +82 numbers. Each label is found once: a second find of it is a false one.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from .identifiers import REGION_NAMES
from .labels import TYPES, IdentifierType, Kind, Labelled, Language, Span
from .make_corpus import build

__all__ = [
    "TYPES",
    "IdentifierType",
    "Kind",
    "Labelled",
    "Language",
    "Report",
    "Span",
    "Tally",
    "Verdict",
    "load",
    "score",
]

Finder = Callable[[str], Iterable[Span]]

PARTICLES: Final = frozenset(
    (
        "은",
        "는",
        "이",
        "가",
        "을",
        "를",
        "와",
        "과",
        "에",
        "도",
        "만",
        "로",
        "으로",
        "로는",
        "으로는",
        "까지",
        "부터",
        "에서",
    )
) | frozenset(
    ("인데", "이고", "이며", "이야", "이요", "요", "예요", "이에요", "입니다", "라고", "이라고", "에게", "의", "인")
)
AROUND: Final = 24  # code points shown on either side of a miss or a false find


def load() -> list[Labelled]:
    """Freshly made each time, always the same: hold on to it where it is used twice."""
    return build()


@dataclass(slots=True)
class Tally:
    """Of one type: labels, those found, and finds that no label answers to."""

    labels: int = 0
    found: int = 0
    false: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.labels if self.labels else 1.0

    @property
    def precision(self) -> float:
        """1 when nothing was found: then nothing was found wrongly."""
        return self.found / (self.found + self.false) if self.found + self.false else 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A label that was missed, or a find that is false, with the text that it stands in."""

    labelled: Labelled
    span: Span

    def __str__(self) -> str:
        text, span = self.labelled.text, self.span
        before, after = text[max(0, span.start - AROUND) : span.start], text[span.end : span.end + AROUND]
        return f"{span.type:<16} {before!r} >>{text[span.start : span.end]!r}<< {after!r} ({self.labelled.source})"


@dataclass(slots=True)
class Report:
    tallies: dict[IdentifierType, Tally] = field(default_factory=lambda: {kind: Tally() for kind in TYPES})
    misses: list[Verdict] = field(default_factory=list)
    false_finds: list[Verdict] = field(default_factory=list)

    def render(self, listed: int = 20) -> str:
        """A table by type, then up to `listed` misses and false finds each."""
        rows = [f"{'type':<16} {'labels':>6} {'missed':>6} {'false':>6} {'recall':>7} {'precision':>9}"]
        for kind, tally in self.tallies.items():
            missed = tally.labels - tally.found
            counts = f"{kind:<16} {tally.labels:>6} {missed:>6} {tally.false:>6}"
            rows.append(f"{counts} {tally.recall:>7.2%} {tally.precision:>9.2%}")
        for title, verdicts in (("missed", self.misses), ("false", self.false_finds)):
            rows += [f"{title}: {verdict}" for verdict in verdicts[:listed]]
            if len(verdicts) > listed:
                rows.append(f"{title}: and {len(verdicts) - listed} more")
        return "\n".join(rows)


def score(found: Finder, corpus: Sequence[Labelled] | None = None) -> Report:
    """Ask `found` for the identifiers of every text, and hold its answers against the labels."""
    report = Report()
    for labelled in load() if corpus is None else corpus:
        _judge(report, labelled, list(found(labelled.text)))
    return report


def _judge(report: Report, labelled: Labelled, finds: list[Span]) -> None:
    for label in labelled.spans:
        tally = report.tallies[label.type]
        tally.labels += 1
        hit = next((find for find in finds if answers(labelled.text, find, label)), None)
        if hit is None:
            report.misses.append(Verdict(labelled, label))
        else:
            tally.found += 1
            finds.remove(hit)
    for find in finds:
        report.tallies[find.type].false += 1
        report.false_finds.append(Verdict(labelled, find))


def answers(text: str, find: Span, label: Span) -> bool:
    """The find is this label, give or take what may stand around it."""
    if find.type != label.type and not _is_korean_abroad(text, find, label):
        return False
    if find.start >= label.end or find.end <= label.start:
        return False
    lost = text[label.start : find.start] + text[find.end : label.end]  # empty where the find goes beyond the label
    before, after = text[find.start : label.start], text[label.end : find.end]
    if label.type == "DRIVER_LICENSE":
        before = before.removeprefix(next((name for name in REGION_NAMES if before.startswith(name)), ""))
    glued = re.match("[가-힣]*", after)
    if glued and glued[0] in PARTICLES:
        after = after[glued.end() :]
    return not any(map(str.isalnum, lost + before + after))


def _is_korean_abroad(text: str, find: Span, label: Span) -> bool:
    number = unicodedata.normalize("NFKC", text[label.start : label.end])
    return {find.type, label.type} == {"PHONE", "INTL_PHONE"} and re.sub(r"[^\d+]", "", number).startswith("+82")
