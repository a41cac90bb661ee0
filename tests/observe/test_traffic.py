"""What is counted of finished requests: nothing twice, nothing lost, whatever way they ended."""

import math
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric

from nexus_gateway.core.model import AttemptRecord, CallRecord, Operation, Usage
from nexus_gateway.observe.traffic import Traffic

CODES = ("rate_limit_exceeded", "upstream_timeout", "internal_error")
UPSTREAMS = ("a", "b")


@st.composite
def records(draw: st.DrawFn) -> CallRecord:
    """Records as the pipeline leaves them, usual ones and strange ones."""
    record = CallRecord("req", draw(st.sampled_from(Operation)), 0.0, 100.0)
    record.caller = draw(st.sampled_from(("none", "jwt", "team")))
    record.stream = draw(st.booleans())
    record.error_code = draw(st.sampled_from((None, None, *CODES)))
    record.client_gone = draw(st.booleans())
    record.status = draw(st.sampled_from((200, 200, 429, 499, 504)))
    record.route = draw(st.sampled_from((None, "chat", "code")))
    outcomes = st.sampled_from(("ok", "timeout", "cancelled"))
    attempts = draw(st.lists(st.tuples(st.sampled_from(UPSTREAMS), outcomes), max_size=3))
    if record.error_code is None and not record.client_gone:  # then the last attempt answered
        attempts = [*attempts, (draw(st.sampled_from(UPSTREAMS)), "ok")]
    record.attempts = [AttemptRecord(upstream, outcome, 200, draw(st.floats(0, 9))) for upstream, outcome in attempts]
    record.upstream = attempts[-1][0] if attempts else None
    if record.route is not None:
        record.usage = draw(st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9)))
    record.limit_basis = draw(st.sampled_from((None, "whole", "share")))
    if record.limit_basis is not None and record.error_code == "rate_limit_exceeded":
        record.refused_by = draw(st.sampled_from((None, "requests", "tokens")))
    record.masked = draw(st.none() | st.dictionaries(st.sampled_from(("EMAIL", "PHONE")), st.integers(1, 3)))
    record.first_byte_at_s = draw(st.none() | st.floats(100, 101))
    record.finished_at_s = draw(st.floats(101, 1000))
    record.body_at_s = 100.0
    return record


def told(finished: Iterable[CallRecord]) -> dict[str, Metric]:
    traffic = Traffic()
    for record in finished:
        traffic.started()
        traffic.finished(record)
    return {metric.name: metric for metric in traffic.collect(UPSTREAMS)}


def total(metric: Metric, suffix: str = "_total", **labels: str) -> float:
    matching = (s for s in metric.samples if s.name.endswith(suffix) and labels.items() <= s.labels.items())
    return math.fsum(sample.value for sample in matching)


@given(st.lists(records(), max_size=12))
def test_every_request_attempt_and_token_is_counted_once_in_each_view(finished: list[CallRecord]) -> None:
    metrics = told(finished)
    assert total(metrics["nexus_in_flight_requests"], "requests") == 0
    assert total(metrics["nexus_requests"]) == len(finished)
    assert total(metrics["nexus_caller_requests"]) == len(finished)
    assert total(metrics["nexus_request_duration_seconds"], "_count") == len(finished)
    attempts = Counter((each.upstream, each.outcome) for record in finished for each in record.attempts)
    for upstream in UPSTREAMS:
        for outcome in ("ok", "timeout", "cancelled"):
            counted = total(metrics["nexus_upstream_attempts"], upstream=upstream, outcome=outcome)
            assert counted == attempts[upstream, outcome]
    assert total(metrics["nexus_upstream_attempt_seconds"], "_count") == attempts.total()
    tokens = sum(r.usage.prompt_tokens + r.usage.completion_tokens for r in finished if r.usage is not None)
    assert total(metrics["nexus_tokens"]) == total(metrics["nexus_caller_tokens"]) == tokens
    refused = sum(record.refused_by is not None for record in finished)
    assert total(metrics["nexus_limiter_decisions"]) == sum(record.limit_basis is not None for record in finished)
    assert total(metrics["nexus_limiter_decisions"], decision="refused") == refused
    assert total(metrics["nexus_caller_refusals"]) == refused
    assert total(metrics["nexus_rejections"]) == sum(
        record.error_code is not None and not record.attempts for record in finished
    )
    assert total(metrics["nexus_masked_identifiers"]) == sum(sum((r.masked or {}).values()) for r in finished)


