"""What of a request may leave: identifiers become placeholders, and come back in the answer.

For:      one step between admission and the upstreams. A failure here blocks the request, never lets it pass.
Touches:  the loop, to which it gives a turn between stretches of work.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from nexus_gateway.core.body import with_body
from nexus_gateway.core.errors import MaskingFailed
from nexus_gateway.core.model import Call, CallRecord, Operation, Principal
from nexus_gateway.core.pii import Masked, Masker, Restorer, Restoring
from nexus_gateway.core.pii.reply import ReplyRestorer

_NONE_FOUND: Final[dict[str, int]] = {}  # of all records alike: nobody writes into it


class Screened:
    """A call with placeholders, and the way back. Upstreams with `mask=off` are sent the original instead."""

    __slots__ = ("_restorer", "_says_json", "call")

    def __init__(self, call: Call, masked: Masked, policy: Restoring) -> None:
        self.call = with_body(call, masked.body)
        self._says_json = b"json" in bytes(call.members.get("response_format", b""))
        self._restorer = None if call.operation is Operation.EMBEDDINGS else Restorer(masked.table, policy)

    def restorer(self) -> ReplyRestorer | None:
        """For one answer. None where nothing is to be put back."""
        return None if self._restorer is None else ReplyRestorer(self._restorer, says_json=self._says_json)


class Screen:
    """`timeout_s` bounds the work on one request; large bodies are worked on in steps."""

    def __init__(self, masker: Masker, policy: Restoring, timeout_s: float, clock: Callable[[], float]) -> None:
        self._masker = masker
        self._policy = policy
        self._timeout_s = timeout_s
        self._clock = clock

    def takes_steps(self, call: Call) -> bool:
        """Whether the call is too large for `screen`."""
        return self._masker.needs_steps(call.body)

    def screen(self, call: Call, principal: Principal, record: CallRecord) -> Screened | None:
        """None when there is nothing to hide. Raises MaskingFailed."""
        deadline_s = self._clock() + self._timeout_s
        masked = self._masker.mask_body(call.body, call.operation, principal.key_id)
        self._require_time(deadline_s)
        return self._screened(call, masked, record)

    async def screen_in_steps(self, call: Call, principal: Principal, record: CallRecord) -> Screened | None:
        """The same, giving the loop a turn after every few milliseconds."""
        deadline_s = self._clock() + self._timeout_s
        steps = self._masker.mask_steps(call.body, call.operation, principal.key_id)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return self._screened(call, done.value, record)
            self._require_time(deadline_s)
            await asyncio.sleep(0)

    def _screened(self, call: Call, masked: Masked | None, record: CallRecord) -> Screened | None:
        if masked is None:
            record.masked = _NONE_FOUND
            return None
        record.masked = dict(masked.counts)
        return Screened(call, masked, self._policy)

    def _require_time(self, deadline_s: float) -> None:
        if self._clock() > deadline_s:
            raise MaskingFailed(f"Masking took longer than {self._timeout_s:g} s (GATEWAY_PII_TIMEOUT_SECONDS).")
