"""The operators' smoke script for gRPC workers passes with everything its own, and names the step that fails."""

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nexus_gateway.app import create_app
from tests.support.grpc_worker import grpc_worker
from tests.support.serving import serving

SCRIPT = Path(__file__).parents[2] / "gateway/scripts/grpc_agent_smoke.py"

OWN_PYTHON = SCRIPT.parents[2] / ".venv/bin/python"
BARE = (sys.executable, "-S")  # sees neither the gateway nor its libraries
Outcome = tuple[int | None, str, str]  # exit status, stdout and stderr

pytestmark = pytest.mark.anyio


async def smoke(*, python: Sequence[str] = (sys.executable,), script: Path = SCRIPT, **environ: str) -> Outcome:
    """Runs it; `python` is what runs it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "NEXUS_"))}
    process = await asyncio.create_subprocess_exec(
        *python,
        str(script),
        env={**inherited, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def test_starts_what_it_needs_and_plays_every_turn() -> None:
    status, told, complained = await smoke()
    assert (status, complained) == (0, "")
    assert told.count("\nok ") == 8
    assert "call given up: the worker saw it" in told
    assert "without one 502 upstream_connect_error" in told


async def test_uses_the_gateway_that_it_is_given() -> None:
    async with grpc_worker() as worker:
        environ = {"GATEWAY_UPSTREAMS": f"worker=grpc://127.0.0.1:{worker.port}", "GATEWAY_API_KEYS": "its-key"}
        async with serving(create_app(environ)) as served:
            status, told, complained = await smoke(NEXUS_URL=served.url, NEXUS_API_KEY="its-key")
    assert (status, complained) == (0, "")
    assert told.startswith(f"using the gateway at {served.url}\n")
    assert told.count("\nok ") == 6


async def test_names_the_step_that_fails() -> None:
    async with serving(create_app({"GATEWAY_UPSTREAMS": "worker=mock://local?fail_after=3"})) as served:
        status, told, complained = await smoke(NEXUS_URL=served.url)
    assert (status, told.count("\nok ")) == (1, 1)
    assert complained.startswith("FAILED streamed answer: expected a stream that ends with [DONE]")


async def test_a_gateway_that_is_not_there_is_said_so() -> None:
    status, _, complained = await smoke(NEXUS_URL="http://127.0.0.1:9")
    assert status == 1
    assert "expected a gateway at http://127.0.0.1:9" in complained


@pytest.mark.skipif(not OWN_PYTHON.exists(), reason="the tests run in another environment than that of the Makefile")
async def test_run_by_a_python_without_the_libraries_it_finds_its_own() -> None:
    status, _, complained = await smoke(python=BARE, NEXUS_URL="http://127.0.0.1:9")
    assert status == 1
    assert "expected a gateway at http://127.0.0.1:9" in complained


async def test_where_there_is_none_it_names_the_command_that_is_missing(tmp_path: Path) -> None:
    scripts = tmp_path / "gateway/scripts"
    shutil.copytree(SCRIPT.parent, scripts)
    status, told, complained = await smoke(python=BARE, script=scripts / SCRIPT.name)
    assert (status, told) == (1, "")
    assert complained == "nexus_gateway, grpc cannot be imported: run `make run` or `pip install -e .` first\n"
