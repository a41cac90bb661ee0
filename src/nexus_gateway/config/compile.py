"""Turns settings into the frozen `Runtime`: relates values to each other and works out what can be worked out now.

For:      every problem at once, with its place.
Touches:  the environment it is given, for the keys of upstreams.
"""

from collections.abc import Collection, Mapping
from ipaddress import ip_network
from types import MappingProxyType

from pydantic import SecretStr

from nexus_gateway.core.pii.detectors import DETECTORS, CustomPattern, Detection
from nexus_gateway.core.pii.linear import BadPattern

from .audit import compile_audit
from .callers import DEV_KEY_DIGEST, CallerPolicies, compile_caller_policies, compile_key, compile_keys
from .problems import Report, did_you_mean, shown
from .routes import compile_fallbacks, compile_policies
from .runtime import BreakerSpec, MaskingSpec, Runtime, ShadowSpec, Timeouts
from .schema import Settings, variable
from .tokens import compile_tokens
from .tracing import compile_tracing
from .upstreams import Upstreams, compile_upstreams


def compile_settings(
    settings: Settings, places: Mapping[str, str], environ: Mapping[str, str], report: Report
) -> tuple[Runtime, frozenset[str]]:
    """The Runtime, good for use only when `report` holds no problem; and the variables that hold upstreams' keys.

    `places` tells where each setting stands that was given.
    """
    compiler = _Compiler(settings, places, report)
    upstreams = compile_upstreams(settings.upstreams, compiler.place("upstreams"), environ, report)
    digests, callers = compiler.callers()
    masking = compiler.masking()
    policies = compile_policies(settings.route_policies, compiler.place("route_policies"), upstreams.declared, report)
    runtime = Runtime(
        upstreams=upstreams.specs,
        default_upstream=compiler.upstream("default_upstream", settings.default_upstream, upstreams.declared),
        api_key_digests=digests,
        requests_per_minute=settings.rate_limit_per_minute,
        key_policies=MappingProxyType(callers.keys),
        tokens=compile_tokens(settings, places, report),
        token_policies=MappingProxyType(callers.subjects),
        trusted_proxies=tuple(ip_network(network) for network in settings.trusted_proxies or ()),
        timeouts=_timeouts(settings),
        max_body_bytes=settings.max_body_bytes,
        max_answer_bytes=settings.max_answer_bytes,
        metrics_key_digest=compile_key(_plain(settings.metrics_key), compiler.place("metrics_key"), report),
        ops_listen=settings.ops_listen,
        log_level=settings.log_level,
        log_format=settings.log_format,
        fallbacks=MappingProxyType(compiler.fallbacks(upstreams)),
        policies=MappingProxyType(policies),
        breaker=BreakerSpec(settings.circuit_breaker_max_failures, settings.circuit_breaker_reset_seconds),
        shadow=compiler.shadow(upstreams),
        masking=masking if settings.pii_masking_enabled else None,
        routing_headers=settings.routing_headers,
        default_output_tokens=settings.default_output_tokens,
        bytes_per_token=settings.bytes_per_token,
        redis_url=_plain(settings.redis_url),
        redis_failure_mode=settings.redis_failure_mode,
        health_check_s=settings.health_check_seconds,
        admin_key_digest=compiler.admin_key(digests),
        audit=compile_audit(settings, places, masking, report),
        tracing=compile_tracing(settings.otel_enabled, compiler.place("otel_enabled"), environ, report),
        accepts_dev_key=DEV_KEY_DIGEST in digests,
    )
    return runtime, upstreams.key_variables


