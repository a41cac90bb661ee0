"""One try at one upstream, from its permit to its settlement, on every way out.

For:      sending, reading and judging an answer, or naming why there is none.
Touches:  the upstream, by its protocol; its health; the record.
"""

import re
import time
from typing import Final

from nexus_gateway.core.answers import StreamJudge, read_answer, read_failure
from nexus_gateway.core.body import body_for
from nexus_gateway.core.breaker import Outcome, Permit, outcome_of
from nexus_gateway.core.errors import (
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from nexus_gateway.core.health import START_RECHECK_S
from nexus_gateway.core.model import AttemptRecord, Call, Usage
from nexus_gateway.core.shadow_compare import Sketch
from nexus_gateway.upstreams.base import Reply, UpstreamRequest

from .arrival import Answer, Arrival
from .bounds import Bounds
from .endpoint import Bound, Endpoint
from .outcome import CANCELLED, OK
from .stream import EventStream

MAX_ERROR_BYTES: Final = 1 << 20  # of an upstream's error body

_PRINTABLE: Final = re.compile("[ -~]{1,256}")
_TOLD: Final = (  # what an upstream may tell the caller, and under which name
    ("openai-processing-ms", b"openai-processing-ms"),
    ("x-request-id", b"x-upstream-request-id"),
)


class Attempt:
    """Holds the permit and the reply until it is settled, once. `model` is the name that this upstream is sent."""

    __slots__ = (
        "_arrival",
        "_began",
        "_bound",
        "_bounds",
        "_call",
        "_deadline_s",
        "_endpoint",
        "_head_at_s",
        "_judge",
        "_model",
        "_permit",
        "_restorer",
        "_started_s",
        "_status",
    )

    def __init__(
        self,
        bounds: Bounds,
        call: Call,
        arrival: Arrival,
        endpoint: Endpoint,
        model: str,
        bound: Bound,
        permit: Permit,
    ) -> None:
        self._bounds = bounds
        screened = arrival.screened if endpoint.upstream.traits.mask else None
        self._call = call if screened is None else screened.call  # as this upstream may see it
        self._restorer = None if screened is None else screened.restorer()
        self._arrival = arrival
        self._endpoint = endpoint
        self._model = model
        self._bound = bound
        self._permit = permit
        self._started_s = permit.acquired_s
        self._deadline_s = permit.acquired_s + bound.seconds
        self._status: int | None = None
        self._head_at_s = 0.0
        self._began = False  # the first event of a stream has come
        self._judge: StreamJudge | None = None

    async def run(self, sketch: Sketch | None = None) -> Answer:
        """The answer, a stream as soon as its first event is there. `sketch` takes in what the upstream said.

        Raises UpstreamError.
        """
        reply: Reply | None = None
        failure: UpstreamError | None = None
        outcome = CANCELLED  # what stands if this task is cancelled while it waits
        handed_over = False
        try:
            reply = await self._endpoint.upstream.send(self._request())
            self._status = reply.status
            self._head_at_s = self._bounds.clock()
            answer = await (self._read_stream if self._call.stream else self._read_plain)(reply, sketch)
            handed_over = self._call.stream
            outcome = OK
            return answer
        except UpstreamError as exc:
            failure = exc
            now_s = self._bounds.clock()
            if isinstance(exc, UpstreamTimeout) and now_s >= self._deadline_s:
                failure = self._named()
            elif self._endpoint.health.awaits(exc, now_s):
                failure = self._endpoint.starting(START_RECHECK_S, exc.status)
            outcome = failure.outcome
            raise failure from exc.__cause__
        finally:
            if not handed_over:
                try:
                    if reply is not None:
                        await reply.aclose()
                finally:
                    self._settle(outcome, failure)

    def _request(self) -> UpstreamRequest:
        call = self._call
        ask_usage = call.stream and self._endpoint.upstream.traits.stream_usage
        return UpstreamRequest(
            operation=call.operation,
            model=self._model,
            body=body_for(call, model=self._model, ask_usage=ask_usage),
            stream=call.stream,
            headers=self._arrival.headers,
            request_id=self._arrival.record.request_id,
            deadline_s=self._deadline_s,
        )

    async def _read_plain(self, reply: Reply, sketch: Sketch | None) -> Answer:
        if reply.status != 200:
            raise await self._failure(reply)
        if "json" not in reply.headers.get("content-type", ""):
            raise self._invalid("an answer that is not JSON")
        body = await reply.read_all(self._bounds.max_answer_bytes)
        usage = read_answer(self._call.operation, body, self._endpoint.name)
        if usage is not None:
            self._note(usage)
        else:
            self._arrival.record.sent_text_bytes = len(body)
        if sketch is not None:
            sketch.add(body)
        if self._restorer is not None:
            body = self._restorer.whole(body)
        return Answer(_told(reply), body)

    async def _read_stream(self, reply: Reply, sketch: Sketch | None) -> Answer:
        if reply.status != 200:
            raise await self._failure(reply)
        if not reply.headers.get("content-type", "").startswith("text/event-stream"):
            raise self._invalid("an answer that is not an event stream")
        call, name = self._call, self._endpoint.name
        self._judge = StreamJudge(name, choices=call.choices, keep_usage=call.include_usage)
        breaker = self._endpoint.health.breaker
        stream = EventStream(name, reply, self._judge, self._bounds, breaker, self._settle, sketch, self._restorer)
        await stream.start(self._deadline_s)
        self._began = True
        now_s = self._bounds.clock()
        self._endpoint.health.vouch(self._permit, now_s - self._started_s, now_s)
        return Answer(_told(reply), stream)

    async def _failure(self, reply: Reply) -> UpstreamError:
        body = await reply.read_all(MAX_ERROR_BYTES)
        return read_failure(
            self._endpoint.name,
            reply.status,
            reply.headers,
            body,
            own_name=self._model == self._call.model,
            now_unix_s=time.time(),
        )

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
        self._arrival.record.usage = usage

    def _settle(self, outcome: str, failure: UpstreamError | None) -> None:
        """Tell the upstream's health and the record how it ended."""
        now_s, endpoint, record = self._bounds.clock(), self._endpoint, self._arrival.record
        health = endpoint.health
        if self._status is not None and self._status < 500 and not isinstance(failure, UpstreamTimeout):
            breaker = health.breaker  # a head that nothing followed excuses nobody, itself least of all
            breaker.last_sign_of_life_s = max(breaker.last_sign_of_life_s, self._head_at_s)
        if isinstance(failure, UpstreamRateLimited):
            health.cool_down(failure.retry_after_s, now_s)
            self._bounds.events.cooled(endpoint.name)
        if failure is not None:
            endpoint.last_error = {"outcome": outcome, "message": failure.message, "at": time.time()}
        health.settle(self._permit, self._meaning(outcome, failure), now_s)
        judge = self._judge
        if judge is not None:
            record.sent_text_bytes = judge.text_bytes
            if judge.usage is not None:
                self._note(judge.usage)
        record.upstream = endpoint.name
        record.attempts.append(AttemptRecord(endpoint.name, outcome, self._status, now_s - self._started_s))

    def _meaning(self, outcome: str, failure: UpstreamError | None) -> Outcome:
        if isinstance(failure, UpstreamTimeout) and self._bound.is_rest and not self._began:
            return Outcome.NEUTRAL
        if failure is not None:
            return outcome_of(failure, stream=self._call.stream)
        return Outcome.SUCCESS if outcome == OK else Outcome.NEUTRAL


def _told(reply: Reply) -> list[tuple[bytes, bytes]]:
    told = []
    for name, as_name in _TOLD:
        value = reply.headers.get(name)
        if value is not None and _PRINTABLE.fullmatch(value):
            told.append((as_name, value.encode("ascii")))
    return told
