"""Every setting: its name, its type, its default and what it means.

For:      checking each value by itself; `compile` relates them to each other. The documentation is made from this file.
Touches:  nothing: `sources` brings the values, so that each problem can name the place it comes from.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .problems import shown
from .values import BadValue, address, either, json_object, number, one_of, secret, switch, text, visible, whole, words

PREFIX: Final = "GATEWAY_"
DEV_KEY: Final = "dev-key"  # known to everybody, and good for a first try on one's own machine only
ALGORITHMS: Final = (
    *(f"{family}{bits}" for family in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
)
FAILURE_MODES: Final = ("local", "open", "closed")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS: Final = ("json", "console")

SECRETS: Final = frozenset(
    {
        "api_keys",
        "api_key_policies",
        "jwt_secret",
        "jwt_public_key",
        "pii_hash_salt",
        "audit_signing_key",
        "redis_url",
        "admin_key",
        "metrics_key",
    }
)
"""Never shown, and also read from the file that `…_FILE` names."""

EMPTY_COUNTS: Final = frozenset({"upstreams", "api_keys", "api_key_policies", "metrics_key", "ops_listen"})
"""Settings whose empty value is looked at. Everywhere else empty means not set, because compose files write
`${NAME:-}`; here a lost value would quietly open what it was to close."""

ROUTING: Final = "Where requests go"
CALLERS: Final = "Who may call, and how much"
TIMES: Final = "Times"
SIZES: Final = "Sizes"
PRIVACY: Final = "Privacy and audit"
OPERATION: Final = "Operation"

_YEAR_S: Final = 31_536_000.0  # beyond it a number of seconds is a slip
_TEBIBYTE: Final = 1 << 40

T = TypeVar("T")


def _secret_words(value: object) -> tuple[str, ...]:
    return tuple(visible(word) for word in words(value))


def _networks(value: object) -> tuple[str, ...]:
    found = []
    for word in words(value):
        try:
            found.append(str(ip_network(word)))
        except ValueError:
            raise BadValue(f"{shown(word)} is not a network.", "Write 10.0.0.0/8, or one address.") from None
    if not found:
        raise BadValue("No network is named.", "Write 10.0.0.0/8, or leave it out.")
    return tuple(found)


def _algorithms(value: object) -> tuple[str, ...]:
    known = {name.upper(): name for name in ALGORITHMS}
    found = tuple(known[one_of(known, upper=True)(word)] for word in words(value))
    if not found:
        raise BadValue("No algorithm is named.", f"Known: {', '.join(ALGORITHMS)}.")
    return found


_seconds: Final = number("Give seconds above 0, such as 10 or 0.5.", above=0, most=_YEAR_S)

Seconds = Annotated[float, BeforeValidator(_seconds)]
SecondsIfGiven = Annotated[float | None, BeforeValidator(_seconds)]
Delay = Annotated[float, BeforeValidator(number("Give seconds, 0 or more.", least=0, most=_YEAR_S))]
SecondsOrOff = Annotated[
    float | None,
    BeforeValidator(either("off", number("Give seconds above 0, or off.", above=0, most=_YEAR_S))),
]
Bytes = Annotated[int, BeforeValidator(whole("Give bytes, such as 10485760.", least=1, most=_TEBIBYTE))]
Count = Annotated[int, BeforeValidator(whole("Give a whole number of 1 or more.", least=1, most=1_000_000_000))]
RateLimit = Annotated[
    int | None,
    BeforeValidator(
        either("unlimited", whole("Give a whole number of 1 or more, or unlimited.", least=1, most=1_000_000_000))
    ),
]
Percent = Annotated[float, BeforeValidator(number("Give a number from 0 to 100.", least=0, most=100))]
Switch = Annotated[bool, BeforeValidator(switch)]
Text = Annotated[str | None, BeforeValidator(text)]
Secret = Annotated[SecretStr | None, BeforeValidator(secret)]
Key = Annotated[SecretStr | None, BeforeValidator(visible)]
Keys = Annotated[tuple[SecretStr, ...] | None, BeforeValidator(_secret_words)]
Networks = Annotated[tuple[str, ...] | None, BeforeValidator(_networks)]
Algorithms = Annotated[tuple[str, ...] | None, BeforeValidator(_algorithms)]
BytesPerToken = Annotated[
    float, BeforeValidator(number("Give bytes above 0, such as 3 or 3.5.", above=0, most=1_000_000))
]
FailureMode = Annotated[str, BeforeValidator(one_of(FAILURE_MODES))]
Policy = Annotated[str, BeforeValidator(one_of(("drop", "block")))]
Bodies = Annotated[str, BeforeValidator(one_of(("none", "masked")))]
Address = Annotated[tuple[str, int] | None, BeforeValidator(address)]
Words = Annotated[tuple[str, ...] | None, BeforeValidator(lambda value: tuple(words(value)))]
Scope = Annotated[str, BeforeValidator(one_of(("principal", "global")))]
Restore = Annotated[str, BeforeValidator(one_of(("text", "everywhere", "off")))]
LogLevel = Annotated[str, BeforeValidator(one_of(LOG_LEVELS))]
LogFormat = Annotated[str, BeforeValidator(one_of(LOG_FORMATS))]
JsonObject = Annotated[dict[str, object], BeforeValidator(json_object)]
Structure = object  # `a=b;c=d` or a mapping; compiled entry by entry


def _setting(default: T, group: str, says: str, *, default_says: str | None = None, in_repr: bool = True) -> T:
    found: T = Field(
        default,
        description=says,
        repr=in_repr,
        json_schema_extra={"group": group, "default_says": default_says},
    )
    return found


class Settings(BaseSettings):
    """What was given, each value checked by itself. Secrets stand in it, but never in its text."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `sources` found: the process's own environment would slip past the checks of names."""
        return (init_settings,)

    # ---- where requests go
    upstreams: Structure = _setting(
        "mock=mock://local",
        ROUTING,
        "The servers that answer: `name=url` entries with `;` between them. See [Upstreams](#upstreams).",
    )
    default_upstream: Text = _setting(
        None, ROUTING, "The upstream that answers when the requested model names none.", default_says="none"
    )
    fallbacks: Structure = _setting(
        {}, ROUTING, "Who answers when an upstream fails: `a=b,c;d=e`. Lists are not followed on.", default_says="none"
    )
    route_policies: JsonObject = _setting(
        {}, ROUTING, "Weighted and canary routes, as JSON. See [Route policies](#route-policies).", default_says="none"
    )
    circuit_breaker_max_failures: Count = _setting(5, ROUTING, "Failures in a row after which an upstream is left out.")
    circuit_breaker_reset_seconds: Seconds = _setting(
        30.0, ROUTING, "How long it is left out before it is tried again."
    )
    shadow_enabled: Switch = _setting(False, ROUTING, "Whether a share of requests is also sent to the shadow target.")
    shadow_percent: Percent = _setting(0.0, ROUTING, "The share of requests that is mirrored.")
    shadow_target: Text = _setting(None, ROUTING, "The upstream that gets the mirrored requests.", default_says="none")

    shadow_max_bytes: Bytes = _setting(64 << 20, ROUTING, "Bodies kept for mirrored requests, all together.")
    routing_headers: Switch = _setting(
        True, ROUTING, "Whether answers say who gave them: `x-nexus-upstream`, `x-nexus-attempts`."
    )
    health_check_seconds: Seconds = _setting(5.0, ROUTING, "Between two checks of an upstream with `health=`.")

    # ---- who may call, and how much
    api_keys: Keys = _setting(
        None,
        CALLERS,
        "Accepted keys with commas between them, each as it is or as `sha256:` and its digest in hex.",
        default_says=f"`{DEV_KEY}`, while no `GATEWAY_JWT_` setting is given either",
    )
    api_key_policies: JsonObject = _setting(
        {},
        CALLERS,
        'Rules per key, as JSON: `{"key": {"allowed_models": […]}}`. See [Key policies](#key-policies).',
        default_says="none",
        in_repr=False,  # its members are named by keys
    )
    rate_limit_per_minute: RateLimit = _setting(
        60, CALLERS, "Requests that one key may make in any 60 seconds, or `unlimited`."
    )
    default_output_tokens: Count = _setting(
        1024, CALLERS, "Output tokens reserved for a choice when the caller names no maximum."
    )
    bytes_per_token: BytesPerToken = _setting(3.0, CALLERS, "Bytes of text that are taken for one token of a prompt.")
    redis_url: Secret = _setting(None, CALLERS, "Redis or Valkey that replicas share limits in.", default_says="none")
    redis_failure_mode: FailureMode = _setting(
        "local",
        CALLERS,
        "While Redis is away: `local` (each process takes its share), `open` (nobody is checked) or `closed` (503).",
    )
    jwt_secret: Secret = _setting(None, CALLERS, "Accepts tokens signed with this secret (HS*).", default_says="none")
    jwt_public_key: Secret = _setting(
        None, CALLERS, "Accepts tokens signed by the owner of this PEM key (RS*, PS*, ES*, EdDSA).", default_says="none"
    )
    jwt_jwks_url: Text = _setting(
        None,
        CALLERS,
        "Accepts tokens signed with a key that is published there; needs an issuer and an audience.",
        default_says="none",
    )
    jwt_algorithms: Algorithms = _setting(
        None, CALLERS, "Accepted signatures.", default_says="`HS256` for a secret, what fits the key otherwise"
    )
    jwt_issuer: Text = _setting(None, CALLERS, "The `iss` that a token must bear.", default_says="not checked")
    jwt_audience: Text = _setting(None, CALLERS, "The `aud` that a token must bear.", default_says="not checked")
    trusted_proxies: Networks = _setting(
        None,
        CALLERS,
        "Proxies whose `X-Forwarded-For` tells the caller's address, as `10.0.0.0/8,2001:db8::/32`.",
        default_says="none",
    )

    # ---- times
    request_timeout_seconds: Seconds = _setting(
        10.0, TIMES, "One attempt: the whole of a plain answer, the first data event of a stream."
    )
    deadline_seconds: SecondsIfGiven = _setting(
        None,
        TIMES,
        "All attempts of a request together, from the end of its body until the head of the answer goes out.",
        default_says="attempts × request timeout",
    )
    stream_idle_timeout_seconds: Seconds = _setting(60.0, TIMES, "How long a stream may be silent between two events.")
    stream_max_seconds: SecondsOrOff = _setting(None, TIMES, "How long a stream may last in all.", default_says="`off`")
    connect_timeout_seconds: Seconds = _setting(2.0, TIMES, "Connecting to an upstream.")
    head_timeout_seconds: Seconds = _setting(10.0, TIMES, "Receiving the head of a caller's request.")
    body_timeout_seconds: Seconds = _setting(30.0, TIMES, "Receiving the body of a caller's request.")
    write_timeout_seconds: Seconds = _setting(30.0, TIMES, "How long a caller may take nothing of its answer.")

    # ---- sizes
    max_body_bytes: Bytes = _setting(10 << 20, SIZES, "The largest request body.")
    max_answer_bytes: Bytes = _setting(128 << 20, SIZES, "The largest answer of an upstream that does not stream.")

    # ---- privacy and audit
    pii_masking_enabled: Switch = _setting(True, PRIVACY, "Whether identifiers of people are hidden from upstreams.")
    pii_hash_salt: Secret = _setting(
        None, PRIVACY, "Makes placeholders the same on every replica.", default_says="random per process"
    )
    pii_scope: Scope = _setting(
        "principal", PRIVACY, "Who gets the same placeholder for the same value: one `principal`, or all: `global`."
    )
    pii_restore: Restore = _setting(
        "text",
        PRIVACY,
        "Where answers get the caller's values back: `text` (not in links), `everywhere` or `off`.",
    )
    pii_detectors: Words = _setting(
        None,
        PRIVACY,
        "What is looked for, with commas between. See [Privacy](privacy.md).",
        default_says="all but `ip`",
    )
    pii_custom: JsonObject = _setting(
        {}, PRIVACY, 'Patterns of your own (RE2), as JSON: `{"TICKET": "T-[0-9]{6}"}`.', default_says="none"
    )
    pii_timeout_seconds: Seconds = _setting(
        2.0, PRIVACY, "How long masking one request may take; after that it is refused."
    )
    audit_logging_enabled: Switch = _setting(
        True, PRIVACY, "Whether every request leaves an audit record. See [Audit](audit.md)."
    )
    audit_file: Text = _setting(
        None, PRIVACY, "The file that audit records go to, chained so that changes show.", default_says="stdout"
    )
    audit_max_bytes: Bytes = _setting(100 << 20, PRIVACY, "The size at which that file is moved aside.")
    audit_checkpoint_records: Count = _setting(1000, PRIVACY, "Records after which a checkpoint follows.")
    audit_signing_key: Secret = _setting(
        None, PRIVACY, "The Ed25519 key that signs checkpoints, as PEM or base64.", default_says="not signed"
    )
    audit_on_failure: Policy = _setting(
        "drop", PRIVACY, "While records cannot be written: `drop` and count them, or `block` new requests with 503."
    )
    audit_bodies: Bodies = _setting("none", PRIVACY, "`masked`: records hold prompts and answers, masked.")

    # ---- operation
    config_file: Text = _setting(
        None, OPERATION, "A YAML file with settings. See [The file](#the-file).", default_says="none"
    )
    metrics_key: Key = _setting(
        None,
        OPERATION,
        "The key that `/metrics` asks for, as it is or as `sha256:` and hex.",
        default_says="none asked for",
    )
    admin_key: Key = _setting(
        None,
        OPERATION,
        "The key of the page `/admin` and its routes, unlike every API key.",
        default_says="no such page",
    )
    ops_listen: Address = _setting(
        None,
        OPERATION,
        "A port of its own for `/metrics`, `/admin` and `/docs`, as `host:port`. See [Operations](operations.md).",
        default_says="the port of the API",
    )
    log_level: LogLevel = _setting("info", OPERATION, "`debug`, `info`, `warning`, `error` or `critical`.")
    log_format: LogFormat = _setting(
        "json", OPERATION, "Lines on stdout: `json` for machines, one object each, or `console` for people."
    )
    otel_enabled: Switch = _setting(
        False, OPERATION, "Whether requests are traced with OpenTelemetry. See [Tracing](tracing.md)."
    )
    drain_delay_seconds: Delay = _setting(
        0.0, OPERATION, "How long the gateway still accepts requests after it was told to stop."
    )
    drain_seconds: Seconds = _setting(30.0, OPERATION, "How long requests under way may take to finish after that.")


NAMES: Final = tuple(Settings.model_fields)
"""All settings as the file names them: lower case, without the prefix."""


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def details(name: str) -> Mapping[str, Any]:
    """`group` and `default_says` of a setting, as the documentation has them."""
    extra = Settings.model_fields[name].json_schema_extra
    return extra if isinstance(extra, dict) else {}
