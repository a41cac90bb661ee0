"""A receiver of OTLP/HTTP, as a collector is one: takes spans, and can be slow or refuse them.

async with otlp_receiver() as receiver, gateway(TRACED, environ=receiver.environ) as running:
    ...
(span,) = receiver.spans  # a gateway that has ended has sent everything
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACED: Final = {"OTEL_ENABLED": "true"}
SERVER: Final = Span.SPAN_KIND_SERVER
CLIENT: Final = Span.SPAN_KIND_CLIENT
ERROR: Final = Status.STATUS_CODE_ERROR
UNSET: Final = Status.STATUS_CODE_UNSET


@dataclass(frozen=True, slots=True)
class Received:
    """A span, ids in hex. `parent` is empty where there is none."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    flags: int
    began_ns: int
    ended_ns: int
    status: int
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass(slots=True)
class Receiver:
    """`status` is what it answers; while `may_answer` is not set, it says nothing."""

    port: int = 0
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def environ(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "20"}

    @property
    def spans(self) -> list[Received]:
        """In the order in which they began; a parent before its children."""
        found = []
        for body in self.bodies:
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _plain(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    found += [_received(span, resource) for span in of_scope.spans]
        return sorted(found, key=lambda span: (span.began_ns, span.kind))

    @property
    def server(self) -> Received:
        (only,) = [span for span in self.spans if span.kind == SERVER]
        return only

    @property
    def clients(self) -> list[Received]:
        return [span for span in self.spans if span.kind == CLIENT]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the exporter has left
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
        head = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(head["content-length"]))
        self.paths.append(start.split(" ")[1])
        self.heads.append(head)
        if self.status == 200:
            self.bodies.append(gzip.decompress(body) if head.get("content-encoding") == "gzip" else body)
        self.arrived.set()
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.may_answer.set()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(receiver.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def _received(span: Span, resource: Mapping[str, Any]) -> Received:
    return Received(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.flags,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code,
        _plain(span.attributes),
        resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
