"""How spans leave: in batches, by a thread of the SDK's, to one OTLP/HTTP receiver.

For:      a receiver that is away or slow costs spans, never an answer, and one line in the log.
Touches:  the receiver, from that thread. Imported only where tracing is on.

| spans | held by | gone |
|---|---|---|
| of requests under way | their traces | with the request |
| finished, at most `max_waiting` | the SDK's queue | when sent, refused for good, or pushed out by newer ones |
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from nexus_gateway import __version__
from nexus_gateway.config.runtime import TracingSpec

from .tracing import FinishedSpan

FLUSH_S: Final = 2.0  # for the last spans, at shutdown
CALM_S: Final = 30.0  # without a loss, until losses count as over: a receiver that flickers fills no log
TOLD_ONCE: Final = (  # by us; the SDK has a line for every try, and one for every span that finds no room
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)

_REDIRECTS: Final = range(300, 400)
_UNSET: Final = Status(StatusCode.UNSET)
_FAILED: Final = Status(StatusCode.ERROR)

log = logging.getLogger(__name__)


class SpanExport:
    """Holds the SDK's parts. `put` takes finished spans."""

    def __init__(self, spec: TracingSpec) -> None:
        for name in TOLD_ONCE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        session = _Session()
        self._exporter = WatchedExporter(_exporter(spec, session), lambda: session.last, spec.max_waiting)
        self._processor = BatchSpanProcessor(
            self._exporter, spec.max_waiting, spec.delay_s * 1000, min(spec.max_batch, spec.max_waiting)
        )
        self._resource = Resource.create(dict(spec.resource))
        self._scope = InstrumentationScope("nexus_gateway", __version__)

    def put(self, span: FinishedSpan) -> None:
        """Queue it; it becomes what the SDK sends, made without the SDK's tracer: that takes ten times as long."""
        place, parent = span.place, span.parent
        self._exporter.ended += 1
        self._processor.on_end(
            ReadableSpan(
                span.name,
                SpanContext(place.trace_id, place.span_id, is_remote=False, trace_flags=TraceFlags(place.flags)),
                None if parent is None else SpanContext(parent.trace_id, parent.span_id, is_remote=span.is_server),
                self._resource,
                span.attributes,
                kind=SpanKind.SERVER if span.is_server else SpanKind.CLIENT,
                status=_FAILED if span.has_failed else _UNSET,
                start_time=span.began_ns,
                end_time=span.ended_ns,
                instrumentation_scope=self._scope,
            )
        )

    @property
    def sent(self) -> int:
        """Spans that the receiver took."""
        return self._exporter.sent

    @property
    def lost(self) -> int:
        """Spans that it never will."""
        return self._exporter.lost

    async def aclose(self) -> None:
        """Send what waits, for FLUSH_S at most."""
        ending = threading.Thread(target=self._processor.shutdown, name="span-flush", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, FLUSH_S)
        self._exporter.close()


class WatchedExporter(SpanExporter):
    """Counts what another one sends, and tells when it begins to lose spans and when that is over.

    `ended` is counted up by the loop's thread, everything else by the exporting one.
    """

    def __init__(self, exporter: SpanExporter, last_try: Callable[[], str], max_waiting: int) -> None:
        self._exporter = exporter
        self._last_try = last_try
        self._max_waiting = max_waiting
        self._is_shut_down = False
        self.ended = 0
        self.sent = 0
        self.lost = 0
        self._last_loss_s: float | None = None  # None: nothing was lost lately
        self._is_closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        pushed_out = self.ended - self.sent - self.lost - len(spans) - self._max_waiting
        if pushed_out > 0:
            self._lose(pushed_out, "The queue is full: sample fewer requests, or raise OTEL_BSP_MAX_QUEUE_SIZE.")
        if self._is_closed:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        if self._is_closed:
            return result
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
            self._recover()
        else:
            self._lose(len(spans), self._last_try())
        return result

    def shutdown(self) -> None:
        """Ends the wait between two tries."""
        if not self._is_shut_down:
            self._is_shut_down = True
            self._exporter.shutdown()

    def close(self) -> None:
        """What has not been sent by now is lost."""
        self._is_closed = True
        self.shutdown()
        if (unsent := self.ended - self.sent - self.lost) > 0:
            self._lose(unsent, f"The gateway ends; the last try: {self._last_try()}.")

    def _lose(self, count: int, reason: str) -> None:
        self.lost += count
        if self._last_loss_s is None:
            log.warning("spans_lost", extra={"count": count, "reason": reason})
        self._last_loss_s = time.monotonic()

    def _recover(self) -> None:
        if self._last_loss_s is not None and time.monotonic() - self._last_loss_s > CALM_S:
            self._last_loss_s = None
            log.warning("spans_sent_again", extra={"lost_so_far": self.lost})


class _Session(requests.Session):
    """Remembers how the last try ended: a status, or a kind of error. Takes no redirect for an answer."""

    last = "unknown"

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        try:
            response = super().request(*arguments, **options)
        except requests.RequestException as exc:
            self.last = type(exc).__name__
            raise
        self.last = f"HTTP {response.status_code}"
        if response.status_code in _REDIRECTS:  # it is not followed, and the SDK would take it for a success
            response.close()
            raise requests.TooManyRedirects(self.last)
        return response


def _exporter(spec: TracingSpec, session: requests.Session) -> OTLPSpanExporter:
    return OTLPSpanExporter(
        endpoint=spec.endpoint,
        headers=spec.headers,
        timeout=spec.timeout_s,
        compression=Compression(spec.compression),
        certificate_file=spec.ca_file,
        client_certificate_file=spec.cert_file,
        client_key_file=spec.key_file,
        session=session,
    )
