"""The configuration that holds, as people read it. Secrets are counted, never shown.

For:      `nexus-gateway check`.
Touches:  nothing.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from nexus_gateway.core.policies import RoutePolicy, Strategy

from .runtime import MockSpec, TracingSpec, UpstreamSpec
from .schema import DEV_KEY, NAMES, SECRETS, details, variable
from .settings import Loaded

_WIDTH = max(len(variable(name)) for name in NAMES) + 2


def describe(loaded: Loaded) -> str:
    """One line per setting: variable, value, and where it comes from; below it, one line per upstream or policy."""
    lines = []
    for name in NAMES:
        place = loaded.places.get(name, "default")
        origin = "environment" if place == variable(name) else place
        lines.append(f"{variable(name):{_WIDTH}}{_value(name, loaded):32}  {origin}".rstrip())
        if name == "upstreams":
            lines += [f"  {describe_upstream(spec)}" for spec in loaded.runtime.upstreams]
        if name == "route_policies":
            lines += [f"  {describe_policy(policy)}" for policy in loaded.runtime.policies.values()]
        if name == "otel_enabled" and loaded.runtime.tracing is not None:
            lines.append(f"  {describe_tracing(loaded.runtime.tracing)}")
    lines += [f"note: {note}" for note in loaded.hidden]
    return "\n".join(lines)


def describe_upstream(spec: UpstreamSpec) -> str:
    """An upstream on one line: its URL as it is used, and the options that are not at their defaults."""
    host = _bracketed(spec.host)
    url = (
        f"{spec.kind}://{host}:{spec.port}{spec.base_path}"
        if spec.port
        else f"{spec.kind}://{host or spec.model or ''}"
    )
    options = {
        "model": spec.model if spec.host else None,
        "api_base": spec.api_base,
        "key": None if spec.api_key is None else "(hidden)",
        "timeout_seconds": spec.timeout_s,
        "max_concurrency": spec.max_concurrency,
        "ca_file": spec.ca_file,
        "cert_file": spec.cert_file,
        "key_file": spec.key_file,
        "proxy": None if spec.proxy is None else f"{_bracketed(spec.proxy.host)}:{spec.proxy.port}",
        "forward_headers": ",".join(sorted(spec.forward_headers)) or None,
        "health": spec.health_path,
        "mask": None if spec.mask else "off",
        "startup_seconds": spec.startup_s,
        "stream_usage": None if spec.stream_usage else "off",
        "health_rpc": None if spec.health_rpc else "off",
        "mock_response": spec.mock_response,
        **_mock_options(spec.mock),
    }
    said = [f"{key}={_plain(value)}" for key, value in options.items() if value is not None]
    return "  ".join([f"{spec.name} = {url}", *said])


def describe_policy(policy: RoutePolicy) -> str:
    """A route policy on one line: who answers and in what proportion, and what else it sets."""
    weighs = policy.strategy is not Strategy.FAILOVER
    targets = [f"{each.upstream}:{_plain(each.weight)}" if weighs else each.upstream for each in policy.targets]
    sticky = policy.sticky
    options = {
        "sticky": sticky and (sticky.by if sticky.header is None else f"{sticky.by}:{sticky.header}"),
        "timeout_seconds": policy.timeout_s,
        "first_token_timeout_seconds": policy.first_token_timeout_s,
        "max_attempts": policy.max_attempts,
        "fallbacks": None if policy.fallbacks is None else ",".join(policy.fallbacks),
    }
    said = [f"{key}={_plain(value)}" for key, value in options.items() if value is not None]
    return "  ".join([f"{policy.name} = {policy.strategy.value} {','.join(targets)}", *said])


def describe_tracing(spec: TracingSpec) -> str:
    """Where spans go, by OpenTelemetry's own variables, and which. A query may be a secret."""
    endpoint = spec.endpoint.partition("?")[0]
    whose = "of those that callers have not decided about" if spec.sampling.heeds_parent else "whoever calls"
    return f"{spec.resource['service.name']} -> {endpoint}, {spec.sampling.share * 100:g}% of the traces, {whose}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _mock_options(mock: MockSpec | None) -> Mapping[str, object]:
    usual = MockSpec()
    if mock is None or mock == usual:
        return MappingProxyType({})
    return {
        "delay_ms": mock.delay_s * 1000 or None,
        "chunk_delay_ms": mock.chunk_delay_s * 1000 or None,
        "tokens": mock.tokens,
        "status": None if mock.status == usual.status else mock.status,
        "error_rate": mock.error_rate or None,
        "seed": mock.seed or None,
        "fail_after": mock.fail_after,
    }


def _value(name: str, loaded: Loaded) -> str:
    value = getattr(loaded.settings, name)
    if name == "api_keys":
        return _keys(loaded)
    if name == "upstreams":
        return _count(loaded.runtime.upstreams, "upstream")
    if name == "route_policies":
        return _count(loaded.runtime.policies, "policy", "policies") if value else "none"
    if name == "fallbacks":
        return ";".join(f"{key}={','.join(names)}" for key, names in loaded.runtime.fallbacks.items()) or "none"
    if name in SECRETS:
        return "(hidden)" if value else "none"
    if name == "rate_limit_per_minute" and value is None:
        return "unlimited"
    if value is None or value == {}:
        return str(details(name)["default_says"]).replace("`", "")
    if name == "ops_listen":
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ",".join(value) if isinstance(value, tuple) else _plain(value)


def _keys(loaded: Loaded) -> str:
    if loaded.settings.api_keys is None and loaded.runtime.accepts_dev_key:
        return DEV_KEY
    return f"{_count(loaded.runtime.api_key_digests, 'key')} (hidden)" if loaded.runtime.api_key_digests else "none"


def _count(things: Collection[object], noun: str, nouns: str | None = None) -> str:
    return f"{len(things)} {noun if len(things) == 1 else nouns or f'{noun}s'}"


def _plain(value: object) -> str:
    """A value as one would write it in a variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.15g}" if isinstance(value, float) else str(value)
