"""The nouns every room shares.

For:      passing a request from stage to stage without loose dictionaries.
Touches:  nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import msgspec

Members = Mapping[str, msgspec.Raw]


class Operation(Enum):
    """What a caller asks for. The value is the path below `/v1` and what an upstream is asked for in turn."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    EMBEDDINGS = "/embeddings"

    __hash__ = object.__hash__  # members are single objects; the usual hash is a call in Python, on the hot path


OPERATION_NAMES: Final = {operation: operation.name.lower() for operation in Operation}
"""As metrics and logs call them."""


class ModelRule(Protocol):
    """Which models a caller may name."""

    def allows(self, model: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `key_id` is safe to log and to count by: it is made of the credential's digest, never of itself."""

    key_id: str
    requests_per_minute: int | None  # None: unlimited, here and below
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    clamps_output: bool = False  # instead of a refusal, the output allowance becomes what is left
    name: str | None = None  # what the operator calls the caller
    allowed_models: ModelRule | None = None  # None: all of them
    label: str = "none"  # what metrics call the caller: of a closed set, whoever calls

    @property
    def is_unlimited(self) -> bool:
        return self.requests_per_minute is None and self.tokens_per_minute is None and self.max_concurrency is None


class Call(msgspec.Struct, frozen=True, gc=False):
    """What the gateway read of a valid request body. `body` is what the caller sent, byte for byte."""

    operation: Operation
    model: str
    stream: bool
    include_usage: bool  # the caller asked for the usage chunk of a stream
    choices: int  # how many choices the answer has when it is complete: `n` times the number of prompts
    output_limit: int | None  # the most tokens that each choice may have; None: the caller named no limit
    body: bytes
    members: Members  # of `body`, each value as its own bytes


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the upstream counted them."""

    prompt_tokens: int
    completion_tokens: int


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The decision of a limit about one arrival, and what it left.

    `reset_s`: until the whole limit is free again. `retry_after_s`: until a refused request would be let through,
    0 for an admitted one.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float


class AttemptRecord(msgspec.Struct, gc=False):
    """One try at one upstream, as it ended. `outcome` is "ok" or an error code of the gateway."""

    upstream: str
    outcome: str
    status: int | None  # what the upstream answered; None when no head came
    seconds: float


class Told(msgspec.Struct, gc=False):
    """What an audit record says of a body: how long it was, and its masked text.

    `lacks` is None where the text is whole, "rest" where it is not, or else why there is none: "overload", "binary",
    "vectors", "unreadable", "masking_failed".
    """

    bytes: int
    text: str | None = None
    lacks: str | None = None


class Bodies(Protocol):
    """What is kept of one request for its audit record."""

    def tell(self, key_id: str) -> tuple[Told | None, Told | None]:
        """Of the prompt and of the answer. Takes its time, so the audit's thread asks."""
        ...

    def free(self) -> None:
        """Nobody will ask."""
        ...


class CallRecord(msgspec.Struct):
    """Facts about one request, gathered on its way; observers read it when it is finished. Nothing decides from it.

    Instants (`*_at_s`) are on the loop's monotonic clock; `received_at` is Unix time in seconds.
    """

    request_id: str
    operation: Operation
    received_at: float
    started_at_s: float
    client: str | None = None  # the caller's address
    key_id: str | None = None
    caller: str = "none"  # the label of the principal
    model: str | None = None  # as the caller named it
    route: str | None = None  # the configured name that it led to: fit for a metric's label
    stream: bool = False
    upstream: str | None = None  # who answered
    status: int = 0
    error_code: str | None = None
    client_gone: bool = False
    verdict: Verdict | None = None  # on the caller's limit of requests; None where no limit was asked
    token_verdict: Verdict | None = None
    refused_by: str | None = None  # the limit that stood in the way: "requests", "tokens", "concurrency" or "store"
    limit_basis: str | None = None  # what the decision rested on: "whole", or less while the shared store is away
    usage: Usage | None = None
    is_usage_estimated: bool = False  # no upstream told it
    sent_text_bytes: int = 0  # about as much text as the events of a stream held
    request_bytes: int = 0
    response_bytes: int = 0
    events: int = 0  # data events sent to the caller
    body_at_s: float = 0.0  # when all of the body was there; 0 where it never was
    first_byte_at_s: float | None = None
    finished_at_s: float = 0.0
    attempts: list[AttemptRecord] = msgspec.field(default_factory=list)
    masked: dict[str, int] | None = None  # identifiers hidden from upstreams, by type; None where nobody looked
    shadow: str | None = None  # the upstream that gets a copy
    trace_id: str | None = None  # where requests are traced
    bodies: Bodies | None = None  # kept for the audit, where it is to hold prompts and answers
