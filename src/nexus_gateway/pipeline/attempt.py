"""One try at one upstream, from its permit to its settlement, on every way out.

For:      sending, reading and judging an answer, or naming why there is none.
Touches:  the upstream, by its protocol; its health; the record.
"""

import re
import time
from collections.abc import Mapping
from typing import Final

import msgspec

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
from nexus_gateway.core.model import AttemptRecord, Call
from nexus_gateway.core.pii.reply import ReplyRestorer
from nexus_gateway.core.shadow_compare import Sketch
from nexus_gateway.upstreams.base import Reply, UpstreamRequest

from .arrival import Answer, Arrival
from .bounds import Bounds
from .endpoint import Bound, Endpoint
from .outcome import CANCELLED, OK
from .stream import EventStream

MAX_ERROR_BYTES: Final = 1 << 20  # of an upstream's error body

_PRINTABLE: Final = re.compile("[ -~]{1,256}")
_TOLD: Final = {  # what an upstream may tell the caller, and under which name
    "openai-processing-ms": b"openai-processing-ms",
    "x-request-id": b"x-upstream-request-id",
}


class Attempt(msgspec.Struct):
    """Holds the permit and the reply until it is settled, once.

    `call` is what the caller asked for; `run` makes of it what this upstream may see, and asks for `model` there.
    """

    bounds: Bounds
    call: Call
    arrival: Arrival
    endpoint: Endpoint
    model: str
    bound: Bound
    permit: Permit
    restorer: ReplyRestorer | None = None
    status: int | None = None
    head_at_s: float = 0.0
    began: bool = False  # the first event of a stream has come
    judge: StreamJudge | None = None

    @property
    def deadline_s(self) -> float:
        return self.permit.acquired_s + self.bound.seconds

    async def run(self, sketch: Sketch | None = None) -> Answer:
        """The answer, a stream as soon as its first event is there. `sketch` takes in what the upstream said.

        Raises UpstreamError.
        """
        reply: Reply | None = None
        failure: UpstreamError | None = None
        outcome = CANCELLED  # what stands if this task is cancelled while it waits
        handed_over = False
        screened = self.arrival.screened
        try:
            if screened is not None and self.endpoint.upstream.traits.mask:
                self.call, self.restorer = screened.call, screened.restorer()
            reply = await self.endpoint.upstream.send(self._request())
            self.status = reply.status
            self.head_at_s = self.bounds.clock()
            if reply.status != 200:
                raise await self._failure(reply)
            if self.call.stream:
                answer = await self._read_stream(reply, sketch)
                handed_over = True
            else:
                self._require_json(reply)
                answer = self._whole(reply, await reply.read_all(self.bounds.max_answer_bytes), sketch)
            outcome = OK
            return answer
        except UpstreamError as exc:
            failure = exc
            now_s = self.bounds.clock()
            if isinstance(exc, UpstreamTimeout) and now_s >= self.deadline_s:
                failure = self._named()
            elif self.endpoint.health.awaits(exc, now_s):
                failure = self.endpoint.starting(START_RECHECK_S, exc.status)
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
        call, arrival, traits = self.call, self.arrival, self.endpoint.upstream.traits
        return UpstreamRequest(
            call.operation,
            self.model,
            body_for(call, model=self.model, ask_usage=call.stream and traits.stream_usage),
            call.stream,
            arrival.headers,
            arrival.record.request_id,
            self.deadline_s,
        )

    def _require_json(self, reply: Reply) -> None:
        if "json" not in reply.headers.get("content-type", "").lower():
            raise self._invalid("an answer that is not JSON")

    def _whole(self, reply: Reply, body: bytes, sketch: Sketch | None) -> Answer:
        usage = read_answer(self.call.operation, body, self.endpoint.name)
        if usage is not None:
            self.arrival.record.usage = usage
        else:
            self.arrival.record.sent_text_bytes = len(body)
        if sketch is not None:
            sketch.add(body)
        if self.restorer is not None:
            body = self.restorer.whole(body)
        return Answer(_told(reply.headers), body)

    async def _read_stream(self, reply: Reply, sketch: Sketch | None) -> Answer:
        if not reply.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise self._invalid("an answer that is not an event stream")
        call, name = self.call, self.endpoint.name
        self.judge = StreamJudge(name, choices=call.choices, keep_usage=call.include_usage)
        breaker = self.endpoint.health.breaker
        stream = EventStream(name, reply, self.judge, self.bounds, breaker, self._settle, sketch, self.restorer)
        await stream.start(self.deadline_s)
        self.began = True
        now_s = self.bounds.clock()
        self.endpoint.health.vouch(self.permit, now_s - self.permit.acquired_s, now_s)
        return Answer(_told(reply.headers), stream)

    async def _failure(self, reply: Reply) -> UpstreamError:
        body = await reply.read_all(MAX_ERROR_BYTES)
        return read_failure(
            self.endpoint.name,
            reply.status,
            reply.headers,
            body,
            own_name=self.model == self.call.model,
            now_unix_s=time.time(),
        )

    def _named(self) -> UpstreamTimeout:
        bound, what = self.bound, "first event" if self.call.stream else "answer"
        limit = f"{bound.seconds:g} s ({bound.setting})"
        if bound.is_rest:
            limit = f"the {bound.seconds:.3f} s that were left of {bound.setting}"
        return UpstreamTimeout(
            f"Upstream '{self.endpoint.name}' gave no {what} within {limit}.",
            upstream=self.endpoint.name,
            status=self.status,
        )

    def _invalid(self, what: str) -> UpstreamInvalidResponse:
        name = self.endpoint.name
        return UpstreamInvalidResponse(f"Upstream '{name}' sent {what}.", upstream=name, status=self.status)

    def _settle(self, outcome: str, failure: UpstreamError | None) -> None:
        """Tell the upstream's health and the record how it ended."""
        now_s, endpoint, record, permit = self.bounds.clock(), self.endpoint, self.arrival.record, self.permit
        health, status = endpoint.health, self.status
        meaning = Outcome.SUCCESS if outcome == OK else Outcome.NEUTRAL  # a success is a sign of life by itself
        if meaning is not Outcome.SUCCESS and status is not None and status < 500:
            breaker = health.breaker
            if not isinstance(failure, UpstreamTimeout):  # a head that nothing followed excuses nobody, itself least
                breaker.last_sign_of_life_s = max(breaker.last_sign_of_life_s, self.head_at_s)
        if failure is not None:
            endpoint.last_error = {"outcome": outcome, "message": failure.message, "at": time.time()}
            if isinstance(failure, UpstreamRateLimited):
                health.cool_down(failure.retry_after_s, now_s)
                self.bounds.events.cooled(endpoint.name)
            meaning = self._meaning(failure)
        health.settle(permit, meaning, now_s)
        judge = self.judge
        if judge is not None:
            record.sent_text_bytes = judge.text_bytes
            if judge.usage is not None:
                record.usage = judge.usage
        record.upstream = endpoint.name
        record.attempts.append(AttemptRecord(endpoint.name, outcome, status, now_s - permit.acquired_s))

    def _meaning(self, failure: UpstreamError) -> Outcome:
        if isinstance(failure, UpstreamTimeout) and self.bound.is_rest and not self.began:
            return Outcome.NEUTRAL
        return outcome_of(failure, stream=self.call.stream)


def _told(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """What of the upstream's headers the caller is told."""
    if headers.keys().isdisjoint(_TOLD):
        return []
    told = []
    for name, as_name in _TOLD.items():
        value = headers.get(name)
        if value is not None and _PRINTABLE.fullmatch(value):
            told.append((as_name, value.encode("ascii")))
    return told
