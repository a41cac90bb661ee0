"""How much a caller may ask for: one look before the body is read, one decision after it was understood, one settlement
when it is over.

For:      reserve, then settle: what a request may cost is taken from the caller's limits before an upstream is asked,
          and what it did cost takes that place, once, on every way out.
Touches:  the store of limits, by its protocol; the record.
"""

import math
from collections.abc import Callable
from typing import Final, NoReturn

from nexus_gateway.core.account import Basis, Cost, Decision, Hold
from nexus_gateway.core.body import with_output_limit
from nexus_gateway.core.errors import LimitsUnavailable, RateLimited
from nexus_gateway.core.model import Call, CallRecord, Operation, Principal, Usage, Verdict
from nexus_gateway.core.tokens import Estimate, Estimator
from nexus_gateway.stores.base import LimitStore

from .outcome import CANCELLED


class Admission:
    """Asks the store and tells the record; a refusal consumes nothing."""

    def __init__(self, store: LimitStore, estimator: Estimator, clock: Callable[[], float]) -> None:
        self._store = store
        self._estimator = estimator
        self._clock = clock

    def look(self, principal: Principal, record: CallRecord) -> None:
        """Refuse a caller known to be exhausted before its body is read. Consumes nothing. Raises RateLimited."""
        refused = self._store.look(principal, self._clock())
        if refused is not None:
            self._refuse(refused, None, record)

    async def admit(self, principal: Principal, call: Call, record: CallRecord) -> tuple[Call, Hold]:
        """The call as it may be asked, and what it holds until `settle`. Raises RateLimited, LimitsUnavailable."""
        estimate = None
        cost = _ONE_REQUEST
        if principal.tokens_per_minute is not None:
            estimate = self._estimator.estimate(call)
            cost = estimate.cost
            if principal.clamps_output:
                cost = Cost(cost.tokens, estimate.prompt + call.choices)
        now_s = self._clock()
        decision = self._store.admit_at_once(principal, cost, now_s)
        if decision is None:
            decision = await self._store.admit(principal, cost, now_s)
        if decision.hold is None:
            self._refuse(decision, estimate, record)
        self._note(decision, record)
        granted = decision.hold.tokens
        if estimate is not None and granted is not None and granted < cost.tokens:
            call = with_output_limit(call, (granted - estimate.prompt) // call.choices)
        return call, decision.hold

    def settle(self, hold: Hold | None, call: Call | None, record: CallRecord) -> None:
        """Give back what was reserved and take what was used. Also counts the usage that no upstream told."""
        if record.usage is None and call is not None and _was_served(record):
            sent = self._estimator.sent_tokens(record.sent_text_bytes, record.events)
            answered = 0 if call.operation is Operation.EMBEDDINGS else sent
            record.usage = Usage(self._estimator.estimate(call).prompt, answered)
            record.is_usage_estimated = True
        if hold is not None and not hold.is_settled:
            usage = record.usage
            used = usage.prompt_tokens + usage.completion_tokens if usage is not None else 0
            self._store.settle(hold, used, self._clock())

    def _note(self, decision: Decision, record: CallRecord) -> None:
        record.verdict = decision.requests
        record.token_verdict = decision.tokens
        record.limit_basis = decision.basis.value

    def _refuse(self, decision: Decision, estimate: Estimate | None, record: CallRecord) -> NoReturn:
        self._note(decision, record)
        refusal = decision.refusal
        if refusal is None or decision.basis is Basis.NONE:
            record.refused_by = "store"
            raise LimitsUnavailable("The store of limits is away, and nobody is let in without it.", retry_after_s=1.0)
        resource, verdict = refusal
        record.refused_by = resource
        raise RateLimited(_explain(resource, verdict, estimate), resource=resource, retry_after_s=verdict.retry_after_s)


_ONE_REQUEST: Final = Cost()


def _explain(resource: str, verdict: Verdict, estimate: Estimate | None) -> str:
    wait = f"try again in {verdict.retry_after_s:.1f} s"
    if resource == "concurrency":
        return f"{verdict.limit} requests are under way, as many as may be at once; {wait}."
    if math.isinf(verdict.retry_after_s) and estimate is not None:
        return (
            f"The request may take {estimate.cost.tokens} tokens (prompt {estimate.prompt}, output {estimate.output}), "
            f"more than the whole limit of {verdict.limit} per minute; ask for less with max_tokens."
        )
    return f"The limit of {verdict.limit} {resource} per minute is used up; {wait}."


def _was_served(record: CallRecord) -> bool:
    """Something was sent; or the caller left while an upstream was at work: its prompt was read, and dropping the line
    makes nothing free."""
    if record.events or record.sent_text_bytes:
        return True
    return any(attempt.outcome == CANCELLED for attempt in record.attempts)
