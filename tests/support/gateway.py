"""A whole gateway in the test's own loop: configuration, application, production server."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nexus_gateway.app import build
from nexus_gateway.config.settings import load
from nexus_gateway.core.model import CallRecord
from nexus_gateway.edge.gateway import Gateway

from .serving import QuietServer, serving

KEY = "test-key-of-some-length"


@dataclass(slots=True)
class Records:
    """An Observer that keeps what it is told."""

    begun: int = 0
    finished_records: list[CallRecord] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def started(self) -> None:
        self.begun += 1
        self.idle.clear()

    def finished(self, record: CallRecord) -> None:
        self.finished_records.append(record)
        if self.begun == len(self.finished_records):
            self.idle.set()

    @property
    def last(self) -> CallRecord:
        return self.finished_records[-1]


@dataclass(frozen=True, slots=True)
class Running:
    url: str  # without /v1
    app: Gateway
    server: QuietServer
    records: Records

    @property
    def port(self) -> int:
        return self.server.port

    async def idle(self) -> None:
        """Until every request that began has its finished record."""
        await self.records.idle.wait()


@asynccontextmanager
async def gateway(
    settings: Mapping[str, str] | None = None,
    upstreams: str = "mock=mock://local",
    *,
    environ: Mapping[str, str] | None = None,
    log_fd: int | None = None,
) -> AsyncIterator[Running]:
    """`settings` without the prefix, e.g. {"RATE_LIMIT_PER_MINUTE": "3"}. KEY is the one key, the rate unlimited.

    `environ` is what else stands in its environment; its log goes nowhere unless `log_fd` says otherwise.
    """
    chosen = {
        "UPSTREAMS": upstreams,
        "API_KEYS": KEY,
        "RATE_LIMIT_PER_MINUTE": "unlimited",
        "LOG_LEVEL": "error",
        "PII_MASKING_ENABLED": "off",
    }
    given = {f"GATEWAY_{name}": value for name, value in {**chosen, **(settings or {})}.items()}
    runtime = load({**given, **(environ or {})}).runtime
    records = Records()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        app = build(runtime, log_fd=nowhere if log_fd is None else log_fd, observers=(records,))
        async with serving(app, runtime.timeouts, runtime.ops_listen) as served:
            yield Running(served.url, app, served.server, records)
    finally:
        os.close(nowhere)
    assert records.begun == len(records.finished_records), "every request that began has one finished record"
