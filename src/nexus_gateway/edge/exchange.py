"""One request for inference and its answer.

For:      bytes in, bytes out: reads the body to its limit, sends what the pipeline returned or raised, and finishes
          the record once, whatever happened.
Touches:  the caller, by its wire.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import Final

from nexus_gateway.core.errors import BodyTooLarge, Draining, GatewayError, InternalError, drop_trace
from nexus_gateway.core.model import CallRecord
from nexus_gateway.observe.base import Observer
from nexus_gateway.pipeline.arrival import Answer, Arrival
from nexus_gateway.pipeline.handle import Pipeline
from nexus_gateway.pipeline.stream import EventStream

from .errors import code_of, render, render_event
from .limits import limit_headers
from .wire import ClientGone, Headers, TooMuch, Wire

CLIENT_GONE_STATUS: Final = 499  # for logs and metrics; nobody is there to be told

_JSON: Final = (b"content-type", b"application/json")
_STREAM_HEAD: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

log = logging.getLogger(__name__)


class Exchange:
    """Made for each request to an inference route; `run` is its whole life."""

    __slots__ = ("_fields", "_head_sent", "_headers", "_max_body_bytes", "_observer", "_pipeline", "_record", "_wire")

    def __init__(
        self,
        pipeline: Pipeline,
        observer: Observer,
        max_body_bytes: int,
        headers: Headers,
        fields: Mapping[bytes, bytes],
        record: CallRecord,
        wire: Wire,
    ) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._max_body_bytes = max_body_bytes
        self._headers = headers
        self._fields = fields
        self._wire = wire
        self._head_sent = False
        self._record = record

    async def run(self) -> None:
        record, wire = self._record, self._wire
        answer: Answer | None = None
        arrival = Arrival(record.operation, self._headers, self._fields, self._read_body, record, client=wire.client)
        self._observer.started()
        try:
            answer = await self._pipeline.handle(arrival)
            if isinstance(answer.body, EventStream):
                await self._send_stream(answer, answer.body)
            else:
                headers = [_JSON, *answer.headers]
                self._head(200, headers, answer.body)
                await wire.answer(200, headers, answer.body)
        except GatewayError as error:
            drop_trace(error)
            await self._fail(error)
        except TooMuch:
            await self._fail(
                BodyTooLarge(
                    f"The request body is over the limit of {self._max_body_bytes} bytes (GATEWAY_MAX_BODY_BYTES)."
                )
            )
        except ClientGone:
            wire.gone = True
        except asyncio.CancelledError:
            if not wire.gone:  # the drain limit: this task ends here as it was told to, but not without a word
                await self._fail(Draining("The gateway is shutting down."))
        except Exception:
            log.exception("request_crashed", extra={"request_id": record.request_id})
            await self._fail(InternalError(f"The gateway failed; the request id is {record.request_id}."))
        finally:
            if wire.gone:
                record.client_gone = True
                record.status = record.status or CLIENT_GONE_STATUS
            record.finished_at_s = time.monotonic()
            self._pipeline.finish(arrival)
            self._observer.finished(record)
            if answer is not None and answer.served is not None:
                answer.served(record.error_code is None and not record.client_gone)

    def _read_body(self) -> Awaitable[bytes]:
        if int(self._fields.get(b"content-length", 0)) > self._max_body_bytes:
            raise TooMuch
        return self._wire.read_body(self._max_body_bytes)

    async def _send_stream(self, answer: Answer, stream: EventStream) -> None:
        record, wire = self._record, self._wire
        try:
            headers = [*_STREAM_HEAD, *answer.headers]
            self._head(200, headers)
            await wire.start(200, headers)
            while True:
                piece = await stream.next()
                record.response_bytes += len(piece)
                if stream.is_over:
                    break
                await wire.write(piece)
        finally:
            record.events = stream.events
            await stream.aclose()
        await wire.finish(piece)

    async def _fail(self, error: GatewayError) -> None:
        self._record.error_code = code_of(error)
        if self._head_sent:
            await self._wire.finish(render_event(error))
        else:
            status, headers, body = render(error)
            self._head(status, headers, body)
            await self._wire.answer(status, headers, body)

    def _head(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes | None = None) -> None:
        """Complete the headers, of a stream if there is no `body`, and note the moment."""
        record = self._record
        if body is not None:
            record.response_bytes = len(body)
            headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"x-request-id", record.request_id.encode("ascii")))
        if record.verdict is not None:
            headers += limit_headers("requests", record.verdict)
        if record.token_verdict is not None:
            headers += limit_headers("tokens", record.token_verdict)
        record.status = status
        record.first_byte_at_s = time.monotonic()
        self._head_sent = True