@given(st.lists(records(), max_size=12))
def test_the_totals_say_the_same_as_the_exposition(finished: list[CallRecord]) -> None:
    traffic = Traffic()
    for record in finished:
        traffic.started()
        traffic.finished(record)
    totals, metrics = traffic.totals(UPSTREAMS), {metric.name: metric for metric in traffic.collect(UPSTREAMS)}
    assert totals.answered + totals.refused + totals.failed + totals.left == len(finished)
    assert totals.answered == total(metrics["nexus_requests"], code="none")
    assert totals.left == total(metrics["nexus_requests"], code="client_gone")
    assert totals.prompt_tokens == total(metrics["nexus_tokens"], direction="prompt")
    assert totals.completion_tokens == total(metrics["nexus_tokens"], direction="completion")
    for caller, (requests, tokens) in traffic.callers().items():
        assert requests == total(metrics["nexus_caller_requests"], caller=caller)
        assert tokens == total(metrics["nexus_caller_tokens"], caller=caller)
    for upstream in UPSTREAMS:
        asked = total(metrics["nexus_upstream_attempts"], upstream=upstream)
        failed = total(metrics["nexus_upstream_attempts"], upstream=upstream, outcome="timeout")
        assert totals.attempts[upstream] == (asked, failed)
    assert sum(totals.first_bytes) == total(metrics["nexus_first_byte_seconds"], "_count")
    assert sum(totals.answers) == total(metrics["nexus_upstream_attempt_seconds"], "_count", kind="plain")


@given(st.lists(records(), max_size=12))
def test_times_add_up_and_their_buckets_only_rise(finished: list[CallRecord]) -> None:
    metrics = told(finished)
    took_s = math.fsum(record.finished_at_s - record.started_at_s for record in finished)
    assert total(metrics["nexus_request_duration_seconds"], "_sum") == pytest.approx(took_s)
    for metric in metrics.values():
        if metric.type == "histogram":
            series: dict[tuple[str, ...], list[float]] = {}
            for sample in metric.samples:
                if sample.name.endswith("_bucket"):
                    of = tuple(value for name, value in sample.labels.items() if name != "le")
                    series.setdefault(of, []).append(sample.value)
            assert all(counts == sorted(counts) for counts in series.values())


def answered(**changes: object) -> CallRecord:
    """A stream of 11 tokens: asked at 100, its body there at 101, begun at 103, ended at 104."""
    record = CallRecord("req", Operation.CHAT, 0.0, 100.0, stream=True, status=200, upstream="a", route="chat")
    record.body_at_s, record.first_byte_at_s, record.finished_at_s = 101.0, 103.0, 104.0
    record.attempts = [AttemptRecord("a", "ok", 200, 2.75)]
    record.usage = Usage(5, 11)
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def sums(record: CallRecord, name: str) -> list[float]:
    """How many observations, and their sum."""
    metric = told([record])[name]
    return [total(metric, "_count"), total(metric, "_sum")]


def test_the_gateways_own_time_is_what_neither_the_body_nor_the_upstream_took() -> None:
    assert sums(answered(), "nexus_overhead_seconds") == pytest.approx([1, 0.25])
    again = [AttemptRecord("a", "timeout", None, 1.0), AttemptRecord("a", "ok", 200, 1.0)]
    assert (
        sums(answered(attempts=again), "nexus_overhead_seconds")[0] == 0
    )  # between them the gateway waited on purpose
    assert sums(answered(error_code="upstream_truncated"), "nexus_overhead_seconds")[0] == 0


def test_the_time_per_token_begins_after_the_first_one_and_needs_a_true_count() -> None:
    assert sums(answered(), "nexus_output_token_seconds") == pytest.approx([1, 0.1])
    for change in ({"usage": Usage(5, 1)}, {"is_usage_estimated": True}, {"stream": False}, {"client_gone": True}):
        assert sums(answered(**change), "nexus_output_token_seconds")[0] == 0


def test_the_first_byte_is_told_of_streams_that_began_broken_ones_too() -> None:
    assert sums(answered(error_code="upstream_truncated"), "nexus_first_byte_seconds") == [1, 3.0]
    assert sums(answered(error_code="upstream_timeout", status=504), "nexus_first_byte_seconds")[0] == 0
    assert sums(answered(stream=False), "nexus_first_byte_seconds")[0] == 0


def test_a_caller_who_left_is_no_success() -> None:
    requests = told([answered(client_gone=True)])["nexus_requests"]
    assert total(requests, code="client_gone", status="200") == 1
