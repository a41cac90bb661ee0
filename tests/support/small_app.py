"""An application small enough to see what the server alone does: inference is a script, everything else an echo."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from nexus_gateway.core.errors import GatewayError
from nexus_gateway.core.model import Operation
from nexus_gateway.edge.errors import render
from nexus_gateway.edge.protocol import SERVING
from nexus_gateway.edge.wire import Headers, Wire

JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class Call:
    """One request for inference. `ending` says how its task ended:
    "answered", "refused", "gone", or "told to end"."""

    headers: Headers
    wire: Wire
    ending: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    taken_bytes: int = 0  # of a stream, as far as the wire took it

    async def answer(self, status: int, body: bytes) -> None:
        await self.wire.answer(status, [JSON, (b"content-length", b"%d" % len(body))], body)


Script = Callable[[Call], Awaitable[None]]


async def echo(call: Call) -> None:
    await call.answer(200, await call.wire.read_body(16 << 20))


async def refuse_unread(call: Call) -> None:
    await call.answer(413, b'"too much"')


async def hang(call: Call) -> None:
    await call.wire.read_body(1 << 20)
    await asyncio.Event().wait()


async def hang_unread(_call: Call) -> None:
    await asyncio.Event().wait()


async def hang_in_stream(call: Call) -> None:
    await call.wire.read_body(1 << 20)
    await call.wire.start(200, [])
    await call.wire.write(b"first")
    await asyncio.Event().wait()


async def flood(call: Call) -> None:
    await call.wire.read_body(1 << 20)
    await call.wire.start(200, [])
    while True:
        await call.wire.write(b"x" * 65_536)
        call.taken_bytes += 65_536


class SmallApp:
    """Is its own data plane. `begun` gives the calls in the order in which their tasks began."""

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.begun: asyncio.Queue[Call] = asyncio.Queue()
        self.usual: list[dict[str, Any]] = []  # the scopes of all other requests
        self.usual_reads_body = True
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()

    @property
    def data_plane(self) -> "SmallApp":
        return self

    def refused(self, code: str) -> None:
        """Only what is a request is anything to it."""

    def exchange(
        self, _operation: Operation, headers: Headers, _fields: Mapping[bytes, bytes], wire: Wire
    ) -> Coroutine[Any, Any, None]:
        return self._run(Call(headers, wire))

    async def _run(self, call: Call) -> None:
        self.begun.put_nowait(call)
        try:
            await self.script(call)
            call.ending = "answered"
        except GatewayError as error:
            call.ending = "refused"
            status, _, body = render(error)
            await call.answer(status, body)
        except asyncio.CancelledError:
            call.ending = "gone" if call.wire.gone else "told to end"
            if not call.wire.gone:
                await call.answer(503, b'"shutting down"')
        finally:
            call.ended.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.usual.append(scope)
        body, more = b"", self.usual_reads_body
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                scope["left"] = True
                return
            body += message["body"]
            more = message["more_body"]
        shown = {name: scope[name] for name in ("method", "path", "http_version")}
        shown |= {"body": body.decode(), "draining": scope["extensions"][SERVING].draining}
        answer = json.dumps(shown).encode()
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": answer})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.closing.set()
        await self.may_close.wait()
        await send({"type": "lifespan.shutdown.complete"})
