"""What pytest must know before it imports the suites of this room; outcomes of the contract are kept as elsewhere."""

from dataclasses import replace
from typing import Final

import pytest

from nexus_gateway.config.runtime import UpstreamSpec
from nexus_gateway.upstreams.litellm import rehearse
from tests.upstreams.conftest import pytest_runtest_makereport
from tests.upstreams.outcomes import OUTCOMES, Outcomes

SPEC: Final = UpstreamSpec("rehearsal", "litellm", "", 0, "", api_key="none")
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


@pytest.fixture(scope="session", autouse=True)
def rehearsed() -> None:
    """As in a gateway that starts: what the library imports late is there before anybody waits."""
    rehearse([replace(SPEC, model="openai/m"), replace(SPEC, model="anthropic/claude-sonnet-4-5")])
