"""Sends a call to an upstream and reads the answer: the step in which a request becomes an answer or a named failure.

For:      one attempt from permit to settlement, on every way out.
Touches:  upstreams, by their protocol; the record.
"""

import re
import time
from collections.abc import Callable
from typing import Final

from nexus_gateway.core.answers import StreamJudge, read_answer, read_failure
from nexus_gateway.core.body import body_for
from nexus_gateway.core.errors import UpstreamError, UpstreamInvalidResponse, UpstreamTimeout
from nexus_gateway.core.model import AttemptRecord, Call, Usage
from nexus_gateway.upstreams.base import Reply, UpstreamRequest

from .arrival import Answer, Arrival
from .endpoint import Bound, Endpoint
from .outcome import CANCELLED, OK
from .stream import EventStream

MAX_ERROR_BYTES: Final = 1 << 20  # of an upstream's error body

_PRINTABLE: Final = re.compile("[ -~]{1,256}")
_TOLD: Final = (  # what an upstream may tell the caller, and under which name
    ("openai-processing-ms", b"openai-processing-ms"),
    ("x-request-id", b"x-upstream-request-id"),
)


class Executor:
    """Holds the bounds that every attempt shares. `deadline`: all attempts of one request together."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        deadline: Bound | None,
        stream_idle: Bound,
        stream_maximum: Bound,
        max_answer_bytes: int,
    ) -> None:
        self.clock = clock
        self.deadline = deadline
        self.stream_idle = stream_idle
        self.stream_maximum = stream_maximum
        self.max_answer_bytes = max_answer_bytes

    async def execute(self, call: Call, endpoint: Endpoint, arrival: Arrival) -> Answer:
        """Raises the UpstreamError of the attempt that decided."""
        bound = endpoint.attempt
        if self.deadline is not None and self.deadline.seconds < bound.seconds:
            bound = self.deadline
        return await Attempt(self, call, endpoint, arrival, bound).run()


class Attempt:
    """One try at one upstream. Holds the permit and the reply until `_settle`, which runs once."""

    __slots__ = (
        "_arrival",
        "_bound",
        "_call",
        "_deadline_s",
        "_endpoint",
        "_executor",
        "_judge",
        "_started_s",
        "_status",
    )

    def __init__(self, executor: Executor, call: Call, endpoint: Endpoint, arrival: Arrival, bound: Bound) -> None:
        self._executor = executor
        self._call = call
        self._endpoint = endpoint
        self._arrival = arrival
        self._bound = bound
        self._started_s = executor.clock()
        self._deadline_s = self._started_s + bound.seconds
        self._status: int | None = None
        self._judge: StreamJudge | None = None

    async def run(self) -> Answer:
        """The answer, a stream as soon as its first event is there. Raises UpstreamError."""
        self._endpoint.enter()
        reply: Reply | None = None
        outcome = CANCELLED  # what stands if this task is cancelled while it waits
        handed_over = False
        try:
            reply = await self._endpoint.upstream.send(self._request())
            self._status = reply.status
            answer = await (self._read_stream(reply) if self._call.stream else self._read_plain(reply))
            handed_over = self._call.stream
            outcome = OK
            return answer
        except UpstreamError as exc:
            outcome = exc.outcome
            if isinstance(exc, UpstreamTimeout) and self._is_over():
                raise self._named() from exc
            raise
        finally:
            if not handed_over:
                if reply is not None:
                    await reply.aclose()
                self._settle(outcome)

    def _request(self) -> UpstreamRequest:
        call, traits = self._call, self._endpoint.upstream.traits
        model = traits.model or call.model
        return UpstreamRequest(
            operation=call.operation,
            model=model,
            body=body_for(call, model=model, ask_usage=call.stream and traits.stream_usage),
            stream=call.stream,
            headers=self._arrival.headers,
            request_id=self._arrival.record.request_id,
            deadline_s=self._deadline_s,
        )

    async def _read_plain(self, reply: Reply) -> Answer:
        if reply.status != 200:
            raise await self._failure(reply)
        if "json" not in reply.headers.get("content-type", ""):
            raise self._invalid("an answer that is not JSON")
        body = await reply.read_all(self._executor.max_answer_bytes)
        usage = read_answer(self._call.operation, body, self._endpoint.name)
        if usage is not None:
            self._note(usage)
        return Answer(_told(reply), body)

    async def _read_stream(self, reply: Reply) -> Answer:
        if reply.status != 200:
            raise await self._failure(reply)
        if not reply.headers.get("content-type", "").startswith("text/event-stream"):
            raise self._invalid("an answer that is not an event stream")
        executor, call, name = self._executor, self._call, self._endpoint.name
        self._judge = StreamJudge(name, choices=call.choices, keep_usage=call.include_usage)
        stream = EventStream(
            name, reply, self._judge, executor.clock, executor.stream_idle, executor.stream_maximum, self._settle
        )
        await stream.start(self._deadline_s)
        return Answer(_told(reply), stream)

    async def _failure(self, reply: Reply) -> UpstreamError:
        body = await reply.read_all(MAX_ERROR_BYTES)
        own_name = self._endpoint.upstream.traits.model in (None, self._call.model)
        return read_failure(
            self._endpoint.name, reply.status, reply.headers, body, own_name=own_name, now_unix_s=time.time()
        )

    def _is_over(self) -> bool:
        return self._executor.clock() >= self._deadline_s

    def _named(self) -> UpstreamTimeout:
        return UpstreamTimeout(
            f"Upstream '{self._endpoint.name}' gave no {'first event' if self._call.stream else 'answer'} within "
            f"{self._bound.seconds:g} s ({self._bound.setting}).",
            upstream=self._endpoint.name,
            status=self._status,
        )

    def _invalid(self, what: str) -> UpstreamInvalidResponse:
        name = self._endpoint.name
        return UpstreamInvalidResponse(f"Upstream '{name}' sent {what}.", upstream=name, status=self._status)

    def _note(self, usage: Usage) -> None:
        record = self._arrival.record
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens

    def _settle(self, outcome: str) -> None:
        self._endpoint.leave()
        if self._judge is not None and self._judge.usage is not None:
            self._note(self._judge.usage)
        record, name = self._arrival.record, self._endpoint.name
        record.upstream = name
        record.attempts.append(AttemptRecord(name, outcome, self._status, self._executor.clock() - self._started_s))


def _told(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = reply.headers
    return [
        (told, headers[name].encode("ascii"))
        for name, told in _TOLD
        if name in headers and _PRINTABLE.fullmatch(headers[name])
    ]
