"""What the contract suite showed of each kind, as a table that the documentation holds.

For:      `docs/upstreams.md`: a test compares its table with what came out; `python -m tests.upstreams` runs the suite
          and writes it.
Touches:  nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/upstreams.md"
BEGIN: Final = "<!-- what each kind can do: made by `python -m tests.upstreams` -->\n"
END: Final = "<!-- until here -->\n"
KINDS: Final = ("mock", "http", "https", "grpc", "litellm")  # in this order, those that were tried
YES: Final = "yes"
NO: Final = "–"

CAPABILITIES: Final[Mapping[str, str]] = {
    "plain": "plain answers",
    "verbatim": "a request arrives byte for byte, whatever the gateway does not know of it",
    "stream": "streams",
    "usage": "`usage`, in streams too",
    "choices": "several choices (`n`)",
    "completions": "`/v1/completions`",
    "embeddings": "`/v1/embeddings`",
    "tools": "tool calls, plain and streamed",
    "errors": "errors keep their meaning: whose fault it is, and when to come again",
    "timeout": "heads, answers and streams that are late end by the deadline",
    "cancel": "who leaves frees the server at once, and the next request finds it as before",
    "broken": "a stream that breaks is told as broken, after what came",
    "oversized": "an answer over the limit is refused, and the next one is not",
    "garbage": "what is not of its protocol is refused, and the next answer is not",
    "crossed": "answers under way at once are never crossed",
    "private": "of the caller's headers only the allowed ones travel; no body is logged",
}
"""What a test of the contract may show, by the word of its mark `shows`."""

shows = pytest.mark.shows


@dataclass
class Outcomes:
    """`passed` and `skipped` (with the reason) by capability and kind. What failed is told by its test."""

    passed: set[tuple[str, str]] = field(default_factory=set)
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)

    def note(self, item: pytest.Item, report: pytest.TestReport) -> None:
        mark = item.get_closest_marker("shows")
        if mark is None or not (report.when == "call" or report.skipped):
            return
        (capability,) = mark.args
        assert capability in CAPABILITIES
        assert isinstance(item, pytest.Function)
        cell = str(capability), str(item.callspec.params["kind"])
        if report.passed:
            self.passed.add(cell)
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[cell] = report.longrepr[2].removeprefix("Skipped: ")

    def cell(self, capability: str, kind: str) -> str | None:
        """None when nothing was tried."""
        if (capability, kind) in self.passed:
            return YES
        return NO if (capability, kind) in self.skipped else None

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in KINDS if any(kind == tried for _, tried in (*self.passed, *self.skipped))]


OUTCOMES: Final = pytest.StashKey[Outcomes]()


def read_table(page: str) -> dict[tuple[str, str], str]:
    """The cells of the page's table, by capability and kind."""
    words = {says: word for word, says in CAPABILITIES.items()}
    rows = [_cells(line) for line in _block(page).splitlines() if line.startswith("|")]
    if not rows:
        return {}
    head, _, *body = rows
    return {(words[says], kind): cell for says, *cells in body for kind, cell in zip(head[1:], cells, strict=True)}


def write_table(page: str, outcomes: Outcomes) -> str:
    """The page with what came out. Kinds that were not tried keep their columns."""
    known = read_table(page)
    kinds = [kind for kind in KINDS if kind in outcomes.kinds or any(kind == told for _, told in known)]
    table = {
        (word, kind): outcomes.cell(word, kind) or known.get((word, kind), "")
        for word in CAPABILITIES
        for kind in kinds
    }
    reasons = {f"- {kind}: {why}." for (word, kind), why in outcomes.skipped.items() if table.get((word, kind)) == NO}
    for line in _block(page).splitlines():
        if line.startswith("- ") and any(
            line.startswith(f"- {kind}:") for (_, kind), cell in table.items() if cell == NO
        ):
            reasons.add(line)
    lines = [_row(["what", *kinds]), "|---" * (len(kinds) + 1) + "|"]
    lines += [_row([says, *(table[word, kind] for kind in kinds)]) for word, says in CAPABILITIES.items()]
    block = "".join(f"{line}\n" for line in [*lines, *([""] if reasons else []), *sorted(reasons)])
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{block}{END}{rest.partition(END)[2]}"


def _block(page: str) -> str:
    return page.partition(BEGIN)[2].partition(END)[0]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
