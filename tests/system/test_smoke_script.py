"""The operators' smoke script passes on a gateway that works and names the first step that does not."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from nexus_gateway.app import create_app
from tests.support.serving import serving

SCRIPT = Path(__file__).parents[2] / "gateway/scripts/agent_client_smoke.sh"
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


async def smoke(**environ: str) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "NEXUS_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        str(SCRIPT),
        env={**inherited, "PATH": path, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


@pytest.mark.anyio
async def test_uses_the_gateway_that_answers() -> None:
    async with serving(create_app({"GATEWAY_API_KEYS": "its-key"})) as served:
        status, told, _ = await smoke(NEXUS_URL=served.url, NEXUS_API_KEY="its-key")
    assert (status, told.splitlines()[0]) == (0, f"using the gateway at {served.url}")
    assert told.count("\nok ") == 6


@pytest.mark.anyio
async def test_starts_a_gateway_when_none_answers() -> None:
    status, told, _ = await smoke(NEXUS_URL=NOBODY)
    assert (status, told.splitlines()[0]) == (0, f"no gateway answers at {NOBODY}: starting one")
    assert told.count("\nok ") == 6


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "passed", "failed"),
    [
        ("status=500", 0, "FAILED plain answer: expected status 200\n     got 502"),
        ("fail_after=3", 1, "FAILED streamed answer: expected a stream that ends with [DONE]"),
    ],
)
async def test_ends_at_the_first_step_that_fails(fault: str, passed: int, failed: str) -> None:
    async with serving(create_app({"GATEWAY_UPSTREAMS": f"mock=mock://local?{fault}"})) as served:
        status, told, complained = await smoke(NEXUS_URL=served.url)
    assert (status, told.count("\nok ")) == (1, passed)
    assert complained.startswith(failed)


@pytest.mark.anyio
async def test_says_that_the_key_is_wrong() -> None:
    async with serving(create_app({"GATEWAY_API_KEYS": "its-key"})) as served:
        status, _, complained = await smoke(NEXUS_URL=served.url)
    assert status == 1
    assert "got 401" in complained
