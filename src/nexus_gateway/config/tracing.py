"""Reads how requests are traced: one switch of ours, everything else in OpenTelemetry's own variables.

For:      a start that fails with what is missing or wrong, instead of spans that never arrive.
Touches:  the list of what is installed, and the certificates that are named. Nothing is imported.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nexus_gateway import __version__
from nexus_gateway.core.tracing import Sampling

from .files import check_regular
from .problems import Report, shown
from .runtime import TracingSpec
from .values import BadValue, number, one_of, whole

PACKAGES: Final = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
INSTALL: Final = "Run: pip install 'nexus-gateway[otel]' (a container: build it with --build-arg NEXUS_EXTRAS=otel)."
SERVICE_NAME: Final = "nexus-gateway"
PROTOCOL: Final = "http/protobuf"
SAMPLERS: Final = tuple(
    f"{parent}{root}" for parent in ("parentbased_", "") for root in ("always_on", "always_off", "traceidratio")
)
ENDPOINT: Final = "http://localhost:4318"
COMPRESSIONS: Final = ("none", "gzip", "deflate")
SWITCH_PLACE: Final = "OTEL_SDK_DISABLED"

_EXPORTER: Final = "OTEL_EXPORTER_OTLP_"
_USUAL: Final = TracingSpec(ENDPOINT)
_seconds: Final = number("Give seconds above 0, such as 10.", above=0, most=3600)
_milliseconds: Final = number("Give milliseconds above 0, such as 5000.", above=0, most=3_600_000)
_count: Final = whole("Give a whole number of 1 or more.", least=1, most=1_000_000)
_ratio: Final = number("Give a number from 0 to 1, such as 0.01.", least=0, most=1)


def compile_tracing(enabled: bool, place: str, environ: Mapping[str, str], report: Report) -> TracingSpec | None:
    """None when nothing is traced."""
    if not enabled:
        return None
    reader = _Reader(environ, report)
    if reader.get(SWITCH_PLACE).lower() == "true" or reader.get("OTEL_TRACES_EXPORTER").lower() == "none":
        report.warn(place, "OpenTelemetry's own variables turn it off.", f"See {SWITCH_PLACE}, OTEL_TRACES_EXPORTER.")
        return None
    try:
        for package in PACKAGES:
            version(package)
    except PackageNotFoundError:
        report.refuse(place, "OpenTelemetry's SDK is not installed.", INSTALL)
        return None
    return reader.spec()


class _Reader:
    """Variables of the OpenTelemetry specification. One that is empty counts as not set, as there."""

    def __init__(self, environ: Mapping[str, str], report: Report) -> None:
        self._environ = environ
        self._report = report

    def get(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def spec(self) -> TracingSpec:
        self._check_fixed("OTEL_TRACES_EXPORTER", "otlp")
        self._check_fixed(self._chosen("PROTOCOL"), PROTOCOL)
        max_waiting = self._read("OTEL_BSP_MAX_QUEUE_SIZE", _count, _USUAL.max_waiting)
        return TracingSpec(
            endpoint=self._endpoint(),
            headers=MappingProxyType(self._pairs(self._chosen("HEADERS"))),
            timeout_s=self._read(self._chosen("TIMEOUT"), _seconds, _USUAL.timeout_s),
            compression=self._read(self._chosen("COMPRESSION"), one_of(COMPRESSIONS), _USUAL.compression),
            ca_file=self._file("CERTIFICATE"),
            cert_file=self._file("CLIENT_CERTIFICATE"),
            key_file=self._file("CLIENT_KEY"),
            sampling=self._sampling(),
            resource=MappingProxyType(self._resource()),
            delay_s=self._read("OTEL_BSP_SCHEDULE_DELAY", _milliseconds, _USUAL.delay_s * 1000) / 1000,
            max_waiting=max_waiting,
            max_batch=min(self._read("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _count, _USUAL.max_batch), max_waiting),
        )

    def _chosen(self, name: str) -> str:
        """The variable that holds: that of traces, else that of every signal."""
        own = f"{_EXPORTER}TRACES_{name}"
        return own if self.get(own) else f"{_EXPORTER}{name}"

    def _read(self, name: str, parse: Any, default: Any) -> Any:
        try:
            return parse(self.get(name)) if self.get(name) else default
        except BadValue as exc:
            self._report.refuse(name, exc.what, exc.remedy)
            return default

    def _check_fixed(self, name: str, only: str) -> None:
        given = self.get(name).lower()
        if given and given != only:
            self._report.refuse(name, f"{shown(given)} is not supported.", f"Leave it out, or write {only}.")

    def _endpoint(self) -> str:
        name = self._chosen("ENDPOINT")
        given = self.get(name) or ENDPOINT
        parts = urlsplit(given)
        try:
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if "@" in parts.netloc:  # not repeated: it may hold a password
            self._report.refuse(name, "The URL holds a user or a password.", f"Use {_EXPORTER}HEADERS.")
        elif not sound or not given.isascii() or " " in given:
            self._report.refuse(name, "This is not the address of a receiver.", "Write http://localhost:4318.")
        return given if name.endswith("TRACES_ENDPOINT") else f"{given.rstrip('/')}/v1/traces"

    def _sampling(self) -> Sampling:
        name: str = self._read("OTEL_TRACES_SAMPLER", one_of(SAMPLERS), SAMPLERS[0])
        share: float = 0.0 if name.endswith("always_off") else 1.0
        if name.endswith("traceidratio"):
            share = self._read("OTEL_TRACES_SAMPLER_ARG", _ratio, share)
        return Sampling(share, heeds_parent=name.startswith("parentbased_"))

    def _pairs(self, name: str) -> dict[str, str]:
        """`a=b,c=d`, percent-encoded. What stands there may be a secret: it is never shown."""
        found = {}
        for position, pair in enumerate(self.get(name).split(","), 1):
            if not pair.strip():
                continue
            key, separator, value = pair.partition("=")
            key, value = unquote(key).strip(), unquote(value).strip()
            if not separator or not key.isascii() or not key.isprintable() or not key or not value.isprintable():
                self._report.refuse(f"{name}[{position}]", "This is not name=value.", "Write a=b,c=d, %2C for a comma.")
                continue
            found[key] = value
        return found

    def _resource(self) -> dict[str, str]:
        """What every span says of its process."""
        given = self._pairs("OTEL_RESOURCE_ATTRIBUTES")
        own = {"service.name": SERVICE_NAME, "service.version": __version__}
        named = {"service.name": name} if (name := self.get("OTEL_SERVICE_NAME")) else {}
        return {**own, **given, **named}

    def _file(self, name: str) -> str | None:
        variable = self._chosen(name)
        path = self.get(variable)
        if not path:
            return None
        try:
            check_regular(path)
        except BadValue as exc:
            self._report.refuse(variable, exc.what, exc.remedy)
        return path
