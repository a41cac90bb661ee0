"""What pytest must know before it imports the suites of this room, and what it keeps of their outcomes."""

from collections.abc import Generator

import pytest

from .outcomes import OUTCOMES, Outcomes


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = Outcomes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.config.stash[OUTCOMES].note(item, report)
    return report
