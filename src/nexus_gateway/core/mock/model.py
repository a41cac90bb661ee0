"""The mock model as a whole: an operation and a body in, a status and bytes out.

For:      whoever sends the answer on its way.
Touches:  nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from nexus_gateway.core.model import Operation

from .answers import answer
from .faults import error_body
from .requests import BadRequest
from .vectors import embed
from .writing import write_events, write_plain


@dataclass(frozen=True, slots=True)
class Response:
    """`pieces`: the body, in one, or the events of a stream, which are made while they are taken."""

    status: int
    pieces: Iterable[bytes]
    is_stream: bool = False


def respond(operation: Operation, body: bytes, length: int | None = None) -> Response:
    """To any body at all. Whether it is a stream, the body says. `length`: tokens of every text."""
    try:
        if operation is Operation.EMBEDDINGS:
            return Response(200, (embed(body),))
        decided = answer(operation, body, length)
    except BadRequest as exc:
        return Response(400, (error_body(400, exc.message, exc.param),))
    if decided.is_stream:
        return Response(200, write_events(decided), is_stream=True)
    return Response(200, (write_plain(decided),))


def refuse(status: int) -> Response:
    """What a server that answers `status`, other than 200, sends. Below 400 that is nothing but the head."""
    if status < 400:
        return Response(status, ())
    return Response(status, (error_body(status, f"The mock model was told to answer {status}."),))
