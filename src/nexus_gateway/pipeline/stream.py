"""A stream on its way from the upstream to the caller: each event judged, none split, none merged, the end truthful.

For:      handing on whole events as soon as they are there; holding at most one that is not complete.
Touches:  the reply it was given, the clock, and the sign of life of its upstream.
"""

from collections.abc import Callable
from typing import Final

from nexus_gateway.core.answers import StreamJudge
from nexus_gateway.core.breaker import Breaker
from nexus_gateway.core.errors import (
    StreamOvertime,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamTimeout,
    UpstreamTruncated,
    drop_trace,
)
from nexus_gateway.core.pii.reply import ReplyRestorer
from nexus_gateway.core.shadow_compare import Sketch
from nexus_gateway.core.sse import DONE, EventSplitter, EventTooLong
from nexus_gateway.upstreams.base import Reply

from .bounds import Bounds
from .outcome import CANCELLED, OK

OnClose = Callable[[str, UpstreamError | None], None]  # the outcome, and the failure if it was one

DONE_EVENT: Final = b"data: [DONE]\n\n"
TAIL_GRACE_S: Final = 1.0  # for the usage and [DONE] once every choice has its finish_reason


class EventStream:
    """Reads a Reply as events: `start` waits for the first one, then `next` gives what goes to the caller.

    It ends in one of two ways: whole, and then `[DONE]` was given out last; or with an UpstreamError raised, after all
    events that came before the fault. Whoever holds it closes it; the second time does nothing.
    """

    __slots__ = (
        "_bounds",
        "_breaker",
        "_ended",
        "_failure",
        "_grace_until_s",
        "_judge",
        "_max_until_s",
        "_on_close",
        "_ready",
        "_reply",
        "_restorer",
        "_sketch",
        "_splitter",
        "_upstream",
        "events",
    )

    def __init__(
        self,
        upstream: str,
        reply: Reply,
        judge: StreamJudge,
        bounds: Bounds,
        breaker: Breaker,
        on_close: OnClose,
        sketch: Sketch | None = None,
        restorer: ReplyRestorer | None = None,
    ) -> None:
        self._upstream = upstream
        self._reply = reply
        self._judge = judge
        self._bounds = bounds
        self._breaker = breaker
        self._max_until_s = bounds.clock() + bounds.stream_maximum.seconds
        self._grace_until_s: float | None = None
        self._on_close: OnClose | None = on_close
        self._sketch = sketch
        self._restorer = restorer
        self._splitter = EventSplitter()
        self._ready: list[bytes] = []
        self._failure: UpstreamError | None = None
        self._ended = False
        self.events = 0  # given out so far, `[DONE]` not counted

    @property
    def is_over(self) -> bool:
        """What `next` gave was the last piece."""
        return self._ended and not self._ready

    async def start(self, deadline_s: float) -> None:
        """Return once the first event is there, so that the head may go out. Raises what broke before it did."""
        while not (self._ready or self._ended):
            try:
                self._take_in(await self._reply.read(deadline_s))
            except UpstreamError as failure:
                self._note(failure)
            if self._failure is not None and not self._ready:
                raise self._failure

    async def next(self) -> bytes:
        """One or more whole events. Ask no more once `is_over`."""
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            try:
                self._take_in(await self._reply.read(self._read_deadline_s()))
            except UpstreamError as failure:
                self._note(failure)
        given = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        return given

    async def aclose(self) -> None:
        """Close the reply and settle the attempt with its outcome, whatever state the stream is in."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            try:
                await self._reply.aclose()
            finally:
                on_close(self._outcome(), self._failure)

    def _outcome(self) -> str:
        if self._failure is not None:
            return self._failure.outcome
        return OK if self._ended else CANCELLED

    def _read_deadline_s(self) -> float:
        if self._grace_until_s is not None:
            return self._grace_until_s
        now_s = self._bounds.clock()
        if self._judge.all_finished:
            self._grace_until_s = now_s + TAIL_GRACE_S
            return self._grace_until_s
        return min(now_s + self._bounds.stream_idle.seconds, self._max_until_s)

    def _take_in(self, piece: bytes) -> None:
        """What one read brought; nothing is the end. Raises UpstreamError for what is wrong with it."""
        self._breaker.last_sign_of_life_s = self._bounds.clock()
        try:
            self._take(self._splitter.feed(piece) if piece else self._splitter.finish())
        except EventTooLong:
            raise UpstreamInvalidResponse(
                f"Upstream '{self._upstream}' sent an event that is too long.", upstream=self._upstream
            ) from None
        if not (piece or self._ended):
            self._end()

    def _note(self, failure: UpstreamError) -> None:
        """A fault is kept until the events before it have been given out. Behind a whole answer it is none."""
        drop_trace(failure)
        if isinstance(failure, UpstreamTimeout | UpstreamTruncated) and self._judge.all_finished:
            self._end()
        else:
            self._failure = self._named(failure) if isinstance(failure, UpstreamTimeout) else failure

    def _take(self, events: list[bytes]) -> None:
        for data in events:
            if data == DONE:
                self._end()
                return
            if self._sketch is not None:
                self._sketch.add(data)
            if self._judge.admit(data):
                for event in (data,) if self._restorer is None else self._restorer.events(data):
                    self._ready.append(b"data: %b\n\n" % event)
                    self.events += 1

    def _end(self) -> None:
        if not self._judge.is_complete:
            raise UpstreamTruncated(
                f"Upstream '{self._upstream}' ended its stream without a finish_reason.", upstream=self._upstream
            )
        self._ended = True
        self._ready.append(DONE_EVENT)

    def _named(self, failure: UpstreamTimeout) -> UpstreamError:
        if self.events == 0:
            return failure  # the attempt's own bound: whoever set it names it
        name, bounds = self._upstream, self._bounds
        if bounds.clock() >= self._max_until_s:
            limit = bounds.stream_maximum
            what = f"The stream lasted longer than {limit.seconds:g} s ({limit.setting})."
            return StreamOvertime(what, upstream=name)
        limit = bounds.stream_idle
        what = f"Upstream '{name}' went silent for {limit.seconds:g} s ({limit.setting})."
        return UpstreamTimeout(what, upstream=name)
