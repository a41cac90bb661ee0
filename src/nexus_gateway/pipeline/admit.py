"""How much a caller may ask for: one look before the body is read, one decision after it was understood."""

from collections.abc import Callable

from nexus_gateway.core.errors import RateLimited
from nexus_gateway.core.model import CallRecord, Principal
from nexus_gateway.stores.base import Cost, LimitStore, Verdict


class Admission:
    """Asks the store and tells the record; a refusal consumes nothing."""

    def __init__(self, store: LimitStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def look(self, principal: Principal, record: CallRecord) -> None:
        """Refuse a caller known to be exhausted before its body is read. Consumes nothing. Raises RateLimited."""
        refused = self._store.look(principal, self._clock())
        if refused is not None and refused.requests is not None:
            self._refuse(refused.requests, record)

    async def admit(self, principal: Principal, record: CallRecord) -> None:
        """Take one request from the caller's limit. Raises RateLimited."""
        decision = await self._store.admit(principal, Cost(), self._clock())
        verdict = record.verdict = decision.requests
        if verdict is not None and not verdict.allowed:
            self._refuse(verdict, record)

    def _refuse(self, verdict: Verdict, record: CallRecord) -> None:
        record.verdict = verdict
        raise RateLimited(
            f"The limit of {verdict.limit} requests per minute is used up; try again in {verdict.retry_after_s:.1f} s.",
            resource="requests",
            retry_after_s=verdict.retry_after_s,
        )
