"""The seam between the pipeline and every kind of destination.

For:      sending one attempt and reading its answer, whatever the protocol below.
Touches:  nothing itself; adapters implement `Upstream` and `Reply`.

An adapter speaks OpenAI-shaped bytes upwards: a JSON body for a plain answer, `data: …\n\n` events for a stream. It
raises `UpstreamError` kinds and nothing else (`asyncio.CancelledError` passes through), and it never logs a body.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from nexus_gateway.core.model import Operation

Headers = Sequence[tuple[bytes, bytes]]  # lower-case names, in the order they came

PASSED_HEADERS: Final = frozenset(
    {b"content-type", b"accept", b"user-agent", b"openai-beta", b"traceparent", b"tracestate"}
)
"""The only request headers of a caller that travel on, besides those an upstream's `forward_headers=` names.
`x-request-id` is the gateway's own and comes from `UpstreamRequest.request_id`."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the pipeline must know of an upstream to write the body of an attempt."""

    model: str | None = None  # the name to send instead of the caller's
    stream_usage: bool = True  # whether a stream may be asked for its usage
    timeout_s: float | None = None  # tightens GATEWAY_REQUEST_TIMEOUT_SECONDS
    max_concurrency: int | None = None  # attempts under way at once; None: unlimited
    mask: bool = True  # whether identifiers are hidden from it


class UpstreamRequest(msgspec.Struct, frozen=True, gc=False):
    """One attempt. `body` is final: the model's name and `stream_options` are already as this upstream gets them.

    `deadline_s` is an instant on the loop's clock: a plain answer is complete by then, a stream has its head.
    """

    operation: Operation
    model: str
    body: bytes
    stream: bool
    headers: Headers  # the caller's, unfiltered: the adapter takes what `PASSED_HEADERS` and its options allow
    request_id: str
    deadline_s: float


class Reply(Protocol):
    """Head now, body as it comes. Whoever holds a Reply closes it, exactly once."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names. Holds at least content-type, retry-after, x-request-id, openai-processing-ms if sent."""
        ...

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole body, by the request's deadline. Raises UpstreamInvalidResponse when it is over the limit,
        UpstreamTruncated when it was cut, UpstreamTimeout at the deadline."""
        ...

    async def read(self, deadline_s: float) -> bytes:
        """The next bytes of a stream, cut anywhere; `b""` once it has ended cleanly.

        Raises UpstreamTimeout when none came by `deadline_s`, UpstreamTruncated when the connection broke."""
        ...

    async def aclose(self) -> None:
        """Give everything back. Idempotent, never raises, does not wait for the network.

        An answer that was read to its end leaves its connection reusable; any other is cut, so that the upstream
        notices. A stream whose `[DONE]` was seen may get a moment to end cleanly, in the adapter's own time.
        """
        ...


class Upstream(Protocol):
    """One configured destination. Made and closed on the running loop."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    async def send(self, request: UpstreamRequest) -> Reply:
        """Return once the head is known; raise UpstreamError kinds and nothing else. Any status is returned."""
        ...

    async def check(self, deadline_s: float) -> None:
        """Ask the upstream itself whether it is well. Raises UpstreamError if it is not; returns at once where there
        is nothing to ask."""
        ...

    async def aclose(self) -> None:
        """Close idle connections and cut those under way."""
        ...


def select_headers(headers: Headers, allowed: frozenset[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """The caller's headers that may travel on."""
    return [pair for pair in headers if pair[0] in allowed]
