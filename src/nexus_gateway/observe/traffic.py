"""Adds up finished requests.

For:      plain integers in one cell per caller, outcome, upstream and route, found by one look-up; the exposition does
          the summing.
Touches:  nothing. This is on the path of every request.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from nexus_gateway.core.model import OPERATION_NAMES, CallRecord, Operation

from . import families
from .recent import ENDS, Totals
from .tally import SECONDS, SHORT_SECONDS, TOKEN_SECONDS, Tally

KINDS: Final = ("plain", "stream")  # False and True of `record.stream`
STATUS_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
CLIENT_GONE: Final = "client_gone"  # what "failed" when nothing did, but nobody stayed for the answer
NONE: Final = "none"
_WHOLE: Final = "whole"
_OK: Final = "ok"
_NO_FAILURES: Final = (_OK, "cancelled")

# caller, operation, stream, status, code, upstream, route
Likeness = tuple[str, Operation, bool, int, str | None, str | None, str | None]


class Timing:
    """The times of one kind of request, however it ended and whoever asked."""

    __slots__ = ("durations", "first_bytes", "overheads")

    def __init__(self) -> None:
        self.durations = Tally()
        self.first_bytes = Tally()  # of streams: a plain answer has its head and its end at once
        self.overheads = Tally(SHORT_SECONDS)


class Answering:
    """What one upstream did."""

    __slots__ = ("outcomes", "seconds", "token_seconds")

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, int] = defaultdict(int)
        self.outcomes[_OK] = 0
        self.seconds = (Tally(), Tally())  # as KINDS
        self.token_seconds = Tally(TOKEN_SECONDS)


class Cell:
    """Requests that are alike in all that is told of them. The tallies are shared with others of their kind."""

    __slots__ = (
        "at_once",
        "attempts",
        "completion_tokens",
        "count",
        "decided",
        "durations",
        "first_bytes",
        "overheads",
        "prompt_tokens",
        "token_seconds",
    )

    def __init__(self, timing: Timing, answering: Answering, *, stream: bool) -> None:
        self.count = 0
        self.at_once = 0  # those that one attempt answered
        self.decided = 0  # those that the limiter was asked about
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.durations = timing.durations
        self.first_bytes = timing.first_bytes
        self.overheads = timing.overheads
        self.attempts = answering.seconds[stream]
        self.token_seconds = answering.token_seconds


class Traffic:
    """An Observer of inference requests."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._cells: dict[Likeness, Cell] = {}
        self._timings: defaultdict[tuple[Operation, bool], Timing] = defaultdict(Timing)
        self._upstreams: defaultdict[str, Answering] = defaultdict(Answering)
        self._rejections: defaultdict[str, int] = defaultdict(int)
        self._refusals: defaultdict[tuple[str, str], int] = defaultdict(int)  # caller, limit
        self._degraded: defaultdict[str, int] = defaultdict(int)
        self._masked_requests = 0
        self._masked: defaultdict[str, int] = defaultdict(int)

    def started(self) -> None:
        self._in_flight += 1

    def finished(self, record: CallRecord) -> None:
        """Tallies are observed in place here: a call for each would cost as much again."""
        self._in_flight -= 1
        stream, status, code, attempts = record.stream, record.status, record.error_code, record.attempts
        ended_s, first_s = record.finished_at_s, record.first_byte_at_s
        if code is not None or record.client_gone:
            code = self._note_failure(record)
        likeness = (record.caller, record.operation, stream, status, code, record.upstream, record.route)
        cell = self._cells.get(likeness)
        if cell is None:
            cell = self._meet(likeness)
        cell.count += 1
        seconds = ended_s - record.started_at_s
        tally = cell.durations
        tally.counts[bisect_left(tally.bounds, seconds)] += 1
        tally.total += seconds
        if stream and first_s is not None and status == 200:
            seconds = first_s - record.started_at_s
            tally = cell.first_bytes
            tally.counts[bisect_left(tally.bounds, seconds)] += 1
            tally.total += seconds
        if code is None and len(attempts) == 1:
            cell.at_once += 1
            seconds = attempts[0].seconds
            tally = cell.attempts
            tally.counts[bisect_left(tally.bounds, seconds)] += 1
            tally.total += seconds
            seconds = ended_s - record.body_at_s - seconds
            tally = cell.overheads
            tally.counts[bisect_left(tally.bounds, seconds)] += 1
            tally.total += seconds
        else:
            for attempt in attempts:
                upstream = self._upstreams[attempt.upstream]
                upstream.outcomes[attempt.outcome] += 1
                upstream.seconds[stream].observe(attempt.seconds)
        usage = record.usage
        if usage is not None:
            cell.prompt_tokens += usage.prompt_tokens
            cell.completion_tokens += usage.completion_tokens
            if stream and code is None and first_s is not None:
                later_tokens = 0 if record.is_usage_estimated else usage.completion_tokens - 1
                if later_tokens > 0:
                    seconds = (ended_s - first_s) / later_tokens
                    tally = cell.token_seconds
                    tally.counts[bisect_left(tally.bounds, seconds)] += 1
                    tally.total += seconds
        basis = record.limit_basis
        if basis is not None:
            cell.decided += 1
            if basis != _WHOLE:
                self._degraded[basis] += 1
        if record.masked:
            self._masked_requests += 1
            for type_, count in record.masked.items():
                self._masked[type_] += count

    def _note_failure(self, record: CallRecord) -> str:
        code = record.error_code
        if code is None:
            return CLIENT_GONE
        if not record.attempts:
            self._rejections[code] += 1
        if record.refused_by is not None:
            self._refusals[record.caller, record.refused_by] += 1
        return code

    def _meet(self, likeness: Likeness) -> Cell:
        _, operation, stream, _, _, upstream, _ = likeness
        answering = self._upstreams[upstream] if upstream is not None else Answering()  # which nobody will look at
        cell = self._cells[likeness] = Cell(self._timings[operation, stream], answering, stream=stream)
        return cell

    def collect(self, upstreams: Iterable[str]) -> Iterator[Metric]:
        """`upstreams` are those that are configured: they are told of before anybody asks them."""
        for name in upstreams:
            self._upstreams[name]
        yield families.IN_FLIGHT.one(self._in_flight)
        yield from self._collect_counts()
        yield from self._collect_times()
        yield families.REJECTIONS.of(((code,), count) for code, count in self._rejections.items())
        refused = sum(self._refusals.values())
        decided = sum(cell.decided for cell in self._cells.values())
        yield families.CALLER_REFUSALS.of(self._refusals.items())
        yield families.DECISIONS.of([(("admitted",), decided - refused), (("refused",), refused)])
        yield families.DEGRADED.of(((basis,), count) for basis, count in self._degraded.items())
        yield families.MASKED.of(((type_,), count) for type_, count in self._masked.items())
        yield families.MASKED_REQUESTS.one(self._masked_requests)

    def totals(self, upstreams: Iterable[str]) -> Totals:
        """All of it summed up, for those who look at differences. `upstreams` as in `collect`."""
        ends = dict.fromkeys(ENDS, 0)
        prompt_tokens = completion_tokens = 0
        attempts = {name: [0, 0] for name in {**dict.fromkeys(upstreams), **self._upstreams}}
        for (_, _, _, status, code, upstream, _), cell in self._cells.items():
            ends[_end_of(status, code)] += cell.count
            prompt_tokens += cell.prompt_tokens
            completion_tokens += cell.completion_tokens
            if upstream is not None:
                attempts[upstream][0] += cell.at_once
        for name, did in self._upstreams.items():
            attempts[name][0] += sum(did.outcomes.values())
            attempts[name][1] += sum(count for outcome, count in did.outcomes.items() if outcome not in _NO_FAILURES)
        return Totals(
            in_flight=self._in_flight,
            **ends,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            first_bytes=_merged(timing.first_bytes for (_, stream), timing in self._timings.items() if stream),
            answers=_merged(did.seconds[False] for did in self._upstreams.values()),
            attempts={name: (asked, failed) for name, (asked, failed) in attempts.items()},
        )

    def callers(self) -> dict[str, tuple[int, int]]:
        """Requests and tokens, by the label of the caller."""
        asked: dict[str, tuple[int, int]] = {}
        for (caller, _, _, _, _, _, _), cell in self._cells.items():
            requests, tokens = asked.get(caller, (0, 0))
            asked[caller] = requests + cell.count, tokens + cell.prompt_tokens + cell.completion_tokens
        return asked

    def _collect_counts(self) -> Iterator[Metric]:
        """Sums over all cells; each of them is looked at once."""
        requests, callers, attempts = _Sum(), _Sum(), _Sum()
        caller_tokens, route_tokens = _Sum(), _Sum()
        for (caller, operation, _, status, code, upstream, route), cell in self._cells.items():
            requests[OPERATION_NAMES[operation], str(status), code or NONE] += cell.count
            callers[caller, STATUS_CLASSES[status // 100]] += cell.count
            if upstream is not None:
                attempts[upstream, _OK] += cell.at_once
            if route is not None:
                for direction, count in (("prompt", cell.prompt_tokens), ("completion", cell.completion_tokens)):
                    caller_tokens[caller, direction] += count
                    route_tokens[route, direction] += count
        for name, upstream_did in self._upstreams.items():
            for outcome, count in upstream_did.outcomes.items():
                attempts[name, outcome] += count
        yield families.REQUESTS.of(requests.items())
        yield families.CALLER_REQUESTS.of(callers.items())
        yield families.CALLER_TOKENS.of(caller_tokens.items())
        yield families.TOKENS.of(route_tokens.items())
        yield families.ATTEMPTS.of(attempts.items())

    def _collect_times(self) -> Iterator[Metric]:
        timings = [((OPERATION_NAMES[of], KINDS[stream]), timing) for (of, stream), timing in self._timings.items()]
        yield families.DURATIONS.spread((labels, timing.durations) for labels, timing in timings)
        streams = [((OPERATION_NAMES[of],), timing) for (of, stream), timing in self._timings.items() if stream]
        yield families.FIRST_BYTES.spread((labels, timing.first_bytes) for labels, timing in streams)
        yield families.OVERHEADS.spread((labels, timing.overheads) for labels, timing in timings)
        upstreams = self._upstreams.items()
        yield families.ATTEMPT_SECONDS.spread(
            ((name, kind), tally) for name, did in upstreams for kind, tally in zip(KINDS, did.seconds, strict=True)
        )
        yield families.TOKEN_SECONDS.spread(((name,), did.token_seconds) for name, did in upstreams)


def _end_of(status: int, code: str | None) -> str:
    if code is None or code == CLIENT_GONE:
        return "left" if code else "answered"
    return "refused" if 400 <= status < 500 else "failed"


def _merged(tallies: Iterable[Tally]) -> tuple[int, ...]:
    """The counts of several over the same bounds."""
    return tuple(map(sum, zip([0] * (len(SECONDS) + 1), *(tally.counts for tally in tallies), strict=True)))


class _Sum(defaultdict[tuple[str, ...], int]):
    def __init__(self) -> None:
        super().__init__(int)
