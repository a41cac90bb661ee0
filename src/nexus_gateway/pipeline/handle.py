"""The journey of a request: authenticated, admitted, routed, executed.

For:      one place that reads as that sentence; each step is a file beside it.
Touches:  nothing itself.
"""

import time
from collections.abc import Mapping
from typing import Final

from nexus_gateway.core.body import parse_call
from nexus_gateway.core.errors import AuditUnavailable, ModelNotAllowed, UnsupportedMediaType
from nexus_gateway.core.model import Principal
from nexus_gateway.observe.base import AuditState

from .admit import Admission
from .arrival import Answer, Arrival
from .authenticate import Authenticator
from .endpoint import Endpoint
from .execute import Executor
from .route import Routes
from .screen import Screen

_JSON: Final = b"application/json"


class Pipeline:
    """Holds the steps. What it returns or raises is all there is to tell the caller."""

    def __init__(
        self,
        authenticator: Authenticator,
        admission: Admission,
        routes: Routes,
        executor: Executor,
        screen: Screen | None = None,
        audit: AuditState | None = None,
    ) -> None:
        self.authenticator = authenticator
        self.routes = routes
        self._admission = admission
        self._executor = executor
        self._screen = screen
        self._audit = audit

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """All upstreams, by name."""
        return self._executor.endpoints

    async def handle(self, arrival: Arrival) -> Answer:
        """Raises GatewayError kinds. A stream in the answer belongs to the one who called."""
        record = arrival.record
        record.client = self.authenticator.address_of(arrival.client, arrival.headers)
        if self._audit is not None and self._audit.refuses:
            raise AuditUnavailable("Requests are not served while the audit log cannot be written.")
        principal = self.authenticator.recognise(arrival.headers, arrival.fields)
        if principal is None:
            principal = await self.authenticator.look_closer(arrival.headers, arrival.fields, arrival.client)
        record.key_id, record.caller = principal.key_id, principal.label
        self._admission.look(principal, record)
        _require_json(arrival.fields)
        body = await arrival.read_body()
        record.body_at_s = time.monotonic()
        record.request_bytes = len(body)
        call = parse_call(arrival.operation, body)
        record.stream, record.model = call.stream, call.model
        _require_model(principal, call.model)
        route = self.routes.find(call.model)
        record.route = route.name
        arrival.call, arrival.hold = await self._admission.admit(principal, call, record)
        if self._screen is not None:
            if self._screen.takes_steps(arrival.call):
                arrival.screened = await self._screen.screen_in_steps(arrival.call, principal, record)
            else:
                arrival.screened = self._screen.screen(arrival.call, principal, record)
        return await self._executor.execute(arrival.call, route, principal, arrival)

    def finish(self, arrival: Arrival) -> None:
        """Settle what the request held. Called once, however it ended, when nothing more will be sent."""
        self._admission.settle(arrival.hold, arrival.call, arrival.record)


def _require_model(principal: Principal, model: str) -> None:
    """A policy is about the name that the caller uses, whoever answers to it then."""
    if principal.allowed_models is not None and not principal.allowed_models.allows(model):
        raise ModelNotAllowed(f"You may not use the model '{model[:128]}'.", param="model")


def _require_json(fields: Mapping[bytes, bytes]) -> None:
    given = fields.get(b"content-type", b"")
    if given != _JSON and given.partition(b";")[0].strip().lower() != _JSON:
        raise UnsupportedMediaType("The content type must be application/json.")
