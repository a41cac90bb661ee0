"""Limits kept in this process.

For:      one gateway process alone; the reference for every other store.
Touches:  memory only. The caller brings the clock; nothing here waits.
"""

from collections.abc import Sequence

from nexus_gateway.core.account import Account, Cost, Decision, Hold, Use
from nexus_gateway.core.model import Principal

from .accounts import Accounts


class MemoryLimitStore:
    """Accounts by principal. Needs no lock: a decision is a stretch without `await`."""

    def __init__(self) -> None:
        self._accounts = Accounts(Account)

    def __len__(self) -> int:
        """Principals that are remembered."""
        return len(self._accounts)

    def look(self, principal: Principal, now_s: float) -> Decision | None:
        account = self._accounts.find(principal.key_id)
        return None if account is None else account.look(principal, now_s)

    async def admit(self, principal: Principal, cost: Cost, now_s: float) -> Decision:
        return self.admit_at_once(principal, cost, now_s)

    def admit_at_once(self, principal: Principal, cost: Cost, now_s: float) -> Decision:
        if principal.is_unlimited:
            return Decision(hold=Hold.of(principal, 0))
        return self._accounts.open(principal.key_id, now_s).admit(principal, cost, now_s)

    def settle(self, hold: Hold, used_tokens: int, now_s: float) -> None:
        if hold.is_settled:
            return
        hold.is_settled = True
        account = self._accounts.find(hold.key_id)
        if account is not None:  # with anything left to settle an account is never idle, and so never forgotten
            account.settle(hold, used_tokens, now_s)

    async def use(self, principals: Sequence[Principal], now_s: float) -> list[Use]:
        return [(self._accounts.find(each.key_id) or Account()).use(each, now_s) for each in principals]
