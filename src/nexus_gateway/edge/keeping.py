"""A wire that remembers what went over it.

For:      an audit that is to hold prompts and answers. Where it is not, no request comes by here.
Touches:  the wire below.
"""

from nexus_gateway.core.audit_bodies import Kept

from .wire import Headers, Wire


class KeepingWire:
    """Implements `Wire` by another one, and tells `kept` what the caller sent and was sent."""

    __slots__ = ("_kept", "_wire")

    def __init__(self, wire: Wire, kept: Kept) -> None:
        self._wire = wire
        self._kept = kept

    @property
    def gone(self) -> bool:
        return self._wire.gone

    @gone.setter
    def gone(self, gone: bool) -> None:
        self._wire.gone = gone

    @property
    def client(self) -> str | None:
        return self._wire.client

    @client.setter
    def client(self, client: str | None) -> None:
        self._wire.client = client

    async def read_body(self, limit_bytes: int) -> bytes:
        body = await self._wire.read_body(limit_bytes)
        self._kept.take_prompt(body)
        return body

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._kept.take_answer(body)
        await self._wire.answer(status, headers, body)

    async def start(self, status: int, headers: Headers) -> None:
        await self._wire.start(status, headers)

    async def write(self, piece: bytes) -> None:
        self._kept.take_piece(piece)
        await self._wire.write(piece)

    async def finish(self, piece: bytes) -> None:
        self._kept.take_piece(piece)
        await self._wire.finish(piece)
