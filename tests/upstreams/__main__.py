"""Runs the contract suite and writes what came out into docs/upstreams.md: `python -m tests.upstreams`.

Where LiteLLM is installed (`.venv/litellm/bin/python`) that is its row alone; the others keep theirs.

For:      maintainers who changed what a kind of upstream can do. Arguments are pytest's.
Touches:  that page, unless a test failed.
"""

import sys
from importlib.util import find_spec
from typing import Final

import pytest

from .outcomes import OUTCOMES, PAGE, ROOT, Outcomes, write_table

ROOM: Final = "upstreams" if find_spec("litellm") is None else "litellm"
SUITE: Final = ROOT / "tests" / ROOM / "test_contract.py"


class Taking:
    """Takes the outcomes before pytest forgets them."""

    outcomes = Outcomes()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.outcomes = session.config.stash[OUTCOMES]


def main() -> int:
    taking = Taking()
    status = pytest.main([str(SUITE), "-k", "not on_the_page", *sys.argv[1:]], [taking])
    if status == 0:
        PAGE.write_text(write_table(PAGE.read_text(), taking.outcomes))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