class _Compiler:
    """What relates to more than one setting."""

    def __init__(self, settings: Settings, places: Mapping[str, str], report: Report) -> None:
        self._settings = settings
        self._places = places
        self._report = report

    def place(self, name: str) -> str:
        return self._places.get(name, variable(name))

    def callers(self) -> tuple[tuple[bytes, ...], CallerPolicies]:
        """The digests of API keys, and the rules per key and per token."""
        settings, report = self._settings, self._report
        tokens = any(name.startswith("jwt_") for name in (*self._places, *report.broken))
        keys = None if settings.api_keys is None else [key.get_secret_value() for key in settings.api_keys]
        digests = compile_keys(keys, self.place("api_keys"), tokens, report)
        known = None if "api_keys" in report.broken else digests
        place = self.place("api_key_policies")
        usual = settings.rate_limit_per_minute
        policies = compile_caller_policies(settings.api_key_policies, place, known, tokens, usual, report)
        if settings.redis_url is not None and not _is_redis(settings.redis_url):
            report.refuse(
                self.place("redis_url"), "This is not the URL of a Redis.", "Write redis://host:6379/0 or rediss://…"
            )
        return digests, policies

    def upstream(self, name: str, value: str | None, known: Collection[str]) -> str | None:
        """A setting that names an upstream."""
        if value is not None and value not in known:
            self._report.refuse(self.place(name), f"{shown(value)} is no upstream.", did_you_mean(value, known))
        return value

    def fallbacks(self, upstreams: Upstreams) -> dict[str, tuple[str, ...]]:
        policies = self._settings.route_policies
        place = self.place("fallbacks")
        return compile_fallbacks(self._settings.fallbacks, place, upstreams.declared, policies, self._report)

    def shadow(self, upstreams: Upstreams) -> ShadowSpec | None:
        settings = self._settings
        target = self.upstream("shadow_target", settings.shadow_target, upstreams.declared)
        if not settings.shadow_enabled:
            return None
        if target is None:
            if "shadow_target" not in self._report.broken:
                self._report.refuse(
                    self.place("shadow_enabled"), "No target is named.", f"Set {variable('shadow_target')}."
                )
            return None
        return ShadowSpec(target, settings.shadow_percent, settings.shadow_max_bytes)

    def masking(self) -> MaskingSpec:
        settings = self._settings
        detectors = settings.pii_detectors
        for name in detectors or ():
            if name not in DETECTORS:
                self._report.refuse(
                    self.place("pii_detectors"), f"{shown(name)} is no detector.", did_you_mean(name, DETECTORS)
                )
        custom = []
        for type_, pattern in settings.pii_custom.items():
            problem = _pattern_problem(type_, pattern)
            if problem is not None:
                place = f"{self.place('pii_custom')}: {shown(type_)}"
                self._report.refuse(place, problem, 'Write {"TICKET": "T-[0-9]{6}"}.')
            elif isinstance(pattern, str):
                custom.append((type_, pattern))
        return MaskingSpec(
            salt=_plain(settings.pii_hash_salt),
            is_global=settings.pii_scope == "global",
            restore=settings.pii_restore,
            detectors=detectors,
            custom=tuple(custom),
            timeout_s=settings.pii_timeout_seconds,
        )

    def admin_key(self, digests: Collection[bytes]) -> bytes | None:
        place = self.place("admin_key")
        digest = compile_key(_plain(self._settings.admin_key), place, self._report)
        if digest is not None and digest in digests:
            self._report.refuse(place, "This is an API key too.", "Give operators a key of their own.")
        return digest


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        connect_s=settings.connect_timeout_seconds,
        request_s=settings.request_timeout_seconds,
        deadline_s=settings.deadline_seconds,
        stream_idle_s=settings.stream_idle_timeout_seconds,
        stream_max_s=settings.stream_max_seconds,
        head_s=settings.head_timeout_seconds,
        body_s=settings.body_timeout_seconds,
        write_s=settings.write_timeout_seconds,
        drain_delay_s=settings.drain_delay_seconds,
        drain_s=settings.drain_seconds,
    )


def _pattern_problem(type_: str, pattern: object) -> str | None:
    """What is wrong with a detector of the operator's own."""
    if not isinstance(pattern, str):
        return "The pattern is no text."
    try:
        Detection((), [CustomPattern(type_, pattern)])
    except BadPattern:
        return "RE2 does not understand the pattern, or it matches the empty text."
    except ValueError:
        return "The type is not made of capitals, digits and underscores."
    return None


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _is_redis(url: SecretStr) -> bool:
    scheme, separator, rest = url.get_secret_value().strip().partition("://")
    return scheme in ("redis", "rediss", "unix") and bool(separator) and bool(rest.strip("/"))
