"""One request and its answer over ASGI.

For:      bytes in, bytes out: reads the body to its limit, sends what the pipeline returned or raised, and finishes
          the record once, whatever happened.
Touches:  the server, by `receive` and `send`.

A caller who leaves cancels the task that runs here: under `nexus-gateway serve` the protocol does it, under another
server a watcher on `receive`. `Presence.gone` tells that from a shutdown, which cancels too.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from nexus_gateway.core.errors import BodyTooLarge, Draining, GatewayError, InternalError
from nexus_gateway.core.model import CallRecord, Operation
from nexus_gateway.observe.base import Observer
from nexus_gateway.pipeline.arrival import Answer, Arrival
from nexus_gateway.pipeline.handle import Pipeline
from nexus_gateway.pipeline.stream import EventStream

from .errors import code_of, render, render_event
from .limits import limit_headers
from .request_id import request_id_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CLIENT_GONE_STATUS: Final = 499  # for logs and metrics; nobody is there to be told
PRESENCE: Final = "nexus.presence"  # the ASGI extension of our own protocol

_JSON: Final = (b"content-type", b"application/json")
_STREAM_HEAD: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

log = logging.getLogger(__name__)


class Presence(Protocol):
    """Whether the caller is still there."""

    gone: bool


class ClientGone(Exception):
    """The caller left while its body was being read."""


class Exchange:
    """Made for each request to an inference route; `run` is its whole life."""

    __slots__ = (
        "_head_sent",
        "_max_body_bytes",
        "_observer",
        "_pipeline",
        "_receive",
        "_scope",
        "_send",
        "presence",
        "record",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        observer: Observer,
        max_body_bytes: int,
        operation: Operation,
        scope: Scope,
        receive: Receive,
        send: Send,
        presence: Presence,
        new_id: Callable[[], str],
    ) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._max_body_bytes = max_body_bytes
        self._scope = scope
        self._receive = receive
        self._send = send
        self._head_sent = False
        self.presence = presence
        request_id = request_id_of(scope["headers"], new_id)
        self.record = CallRecord(request_id, operation, time.time(), time.monotonic())

    async def run(self) -> None:
        record = self.record
        self._observer.started()
        try:
            answer = await self._pipeline.handle(
                Arrival(record.operation, self._scope["headers"], self._read_body, record)
            )
            if isinstance(answer.body, EventStream):
                await self._send_stream(answer, answer.body)
            else:
                await self._send_plain(answer, answer.body)
        except GatewayError as error:
            await self._fail(error)
        except ClientGone:
            self.presence.gone = True
        except asyncio.CancelledError:
            if not self.presence.gone:
                await self._fail(Draining("The gateway is shutting down."))
        except Exception:
            log.exception("request_crashed", extra={"request_id": record.request_id})
            await self._fail(InternalError(f"The gateway failed; the request id is {record.request_id}."))
        finally:
            if self.presence.gone:
                record.client_gone = True
                record.status = record.status or CLIENT_GONE_STATUS
            record.finished_at_s = time.monotonic()
            self._observer.finished(record)

    async def _read_body(self) -> bytes:
        limit = self._max_body_bytes
        for name, value in self._scope["headers"]:
            if name == b"content-length" and int(value) > limit:
                raise _too_large(limit)
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and message.get("more_body"):
            pieces, size = [body], len(body)
            while message["type"] == "http.request" and message.get("more_body") and size <= limit:
                message = await self._receive()
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
            body = b"".join(pieces)
        if len(body) > limit:
            raise _too_large(limit)
        if message["type"] != "http.request":
            raise ClientGone
        return body

    async def _send_plain(self, answer: Answer, body: bytes) -> None:
        record = self.record
        headers = [_JSON, (b"content-length", b"%d" % len(body)), *answer.headers]
        record.response_bytes = len(body)
        await self._send_head(200, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def _send_stream(self, answer: Answer, stream: EventStream) -> None:
        record, send = self.record, self._send
        try:
            await self._send_head(200, [*_STREAM_HEAD, *answer.headers])
            while piece := await stream.next():
                record.response_bytes += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            record.events = stream.events
            await stream.aclose()

    async def _fail(self, error: GatewayError) -> None:
        self.record.error_code = code_of(error)
        if self._head_sent:
            await self._send({"type": "http.response.body", "body": render_event(error)})
            return
        status, headers, body = render(error)
        self.record.response_bytes = len(body)
        await self._send_head(status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def _send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        record = self.record
        headers.append((b"x-request-id", record.request_id.encode("ascii")))
        if record.verdict is not None:
            headers += limit_headers(record.verdict)
        record.status = status
        record.first_byte_at_s = time.monotonic()
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is over the limit of {limit} bytes (GATEWAY_MAX_BODY_BYTES).")
