"""The gateway, its callers and its upstreams as elsewhere, but every question holds identifiers, and none may get out.

For:      the suites of faults. Importing `gateway`, `Caller`, `chat` and `RawServer` from here instead is all they do:
          when a gateway or a server ends, all that it was sent, logged, audited or counted is searched for the values.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final

from tests.support import gateway as plain_gateway
from tests.support import http_client, raw_server
from tests.support.gateway import Running
from tests.support.http_client import Received

CANARIES: Final = (
    "kim.chulsoo@example.co.kr",
    "010-9876-5432",
    "900101-1234568",
    "4111 1111 1111 1111",
    "sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12",
)
TRACES: Final = (*CANARIES, "chulsoo", "9876-5432", "1234568", "1111 1111", "Ab12Cd34")
"""Parts of them too: whoever cuts a value in two has not hidden it."""

SAID: Final = f"{CANARIES[0]}, {CANARIES[1]}. 주민번호 {CANARIES[2]}, 카드 {CANARIES[3]}"
ASKED: Final[Mapping[str, Any]] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": SAID},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "send", "arguments": json.dumps({"to": CANARIES[0], "key": CANARIES[4]})},
                }
            ],
        },
    ],
    "user": CANARIES[1],
}
MASKED: Final = {"EMAIL": 2, "PHONE": 2, "RRN": 1, "CARD": 1, "API_KEY": 1}
_USUAL_SIZES: Final = frozenset(len(json.dumps({**ASKED, **more}).encode()) for more in ({}, {"stream": True}))
HIDING: Final = {
    "PII_MASKING_ENABLED": "on",
    "PII_HASH_SALT": "a-salt-of-some-length-for-tests",
    "LOG_LEVEL": "debug",
    "AUDIT_BODIES": "masked",
}


class Caller(http_client.Caller):
    usual: ClassVar[Mapping[str, Any]] = ASKED


async def chat(
    port: int, *, stream: bool = False, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Received:
    """One chat request on a connection of its own."""
    async with Caller(port) as caller:
        await caller.ask(stream=stream, body=body, headers=headers)
        return await caller.receive()


class RawServer(raw_server.RawServer):
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, exc, trace)
        if exc is None:
            for peer in self.peers:
                assert_hidden(bytes(peer.bytes_received))


@asynccontextmanager
async def gateway(
    settings: Mapping[str, str] | None = None, upstreams: str = "mock=mock://local"
) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        audit, log = Path(folder, "audit.jsonl"), Path(folder, "log.jsonl")
        hiding = {**HIDING, "AUDIT_FILE": str(audit), **(settings or {})}
        log_fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            async with plain_gateway.gateway(hiding, upstreams, log_fd=log_fd) as running:
                yield running
                metrics = await metrics_of(running.port)
        finally:
            os.close(log_fd)
        for told in (metrics, await asyncio.to_thread(log.read_bytes), await asyncio.to_thread(audit.read_bytes)):
            assert told or not running.records.finished_records, "there was something to search"
            assert_hidden(told)
        for record in running.records.finished_records:
            is_usual = record.request_bytes in _USUAL_SIZES and record.attempts
            assert not is_usual or record.masked == MASKED, "it was hidden, not left out"


async def metrics_of(port: int) -> bytes:
    async with http_client.Caller(port) as caller:
        await caller.send(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n")
        return (await caller.receive()).body


def assert_hidden(told: bytes) -> None:
    """None of the values stands in it, in whatever way JSON may write it."""
    text = told.decode("utf-8", "replace")
    found = [trace for trace in TRACES if trace in text or json.dumps(trace)[1:-1] in text]
    assert not found, f"{found} got out in {text[:2000]}"
