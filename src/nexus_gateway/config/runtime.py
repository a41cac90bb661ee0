"""The frozen configuration that the request path sees.

For:      everything that could be worked out at start-up, worked out.
Touches:  nothing; `compile` makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from nexus_gateway.core.access import CallerPolicy
from nexus_gateway.core.forwarded import Network
from nexus_gateway.core.jwt import TokenRules, VerifyingKey
from nexus_gateway.core.policies import RoutePolicy
from nexus_gateway.core.tracing import Sampling


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """An HTTP proxy on the way to an upstream."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One entry of GATEWAY_UPSTREAMS, taken apart and checked. `kind` is the URL's scheme."""

    name: str
    kind: str  # "http" | "https" | "grpc" | "grpcs" | "litellm" | "mock"
    host: str
    port: int
    base_path: str  # "/v1", or "/some/prefix/v1": operations are appended to it; "" where the kind has no paths
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float | None = None
    max_concurrency: int | None = None
    ca_file: str | None = None
    cert_file: str | None = None  # what the gateway shows of itself, with its key unless `key_file` holds that
    key_file: str | None = None
    proxy: ProxySpec | None = None
    forward_headers: frozenset[str] = frozenset()  # lower-case
    stream_usage: bool = True
    mask: bool = True  # hide identifiers from it
    health_path: str | None = None  # what to GET to know whether it is well; None: nothing
    mock: "MockSpec | None" = None
    health_rpc: bool = True  # of gRPC: whether its standard health is asked for
    api_base: str | None = None  # of LiteLLM: another address than the provider's usual one
    mock_response: str | None = None  # of LiteLLM: what it answers itself, without a provider
    startup_s: float | None = None  # how long it may take to come up

    @property
    def is_checked(self) -> bool:
        return self.health_path is not None or (self.kind in ("grpc", "grpcs") and self.health_rpc)


@dataclass(frozen=True, slots=True)
class MockSpec:
    """How the built-in mock upstream behaves. Times in seconds."""

    delay_s: float = 0.0  # before the head
    chunk_delay_s: float = 0.0  # before every event after the first
    tokens: int | None = None  # length of an answer; None: as long as the echo of the question
    status: int = 200
    error_rate: float = 0.0  # share of requests answered with 500, drawn from `seed`
    seed: int = 0
    fail_after: int | None = None  # events, then the stream breaks


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `None` means no bound."""

    connect_s: float = 2.0
    request_s: float = 10.0  # one attempt: the whole of a plain answer, the first data event of a stream
    deadline_s: float | None = None  # all attempts together; None: attempts x request_s
    stream_idle_s: float = 60.0
    stream_max_s: float | None = None
    head_s: float = 10.0  # a client's request head
    body_s: float = 30.0  # a client's request body
    write_s: float = 30.0  # how long a client may take nothing of its answer
    drain_delay_s: float = 0.0
    drain_s: float = 30.0


TIMEOUT_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "connect_s": "GATEWAY_CONNECT_TIMEOUT_SECONDS",
        "request_s": "GATEWAY_REQUEST_TIMEOUT_SECONDS",
        "deadline_s": "GATEWAY_DEADLINE_SECONDS",
        "stream_idle_s": "GATEWAY_STREAM_IDLE_TIMEOUT_SECONDS",
        "stream_max_s": "GATEWAY_STREAM_MAX_SECONDS",
        "head_s": "GATEWAY_HEAD_TIMEOUT_SECONDS",
        "body_s": "GATEWAY_BODY_TIMEOUT_SECONDS",
        "write_s": "GATEWAY_WRITE_TIMEOUT_SECONDS",
        "drain_delay_s": "GATEWAY_DRAIN_DELAY_SECONDS",
        "drain_s": "GATEWAY_DRAIN_SECONDS",
    }
)
"""The setting behind each field of `Timeouts`: an error about a time names it."""


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """When an upstream is left out, and for how long."""

    max_failures: int = 5
    reset_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ShadowSpec:
    """Which share of requests is mirrored, and where to."""

    target: str
    percent: float
    max_bytes: int = 64 << 20  # of bodies kept for it


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """What tokens are checked with: a key at hand, or the place where keys are published."""

    key: VerifyingKey | None
    jwks_url: str | None = None
    algorithms: frozenset[str] = frozenset()
    rules: TokenRules = field(default_factory=TokenRules)


@dataclass(frozen=True, slots=True)
class AuditSpec:
    """Where audit records go, and what holds while they cannot."""

    file: str | None = None  # None: stdout, without a chain
    max_bytes: int = 100 << 20
    checkpoint_records: int = 1000
    blocks: bool = False  # rather answer 503 than go unrecorded
    signing_seed: bytes | None = field(default=None, repr=False)  # of a private Ed25519 key
    bodies: "MaskingSpec | None" = None  # how prompts and answers are masked, where records are to hold them


@dataclass(frozen=True, slots=True)
class MaskingSpec:
    """What is hidden from upstreams, and where it comes back. `salt`: None for a random one."""

    salt: str | None = field(default=None, repr=False)
    is_global: bool = False
    restore: str = "text"  # "text" | "everywhere" | "off"
    detectors: tuple[str, ...] | None = None  # None: the usual ones
    custom: tuple[tuple[str, str], ...] = ()  # type and pattern
    timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class TracingSpec:
    """Where spans go, and which. What stands in `headers` may be a secret."""

    endpoint: str = field(repr=False)  # whole, with its path; a query may be a secret
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    timeout_s: float = 10.0  # of one batch, all tries
    compression: str = "none"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    resource: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    delay_s: float = 5.0  # between two batches
    max_waiting: int = 2048  # finished spans
    max_batch: int = 512


@dataclass(frozen=True, slots=True)
class Runtime:
    """All the request path knows of the configuration."""

    upstreams: tuple[UpstreamSpec, ...]
    default_upstream: str | None
    api_key_digests: tuple[bytes, ...] = field(repr=False)  # SHA-256 of each accepted key
    requests_per_minute: int | None = 60  # None: unlimited
    key_policies: Mapping[bytes, CallerPolicy] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    tokens: TokenSpec | None = None
    token_policies: Mapping[str, CallerPolicy] = field(  # by subject; "*": of all others
        default_factory=lambda: MappingProxyType({}), repr=False
    )
    trusted_proxies: tuple[Network, ...] = ()
    timeouts: Timeouts = Timeouts()
    max_body_bytes: int = 10 << 20
    max_answer_bytes: int = 128 << 20
    metrics_key_digest: bytes | None = field(default=None, repr=False)
    ops_listen: tuple[str, int] | None = None  # where operators are served; None: where everybody is
    log_level: str = "info"
    log_format: str = "json"  # "json" | "console"
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    policies: Mapping[str, RoutePolicy] = field(default_factory=lambda: MappingProxyType({}))
    breaker: BreakerSpec = BreakerSpec()
    shadow: ShadowSpec | None = None
    admin_key_digest: bytes | None = field(default=None, repr=False)
    default_output_tokens: int = 1024  # reserved where a caller names no maximum
    bytes_per_token: float = 3.0  # of a prompt's text
    redis_url: str | None = field(default=None, repr=False)
    redis_failure_mode: str = "local"
    health_check_s: float = 5.0  # between two checks of one upstream
    masking: MaskingSpec | None = None
    routing_headers: bool = True  # tell callers who answered
    audit: AuditSpec | None = None
    tracing: TracingSpec | None = None
    accepts_dev_key: bool = False  # everybody knows it: worth a warning when others can reach the gateway
