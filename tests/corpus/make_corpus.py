"""Make the labelled corpus from fragments, by a seed. `python -m tests.corpus.make_corpus` writes it as JSON lines.

For:      measuring finders of identifiers. Nothing of it is kept in a file: the same seed makes the same texts.
Touches:  standard output, when run.

The fragments and the makers follow the public formats alone and know no finder's patterns; do not tune them to one.
A prompt is one to three fragments of a language, mostly behind an instruction; four in ten prompts of the corpus (and
some fragments among identifiers) hold nothing but lookalikes. Not covered, because they are not among the types:
names, postal addresses, IP addresses, telephone numbers of other countries without their +code, and Korean 050 relay
numbers.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from random import Random
from typing import Final

from . import accounts, contacts, credentials, fragments_en, fragments_ko, identifiers
from .labels import Kind, Labelled, Language, Span
from .lookalikes import is_accident, noise
from .spelling import Maker, Piece

SEED: Final = 20_240_917
POSITIVES: Final = 1_500
NEGATIVES: Final = 1_100

MAKERS: Final[dict[str, Maker]] = {
    "rrn": identifiers.rrn,
    "foreigner": identifiers.foreigner,
    "passport": identifiers.passport,
    "licence": identifiers.licence,
    "business": identifiers.business,
    "phone": contacts.phone,
    "account": accounts.account,
    "bank_account": accounts.bank_account,
    "intl": contacts.intl_phone,
    "card": accounts.card,
    "iban": accounts.iban,
    "ssn": identifiers.ssn,
    "email": contacts.email,
    "openai": credentials.openai,
    "aws": credentials.aws,
    "aws_secret": credentials.aws_secret,
    "github": credentials.github,
    "jwt": credentials.jwt,
    "pem": credentials.pem,
    "pem_json": credentials.pem_in_json,
}
SLOT: Final = re.compile("«([^»]+)»")
FRAGMENTS: Final[dict[tuple[Language, Kind], dict[str, str]]] = {
    ("ko", "positive"): fragments_ko.POSITIVE,
    ("ko", "negative"): fragments_ko.NEGATIVE,
    ("en", "positive"): fragments_en.POSITIVE,
    ("en", "negative"): fragments_en.NEGATIVE,
}
OPENINGS: Final[dict[Language, tuple[str, ...]]] = {
    "ko": (
        *(
            "다음 내용을 요약해 주세요.\n\n",
            "아래 글을 정중한 메일로 바꿔줘:\n",
            "이거 표로 정리해줘\n\n",
            "번역해줘: ",
            "질문입니다. ",
        ),
        *(
            "[고객 문의]\n",
            "아래 데이터에서 이상한 점을 찾아줘.\n```\n",
            "너는 상담원이야. 답장을 써줘.\n---\n",
            "참고: ",
        ),
    ),
    "en": (
        *("Summarise the following:\n\n", "Rewrite this politely: ", "Turn this into a table.\n\n", "Question: "),
        *(
            "What is wrong here?\n```\n",
            "You are a support agent. Draft a reply.\n---\n",
            "Translate to Korean:\n",
            "FYI ",
        ),
    ),
}
ENDINGS: Final[dict[Language, tuple[str, ...]]] = {
    "ko": ("\n\n감사합니다.", "\n짧게 부탁해.", "\n```", "\n\n두 문장으로 답해줘.", "\n위 내용은 사내용입니다."),
    "en": ("\n\nThanks!", "\nKeep it short.", "\n```", "\n\nAnswer in two sentences.", "\nInternal use only."),
}


def build(seed: int = SEED, positives: int = POSITIVES, negatives: int = NEGATIVES) -> list[Labelled]:
    """The corpus in a fixed order: texts with identifiers, then those without, in both languages, all different."""
    rng = Random(seed)
    corpus: dict[str, Labelled] = {}
    wanted: list[tuple[Kind, int]] = [("positive", positives), ("negative", negatives)]
    for kind, count in wanted:
        for language, name in islice(_turns(rng, kind), count):
            made = _prompt(rng, language, kind, name)
            while made.text in corpus or is_accident(_without_labels(made)):
                made = _prompt(rng, language, kind, name)
            corpus[made.text] = made
    return list(corpus.values())


def _turns(rng: Random, kind: Kind) -> Iterator[tuple[Language, str]]:
    """Every fragment equally often, in an order that mixes them."""
    languages: tuple[Language, Language] = ("ko", "en")
    names = [(language, name) for language in languages for name in FRAGMENTS[language, kind]]
    while True:
        rng.shuffle(names)
        yield from names


def _prompt(rng: Random, language: Language, kind: Kind, name: str) -> Labelled:
    chosen: list[tuple[Kind, str]] = [(kind, name)]
    if rng.random() < 0.3:
        chosen.append((kind, rng.choice(list(FRAGMENTS[language, kind]))))
    if kind == "positive" and rng.random() < 0.3:
        chosen.append(("negative", rng.choice(list(FRAGMENTS[language, "negative"]))))
    rng.shuffle(chosen)
    template = rng.choice(["\n\n", "\n\n---\n\n", "\n"]).join(
        FRAGMENTS[language, part][title] for part, title in chosen
    )
    if rng.random() < 0.6:
        template = rng.choice(OPENINGS[language]) + template
    if rng.random() < 0.25:
        template += rng.choice(ENDINGS[language])
    source = "+".join(f"{language}-{part}-{title}" for part, title in chosen)
    text, spans = render(rng, _laid_out(rng, template))
    return Labelled(text, spans, language, kind, source)


def _laid_out(rng: Random, template: str) -> str:
    """As mail programs and Windows hand text on: quoted, indented, or with carriage returns."""
    draw = rng.random()
    if draw < 0.06:
        return "> " + template.replace("\n", "\n> ")
    if draw < 0.1:
        return "    " + template.replace("\n", "\n    ")
    if draw < 0.15:
        return template.replace("\n", "\r\n")
    return template


def render(rng: Random, template: str) -> tuple[str, tuple[Span, ...]]:
    """Fill the slots of a template; the spans are those of its identifiers."""
    parts: list[str] = []
    spans: list[Span] = []
    size = at = 0
    for slot in SLOT.finditer(template):
        plain = template[at : slot.start()]
        parts.append(plain)
        size += len(plain)
        at = slot.end()
        for text, found in _fill(rng, slot[1]):
            if found:
                spans.append(Span(size, size + len(text), found))
            parts.append(text)
            size += len(text)
    return "".join([*parts, template[at:]]), tuple(spans)


def _fill(rng: Random, slot: str) -> list[Piece]:
    if slot.startswith("="):
        return [(rng.choice(slot[1:].split("|")), None)]
    maker = MAKERS.get(slot.rstrip("!"))
    return maker(rng, not slot.endswith("!")) if maker else [(noise(rng, slot), None)]


def _without_labels(made: Labelled) -> str:
    left, at = [], 0
    for span in made.spans:
        left.append(made.text[at : span.start])
        at = span.end
    return "|".join([*left, made.text[at:]])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the labelled corpus as JSON lines.")
    parser.add_argument("--seed", type=int, default=SEED)
    for made in build(parser.parse_args(arguments).seed):
        sys.stdout.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
