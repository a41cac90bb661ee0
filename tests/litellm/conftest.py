"""What pytest must know before it imports the suites of this room; outcomes of the contract are kept as elsewhere."""

import pytest

from tests.upstreams.conftest import pytest_runtest_makereport
from tests.upstreams.outcomes import OUTCOMES, Outcomes

__all__ = ["pytest_configure", "pytest_runtest_makereport"]


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but for those that the library itself leaves out when it is imported."""
    config.stash[OUTCOMES] = Outcomes()
    for message in (
        ".*conflict with protected namespace.*",
        ".*Accessing the.*attribute on the instance is deprecated.*",
        ".*`ReadOnly` qualifier.*",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")
