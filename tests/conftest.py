"""Fixtures and settings that every room's tests share."""

import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.upstreams.contract", "tests.upstreams.calls")  # before any room imports them

# gRPC's handlers of fork() run in the children that uvloop forks, where none of its threads is left, and crash some of
# them before they are what they should be. None of our children uses the library it inherits.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# One seed, so that a run repeats; no deadline, so that a busy machine fails nothing.
settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}
