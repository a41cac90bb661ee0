"""Who is configured to call, and what each has used of its limits.

For:      operators' view of keys and tokens.
Touches:  the store of limits, by asking what is used; it consumes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexus_gateway.core.access import CallerPolicy
from nexus_gateway.core.model import Principal
from nexus_gateway.stores.base import LimitStore, Use


@dataclass(frozen=True, slots=True)
class Caller:
    """A key, or the tokens of one `subject` ("*": of all others).

    `key_id` is None where one rule stands for many callers, or for one whose issuer is not known beforehand.
    """

    policy: CallerPolicy
    key_id: str | None
    subject: str | None = None

    @property
    def principal(self) -> Principal | None:
        return None if self.key_id is None else self.policy.principal(self.key_id)


class Callers:
    """In the order of the configuration. `clock` is the one that limits go by."""

    def __init__(self, known: Sequence[Caller], store: LimitStore, clock: Callable[[], float]) -> None:
        self._known = tuple(known)
        self._names = {caller.key_id: caller.policy.name for caller in known if caller.key_id is not None}
        self._store = store
        self._clock = clock

    def __len__(self) -> int:
        return len(self._known)

    def name_of(self, key_id: str | None) -> str | None:
        """What the operator calls the caller."""
        return self._names.get(key_id) if key_id is not None else None

    async def use(self, first: int, most: int) -> list[tuple[Caller, Use | None]]:
        """`most` callers from the one at `first` on. None for a rule whose callers nobody can tell."""
        chosen = self._known[first : first + most]
        principals = [caller.principal for caller in chosen]
        used = iter(await self._store.use([each for each in principals if each is not None], self._clock()))
        return [
            (caller, None if principal is None else next(used))
            for caller, principal in zip(chosen, principals, strict=True)
        ]
