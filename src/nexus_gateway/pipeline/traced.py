"""The journey of a request when it is traced.

For:      one trace per request, from its head to its last byte. Without tracing nothing of this is there.
Touches:  the headers that upstreams get to see, and whoever records.
"""

from typing import Any

from nexus_gateway.core.tracing import TracedHeaders, Tracing, take_trace

from .arrival import Answer, Arrival
from .handle import Pipeline


class TracedPipeline(Pipeline):
    """A Pipeline that tells `tracing` of each request."""

    def __init__(self, tracing: Tracing, *steps: Any) -> None:
        super().__init__(*steps)
        self._tracing = tracing

    async def handle(self, arrival: Arrival) -> Answer:
        headers, parent = take_trace(arrival.headers)
        trace = self._tracing.begin(arrival.record, parent)
        arrival.record.trace_id = trace.trace_id
        arrival.headers = TracedHeaders(headers, trace)
        return await super().handle(arrival)

    def finish(self, arrival: Arrival) -> None:
        super().finish(arrival)
        if isinstance(arrival.headers, TracedHeaders):
            arrival.headers.trace.finish(arrival.record)
