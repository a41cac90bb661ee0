"""`NEXUS_TEST_ENGINE_URL` runs the contract suite against whatever serves there, such as another gateway."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_gateway.app import create_app
from tests.support.openai_server import openai_server
from tests.support.serving import serving

ROOT = Path(__file__).parents[2]
SUITE = "tests/upstreams/test_contract.py"

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]  # a whole run of pytest inside each


async def run_suite(engine_url: str, tests: str) -> tuple[int, str]:
    """Exit status and the summary."""
    command = [sys.executable, "-m", "pytest", SUITE, "-k", tests, "-p", "no:cacheprovider"]
    environ = {**os.environ, "NEXUS_TEST_ENGINE_URL": engine_url, "ENGINE_KEY": "its-key"}

    def run() -> tuple[int, str]:
        done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=80)
        return done.returncode, done.stdout

    return await asyncio.to_thread(run)


async def test_a_server_that_keeps_the_contract_passes() -> None:
    async with openai_server() as behind:
        environ = {
            "GATEWAY_UPSTREAMS": f"some/model=http://127.0.0.1:{behind.port}",
            "GATEWAY_API_KEYS": "its-key",
            "GATEWAY_RATE_LIMIT_PER_MINUTE": "unlimited",
        }
        async with serving(create_app(environ)) as served:
            status, told = await run_suite(f"{served.url}?api_key_env=ENGINE_KEY", "engine")
    assert status == 0, told
    (passed,) = map(int, re.findall(r"(\d+) passed", told))
    assert passed >= 25
    asked = {request.path for request in behind.seen}
    assert {f"/v1{path}" for path in ("/chat/completions", "/completions", "/embeddings")} <= asked


async def test_a_server_that_does_not_keep_it_fails() -> None:
    async with serving(create_app({"GATEWAY_UPSTREAMS": "m=mock://local?fail_after=1"})) as served:
        status, told = await run_suite(f"{served.url}?model=m", "engine and streamed_chat")
    assert (status, "1 failed" in told) == (1, True)
