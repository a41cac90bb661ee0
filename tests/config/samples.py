"""One good value for each setting, and what must be refused for each: the laws run over these tables."""

import json
from typing import Final

from nexus_gateway.config.schema import variable

TWO_UPSTREAMS: Final = {"GATEWAY_UPSTREAMS": "east=http://localhost:8001;west=http://localhost:8002"}
PUBLIC_KEY: Final = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+evkZBR8wQLZIyTQmdknwaUOQtV6
CKEW/+wKKYGdjGVwuvfRKIiQKmoMHWet0QMSPIWatpv46UMck4STDUt+7g==
-----END PUBLIC KEY-----"""
LONG_SECRET: Final = "a-secret-of-more-than-thirty-two-bytes"
_AUDITED: Final = {"GATEWAY_AUDIT_FILE": "audit.jsonl"}

GOOD: Final[dict[str, dict[str, str]]] = {
    "upstreams": TWO_UPSTREAMS,
    "default_upstream": {**TWO_UPSTREAMS, "GATEWAY_DEFAULT_UPSTREAM": "west"},
    "fallbacks": {**TWO_UPSTREAMS, "GATEWAY_FALLBACKS": "east=west;west=east"},
    "route_policies": {
        **TWO_UPSTREAMS,
        "GATEWAY_ROUTE_POLICIES": json.dumps(
            {"chat": {"strategy": "canary", "primary": "east", "canary": "west", "percent": 5}}
        ),
    },
    "circuit_breaker_max_failures": {"GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES": "7"},
    "circuit_breaker_reset_seconds": {"GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS": "0.5"},
    "shadow_enabled": {**TWO_UPSTREAMS, "GATEWAY_SHADOW_ENABLED": "true", "GATEWAY_SHADOW_TARGET": "west"},
    "shadow_percent": {"GATEWAY_SHADOW_PERCENT": "12.5"},
    "shadow_target": {**TWO_UPSTREAMS, "GATEWAY_SHADOW_TARGET": "west"},
    "shadow_max_bytes": {"GATEWAY_SHADOW_MAX_BYTES": "1048576"},
    "routing_headers": {"GATEWAY_ROUTING_HEADERS": "off"},
    "health_check_seconds": {"GATEWAY_HEALTH_CHECK_SECONDS": "2.5"},
    "api_keys": {"GATEWAY_API_KEYS": "one-key,another-key"},
    "api_key_policies": {
        "GATEWAY_API_KEYS": "one-key",
        "GATEWAY_API_KEY_POLICIES": '{"one-key": {"allowed_models": ["chat"], "rate_limit_per_minute": 30}}',
    },
    "rate_limit_per_minute": {"GATEWAY_RATE_LIMIT_PER_MINUTE": "unlimited"},
    "default_output_tokens": {"GATEWAY_DEFAULT_OUTPUT_TOKENS": "256"},
    "bytes_per_token": {"GATEWAY_BYTES_PER_TOKEN": "3.5"},
    "redis_failure_mode": {"GATEWAY_REDIS_FAILURE_MODE": "CLOSED"},
    "redis_url": {"GATEWAY_REDIS_URL": "redis://:password@localhost:6379/0"},
    "jwt_secret": {"GATEWAY_JWT_SECRET": LONG_SECRET},
    "jwt_public_key": {"GATEWAY_JWT_PUBLIC_KEY": PUBLIC_KEY},
    "jwt_jwks_url": {
        "GATEWAY_JWT_JWKS_URL": "https://issuer.example/.well-known/jwks.json",
        "GATEWAY_JWT_ISSUER": "https://issuer.example",
        "GATEWAY_JWT_AUDIENCE": "gateway",
    },
    "jwt_algorithms": {"GATEWAY_JWT_SECRET": LONG_SECRET, "GATEWAY_JWT_ALGORITHMS": "HS256,hs512"},
    "jwt_issuer": {"GATEWAY_JWT_SECRET": LONG_SECRET, "GATEWAY_JWT_ISSUER": "https://issuer.example"},
    "jwt_audience": {"GATEWAY_JWT_SECRET": LONG_SECRET, "GATEWAY_JWT_AUDIENCE": "gateway"},
    "trusted_proxies": {"GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32,192.0.2.1"},
    "request_timeout_seconds": {"GATEWAY_REQUEST_TIMEOUT_SECONDS": "2.5"},
    "deadline_seconds": {"GATEWAY_DEADLINE_SECONDS": "25"},
    "stream_idle_timeout_seconds": {"GATEWAY_STREAM_IDLE_TIMEOUT_SECONDS": "0.25"},
    "stream_max_seconds": {"GATEWAY_STREAM_MAX_SECONDS": "3600"},
    "connect_timeout_seconds": {"GATEWAY_CONNECT_TIMEOUT_SECONDS": ".5"},
    "head_timeout_seconds": {"GATEWAY_HEAD_TIMEOUT_SECONDS": "1e1"},
    "body_timeout_seconds": {"GATEWAY_BODY_TIMEOUT_SECONDS": "15"},
    "write_timeout_seconds": {"GATEWAY_WRITE_TIMEOUT_SECONDS": "15"},
    "max_body_bytes": {"GATEWAY_MAX_BODY_BYTES": "1024"},
    "max_answer_bytes": {"GATEWAY_MAX_ANSWER_BYTES": "2048"},
    "pii_masking_enabled": {"GATEWAY_PII_MASKING_ENABLED": "true"},
    "pii_hash_salt": {"GATEWAY_PII_HASH_SALT": "salt"},
    "pii_scope": {"GATEWAY_PII_SCOPE": "GLOBAL"},
    "pii_restore": {"GATEWAY_PII_RESTORE": "everywhere"},
    "pii_detectors": {"GATEWAY_PII_DETECTORS": "email,rrn"},
    "pii_custom": {"GATEWAY_PII_CUSTOM": '{"TICKET": "T-[0-9]{6}"}'},
    "pii_timeout_seconds": {"GATEWAY_PII_TIMEOUT_SECONDS": "0.5"},
    "audit_logging_enabled": {"GATEWAY_AUDIT_LOGGING_ENABLED": "on"},
    "audit_file": {"GATEWAY_AUDIT_FILE": "/var/log/gateway/audit.jsonl"},
    "audit_max_bytes": {**_AUDITED, "GATEWAY_AUDIT_MAX_BYTES": "1048576"},
    "audit_checkpoint_records": {**_AUDITED, "GATEWAY_AUDIT_CHECKPOINT_RECORDS": "100"},
    "audit_signing_key": {**_AUDITED, "GATEWAY_AUDIT_SIGNING_KEY": "A" * 43 + "="},
    "audit_on_failure": {"GATEWAY_AUDIT_ON_FAILURE": "Block"},
    "audit_bodies": {"GATEWAY_AUDIT_BODIES": "masked"},
    "config_file": {"GATEWAY_CONFIG_FILE": "config/gateway.example.yaml"},
    "metrics_key": {"GATEWAY_METRICS_KEY": "metrics-key"},
    "admin_key": {"GATEWAY_ADMIN_KEY": "admin-key"},
    "ops_listen": {"GATEWAY_OPS_LISTEN": "[::1]:9100"},
    "log_level": {"GATEWAY_LOG_LEVEL": "DEBUG"},
    "log_format": {"GATEWAY_LOG_FORMAT": "Console"},
    "otel_enabled": {"GATEWAY_OTEL_ENABLED": "true"},
    "drain_delay_seconds": {"GATEWAY_DRAIN_DELAY_SECONDS": "0"},
    "drain_seconds": {"GATEWAY_DRAIN_SECONDS": "5"},
}

_NOT_TIMES: Final = ("-1", "0", "inf", "-inf", "nan", "NaN", "1e999", "ten", "10s", "1_0", "0x10", "1,5", "1e11", "٥")
_NOT_COUNTS: Final = ("-1", "0", "1.5", "inf", "nan", "many", "1_000", "9" * 5000, "٥")
_NOT_SWITCHES: Final = ("maybe", "2", "tru")
_BROKEN_TEXT: Final = ("a\nb", "\x1b[31mred", "\udcff")
_NOT_JSON: Final = (
    "{",
    "[]",
    "1",
    "null",
    '"text"',
    '{"a": NaN}',
    '{"a": 1, "a": 2}',
    "{'a': 1}",
    "[" * 5000,
    '{"a": ' + "9" * 5000 + "}",
)

BAD: Final[dict[str, tuple[str, ...]]] = {
    "upstreams": ("", " ; ", "mock://local", "a=", "=mock://local", "a b=mock://local", "a=mock://l;a=mock://l"),
    "default_upstream": ("nobody", *_BROKEN_TEXT),
    "fallbacks": ("mock", "mock=mock", "mock=nobody", "nobody=mock", "mock=", "mock=,", "=mock", "a b=mock"),
    "route_policies": (*_NOT_JSON, '{"chat": 5}', '{"chat": {}}', '{"a b": {}}'),
    "circuit_breaker_max_failures": _NOT_COUNTS,
    "circuit_breaker_reset_seconds": _NOT_TIMES,
    "shadow_enabled": (*_NOT_SWITCHES, "true"),
    "shadow_percent": ("-1", "100.1", "nan", "inf", "half"),
    "shadow_target": ("nobody", *_BROKEN_TEXT),
    "shadow_max_bytes": _NOT_COUNTS,
    "routing_headers": _NOT_SWITCHES,
    "health_check_seconds": _NOT_TIMES,
    "api_keys": ("", " , ", "a,a", "a b", "ключ", "sha256:12", "a\x00", "\udcff", f"sha256:{'g' * 64}"),
    "api_key_policies": (
        "",
        *_NOT_JSON,
        '{"unlisted": {}}',
        '{"jwt:me": {}}',
        '{"dev-key": 5}',
        '{"dev-key": {"colour": 1}}',
    ),
    "rate_limit_per_minute": (*_NOT_COUNTS, "limitless"),
    "default_output_tokens": _NOT_COUNTS,
    "bytes_per_token": ("0", "-1", "nan", "inf", "three"),
    "redis_failure_mode": ("shut", "localised"),
    "redis_url": ("localhost:6379", "http://localhost", "redis://", "\udcff"),
    "jwt_secret": ("\udcff", PUBLIC_KEY, '{"kty": "oct", "k": "AA"}'),
    "jwt_public_key": ("not-a-key", "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----", "\udcff"),
    "jwt_jwks_url": (
        "https://issuer.example/jwks",
        "http://issuer.example",
        "ftp://localhost",
        "https://user:pass@host",
        "https://[",
        "https://host:port",
        *_BROKEN_TEXT,
    ),
    "jwt_algorithms": ("none", "HS257", "HS256", ","),
    "jwt_issuer": ("https://issuer.example", *_BROKEN_TEXT),
    "jwt_audience": ("gateway", *_BROKEN_TEXT),
    "trusted_proxies": (",", "*", "10.0.0.1/8", "10.0.0.0/33", "proxy.example", *_BROKEN_TEXT),
    "request_timeout_seconds": _NOT_TIMES,
    "deadline_seconds": _NOT_TIMES,
    "stream_idle_timeout_seconds": _NOT_TIMES,
    "stream_max_seconds": _NOT_TIMES,
    "connect_timeout_seconds": _NOT_TIMES,
    "head_timeout_seconds": _NOT_TIMES,
    "body_timeout_seconds": _NOT_TIMES,
    "write_timeout_seconds": _NOT_TIMES,
    "max_body_bytes": (*_NOT_COUNTS, "10MB"),
    "max_answer_bytes": (*_NOT_COUNTS, "10MB"),
    "pii_masking_enabled": _NOT_SWITCHES,
    "pii_hash_salt": ("\udcff",),
    "pii_scope": ("caller",),
    "pii_restore": ("on", "links"),
    "pii_detectors": ("email,nothing",),
    "pii_custom": (*_NOT_JSON, '{"ticket": "T"}', '{"TICKET": "("}', '{"TICKET": 5}'),
    "pii_timeout_seconds": _NOT_TIMES,
    "audit_logging_enabled": _NOT_SWITCHES,
    "audit_file": _BROKEN_TEXT,
    "audit_max_bytes": (*_NOT_COUNTS, "100MB"),
    "audit_checkpoint_records": _NOT_COUNTS,
    "audit_signing_key": ("not-a-key", "A" * 44, "-----BEGIN PRIVATE KEY-----\nabc", "\udcff"),
    "audit_on_failure": ("panic", "true"),
    "audit_bodies": ("all", "true"),
    "config_file": ("/does/not/exist.yaml", "/", "/dev/null", *_BROKEN_TEXT),
    "metrics_key": ("", " ", "a b", "sha256:12", "\udcff"),
    "admin_key": ("a b", "sha256:12", "dev-key", "\udcff"),
    "ops_listen": (
        "",
        "9100",
        ":9100",
        "localhost",
        "localhost:",
        "::1:9100",
        "[]:1",
        "h:65536",
        "h:-1",
        *_BROKEN_TEXT,
    ),
    "log_level": ("loud", "10"),
    "log_format": ("text", "true"),
    "otel_enabled": ("maybe", "http://localhost:4318"),
    "drain_delay_seconds": ("-1", "inf", "nan", "soon"),
    "drain_seconds": _NOT_TIMES,
}

OFF: Final[dict[str, tuple[str, ...]]] = {
    "fallbacks": (" ",),
    "route_policies": ("{}",),
    "api_key_policies": ("{}",),
    "shadow_enabled": ("false", "off", "0"),
    "shadow_percent": ("0", "0.0"),
    "pii_masking_enabled": ("false", "no"),
    "audit_logging_enabled": ("FALSE", "0"),
    "audit_bodies": ("none", "NONE"),
}
"""Words that switch a capability off."""

BAD_CASES: Final = [(name, value) for name, values in BAD.items() for value in values]


def given(name: str, value: str) -> dict[str, str]:
    """An environment with one setting."""
    return {variable(name): value}
