"""What is remembered of failures: each kind once, the newest ones, whoever fails most."""

from nexus_gateway.core.model import AttemptRecord, CallRecord, Operation
from nexus_gateway.observe.failures import Failures


def ended(code: str | None, *, key_id: str = "key-1", request_id: str = "r", upstream: str | None = None) -> CallRecord:
    attempts = [AttemptRecord(upstream, "timeout", None, 1.0)] if upstream is not None else []
    status = 200 if code is None else 504
    record = CallRecord(request_id, Operation.CHAT, 1000.0, 0.0, key_id=key_id, status=status, attempts=attempts)
    record.error_code = code
    return record


def test_what_went_well_is_no_failure() -> None:
    failures = Failures()
    failures.finished(ended(None))
    assert list(failures) == []


class Kept:
    def tell(self, key_id: str) -> tuple[None, None]:
        return None, None

    def free(self) -> None: ...


def test_prompts_and_answers_kept_for_the_audit_are_not_held_on_to() -> None:
    failures, record = Failures(), ended("circuit_open")
    record.bodies = Kept()
    for _ in range(2):
        failures.finished(record)
    (failure,) = failures
    assert (failure.count, failure.last.bodies) == (2, None)
    assert record.bodies is not None


def test_equal_failures_are_one_and_show_the_newest_request() -> None:
    failures = Failures()
    for number in range(1000):
        failures.finished(ended("upstream_timeout", request_id=f"r{number}", upstream="a"))
    failures.finished(ended("upstream_timeout", request_id="other", upstream="b"))
    (newest, oldest) = failures
    assert (newest.count, newest.last.request_id) == (1, "other")
    assert (oldest.count, oldest.last.request_id) == (1000, "r999")


def test_a_caller_that_fails_all_the_time_hides_nobody() -> None:
    failures = Failures(most=3)
    failures.finished(ended("circuit_open", key_id="quiet"))
    for _ in range(100):
        failures.finished(ended("rate_limit_exceeded", key_id="loud"))
    assert [failure.last.key_id for failure in failures] == ["loud", "quiet"]


def test_the_kind_that_was_not_seen_for_longest_goes_first() -> None:
    failures = Failures(most=3)
    for key_id in ("a", "b", "c", "a", "d"):
        failures.finished(ended("circuit_open", key_id=key_id))
    assert [failure.last.key_id for failure in failures] == ["d", "a", "c"]
