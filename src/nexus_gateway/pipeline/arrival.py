"""A request as the edge hands it over, and the answer as it gets it back."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from nexus_gateway.core.account import Hold
from nexus_gateway.core.model import Call, CallRecord, Operation
from nexus_gateway.upstreams.base import Headers

from .screen import Screened
from .stream import EventStream


class Arrival(msgspec.Struct):
    """`headers` are the caller's, lower-case names; `fields` the same by name, the last of each. `read_body` reads the
    body once, to the limit, and raises BodyTooLarge beyond it."""

    operation: Operation
    headers: Headers
    fields: Mapping[bytes, bytes]
    read_body: Callable[[], Awaitable[bytes]]
    record: CallRecord
    call: Call | None = None  # once the body was understood
    screened: Screened | None = None  # the same with placeholders, where something is to be hidden
    hold: Hold | None = None  # of the caller's limits, until the pipeline settles it
    client: str | None = None  # the address at the other end of the connection: the caller's, or a proxy's


class Answer(msgspec.Struct):
    """A success. `headers` are what the upstream may tell the caller, besides the content type.

    `served` wants to hear once, when the caller has the answer (True) or did not stay for it (False).
    """

    headers: list[tuple[bytes, bytes]]
    body: bytes | EventStream
    served: Callable[[bool], None] | None = None


async def no_body() -> bytes:
    """For requests whose body was read before."""
    raise AssertionError("the body was read before")
