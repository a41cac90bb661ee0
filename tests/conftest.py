"""Fixtures and settings that every room's tests share."""

import pytest
from hypothesis import settings

# One seed, so that a run repeats; no deadline, so that a busy machine fails nothing.
settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}
