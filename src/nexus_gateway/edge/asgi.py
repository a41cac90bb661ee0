"""The data plane as a raw ASGI application: `/v1` and nothing else.

For:      dispatching a request to its exchange without a framework on the way.
Touches:  the server, by `receive` and `send`; under a server other than ours, one watcher task per request.
"""

import asyncio
import time
from typing import Any, Final

import msgspec

from nexus_gateway.core.errors import GatewayError, MethodNotAllowed, ModelNotFound, UnsupportedEndpoint
from nexus_gateway.core.model import Operation
from nexus_gateway.observe.base import Observer
from nexus_gateway.pipeline.handle import Pipeline
from nexus_gateway.pipeline.tasks import Tasks

from .errors import render
from .exchange import PRESENCE, Exchange, Presence, Receive, Scope, Send
from .request_id import id_source, request_id_of

PREFIX: Final = "/v1"
MODELS: Final = "/v1/models"
OPERATIONS: Final = {PREFIX + operation.value: operation for operation in Operation}


class DataPlane:
    """Everything below `/v1`. One instance serves all requests."""

    def __init__(self, pipeline: Pipeline, observer: Observer, tasks: Tasks, *, max_body_bytes: int) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._tasks = tasks
        self._max_body_bytes = max_body_bytes
        self._new_id = id_source()
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = OPERATIONS.get(scope["path"])
        if operation is None or scope["method"] != "POST":
            await self._answer_other(scope, send)
            return
        extensions = scope.get("extensions")
        if extensions is not None and PRESENCE in extensions:
            await self._exchange(operation, scope, receive, send, extensions[PRESENCE]).run()
        else:
            await self._run_watched(operation, scope, receive, send)

    def _exchange(
        self, operation: Operation, scope: Scope, receive: Receive, send: Send, presence: Presence
    ) -> Exchange:
        return Exchange(
            self._pipeline,
            self._observer,
            self._max_body_bytes,
            operation,
            scope,
            receive,
            send,
            presence,
            self._new_id,
        )

    async def _run_watched(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        """Under a server that does not cancel us when the caller leaves, somebody has to wait for it."""
        watch = Watch(receive)
        exchange = self._exchange(operation, scope, watch.receive, send, watch)
        caller = self._tasks.spawn(exchange.run(), name="exchange")
        watcher = self._tasks.spawn(watch.until_gone(caller), name="watch caller")
        try:
            await caller
        finally:
            caller.cancel()
            watcher.cancel()

    async def _answer_other(self, scope: Scope, send: Send) -> None:
        request_id = request_id_of(scope["headers"], self._new_id)
        try:
            status, headers, body = self._other(scope)
        except GatewayError as error:
            status, headers, body = render(error)
        headers.append((b"x-request-id", request_id.encode("ascii")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _other(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        path = scope["path"]
        if path in OPERATIONS:
            raise MethodNotAllowed(f"{path} answers POST only.", allowed="POST")
        if path != MODELS and not path.startswith(MODELS + "/"):
            supported = ", ".join([*OPERATIONS, MODELS])
            raise UnsupportedEndpoint(f"The gateway does not serve this path. It serves {supported}.")
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{MODELS} answers GET only.", allowed="GET, HEAD")
        self._pipeline.authenticator.authenticate(scope["headers"])
        body = msgspec.json.encode(self._models(path.removeprefix(MODELS).removeprefix("/")))
        return 200, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body

    def _models(self, wanted: str) -> dict[str, Any]:
        names = self._pipeline.routes.models
        if not wanted:
            return {"object": "list", "data": [self._model(name) for name in names]}
        if wanted not in names:
            raise ModelNotFound(f"The model '{wanted[:128]}' does not exist or you do not have access to it.")
        return self._model(wanted)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "nexus-gateway"}


class Watch:
    """Stands between a server and an exchange: hands the body on, then waits for the caller to leave."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._body_read = asyncio.Event()
        self.gone = False

    async def receive(self) -> Any:
        message = await self._receive()
        if not message.get("more_body"):
            self._body_read.set()
        return message

    async def until_gone(self, caller: asyncio.Task[None]) -> None:
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        caller.cancel()
