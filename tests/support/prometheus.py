"""Debian's Prometheus, scraping a gateway on this machine twice a second and evaluating the alerts."""

import asyncio
import json
import math
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from .dashboard import ROOT
from .valkey import free_port

EVERY_S = 0.5


class Prometheus:
    """What its API answers."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **parameters: str) -> Any:
        answer = (await self._http.get(f"/api/v1/{path}", params=parameters)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expression: str) -> dict[str, float]:
        """The value of each series by its labels, but for what is no number."""
        found = (await self.get("query", query=expression))["result"]
        values = {json.dumps(series["metric"], sort_keys=True): float(series["value"][1]) for series in found}
        return {labels: value for labels, value in values.items() if not math.isnan(value)}

    async def rules(self) -> dict[str, Any]:
        """All rules by name, once each of them was evaluated."""
        while True:
            groups = (await self.get("rules"))["groups"]
            rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
            if all(rule["health"] != "unknown" for rule in rules.values()):
                return rules
            await asyncio.sleep(EVERY_S)

    async def until(self, expression: str, holds: Callable[[dict[str, float]], object]) -> None:
        """Ask as often as it scrapes; the test's own time limit ends the wait otherwise."""
        while not holds(await self.query(expression)):  # noqa: ASYNC110  # it announces nothing
            await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def prometheus(gateway_port: int) -> AsyncIterator[Prometheus]:
    with tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        config = {
            "global": {"scrape_interval": f"{EVERY_S * 1000:.0f}ms", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deploy/prometheus/alerts.yml")],
            "scrape_configs": [
                {"job_name": "nexus-gateway", "static_configs": [{"targets": [f"127.0.0.1:{gateway_port}"]}]}
            ],
        }
        file = Path(folder, "prometheus.yml")
        file.write_text(yaml.safe_dump(config))  # noqa: ASYNC240  # nobody waits for the loop yet
        address = f"127.0.0.1:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}",
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            said = [await process.stderr.readline()]
            while b"Server is ready" not in said[-1]:
                assert said[-1], b"".join(said).decode()
                said.append(await process.stderr.readline())
            reading = asyncio.create_task(process.stderr.read())  # or it would stand still when the pipe is full
            async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
                yield Prometheus(http)
            process.terminate()
            await reading
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
