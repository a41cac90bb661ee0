"""`GET /metrics` in the eyes of Prometheus's own linter."""

import asyncio

import pytest

from tests.support.gateway import gateway
from tests.support.http_client import Caller, chat

pytestmark = [pytest.mark.anyio, pytest.mark.packages]


async def test_promtool_finds_nothing_to_say() -> None:
    async with gateway(upstreams="m=mock://local") as running:
        await chat(running.port)
        await running.idle()
        async with Caller(running.port) as prometheus:
            await prometheus.send(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n")
            exposition = (await prometheus.receive()).body
    promtool = await asyncio.create_subprocess_exec(
        *("promtool", "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await promtool.communicate(exposition)
    assert (promtool.returncode, told.decode()) == (0, "")
