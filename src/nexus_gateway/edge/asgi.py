"""The data plane: `/v1` and nothing else.

For:      dispatching a request to its exchange without a framework on the way.
Touches:  the server, by `receive` and `send`; under a server other than ours, one watcher task per request.
"""

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec

from nexus_gateway.core.audit_bodies import Kept
from nexus_gateway.core.errors import GatewayError, MethodNotAllowed, ModelNotFound, UnsupportedEndpoint
from nexus_gateway.core.model import CallRecord, Operation, Principal
from nexus_gateway.observe.base import Observer
from nexus_gateway.pipeline.endpoint import Endpoint
from nexus_gateway.pipeline.handle import Pipeline
from nexus_gateway.pipeline.tasks import Tasks

from .errors import Rendered, render
from .exchange import Exchange
from .keeping import KeepingWire
from .request_id import HEADER, id_source, request_id_of
from .wire import AsgiWire, Headers, Receive, Scope, Send, Wire

PREFIX: Final = "/v1"
MODELS: Final = "/v1/models"
OPERATIONS: Final = {PREFIX + operation.value: operation for operation in Operation}


class DataPlane:
    """Everything below `/v1`. One instance serves all requests. `keep`: the audit is to hold prompts and answers."""

    def __init__(
        self,
        pipeline: Pipeline,
        observer: Observer,
        tasks: Tasks,
        *,
        max_body_bytes: int,
        keep: Callable[[Operation], Kept] | None = None,
        refused: Callable[[str], None] = lambda code: None,
    ) -> None:
        """`refused` hears the code of what was no request, and so is no observer's business."""
        self._pipeline = pipeline
        self._observer = observer
        self._tasks = tasks
        self._max_body_bytes = max_body_bytes
        self._keep = keep
        self.refused = refused
        self._new_id = id_source()
        self._created = int(time.time())

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return self._pipeline.endpoints

    def exchange(
        self, operation: Operation, headers: Headers, fields: Mapping[bytes, bytes], wire: Wire
    ) -> Coroutine[Any, Any, None]:
        """The whole life of one request, for the server's task to run. `fields` are the last of each of `headers`."""
        record = CallRecord(request_id_of(fields, self._new_id), operation, time.time(), time.monotonic())
        if self._keep is not None:
            record.bodies = kept = self._keep(operation)
            wire = KeepingWire(wire, kept)
        return Exchange(self._pipeline, self._observer, self._max_body_bytes, headers, fields, record, wire).run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = OPERATIONS.get(scope["path"])
        if operation is not None and scope["method"] == "POST":
            await self._run_watched(operation, scope["headers"], AsgiWire(receive, send, _peer(scope)))
        else:
            await self._answer_other(scope, send)

    async def _run_watched(self, operation: Operation, headers: Headers, wire: AsgiWire) -> None:
        """Under another server somebody has to wait for the caller to leave."""
        exchange = self._tasks.spawn(self.exchange(operation, headers, dict(headers), wire), name="exchange")
        watcher = self._tasks.spawn(wire.until_gone(exchange), name="watch caller")
        try:
            await exchange
        finally:
            exchange.cancel()
            watcher.cancel()

    async def _answer_other(self, scope: Scope, send: Send) -> None:
        try:
            status, headers, body = await self._other(scope)
        except GatewayError as error:
            status, headers, body = render(error)
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((HEADER, request_id_of(dict(scope["headers"]), self._new_id).encode("ascii")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _other(self, scope: Scope) -> Rendered:
        path = scope["path"]
        if path in OPERATIONS:
            raise MethodNotAllowed(f"{path} answers POST only.", allowed="POST")
        if path != MODELS and not path.startswith(MODELS + "/"):
            supported = ", ".join([*OPERATIONS, MODELS])
            raise UnsupportedEndpoint(f"The gateway does not serve this path. It serves {supported}.")
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{MODELS} answers GET, HEAD only.", allowed="GET, HEAD")
        headers = scope["headers"]
        principal = await self._pipeline.authenticator.authenticate(headers, dict(headers), _peer(scope))
        body = msgspec.json.encode(self._models(path.removeprefix(MODELS).removeprefix("/"), principal))
        return 200, [(b"content-type", b"application/json")], body

    def _models(self, wanted: str, principal: Principal) -> dict[str, Any]:
        names = self._pipeline.routes.models
        if principal.allowed_models is not None:
            names = tuple(name for name in names if principal.allowed_models.allows(name))
        if not wanted:
            return {"object": "list", "data": [self._model(name) for name in names]}
        if wanted not in names:
            raise ModelNotFound(f"The model '{wanted[:128]}' does not exist or you do not have access to it.")
        return self._model(wanted)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "nexus-gateway"}


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
