"""OpenTelemetry's own variables: what they mean to the gateway, what is refused, and that no secret is shown."""

import pytest

from nexus_gateway import __version__
from nexus_gateway.config.effective import describe
from nexus_gateway.config.runtime import TracingSpec
from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.core.tracing import Sampling

ON = {"GATEWAY_OTEL_ENABLED": "true"}
OTLP = "OTEL_EXPORTER_OTLP_"


def traced(**environ: str) -> TracingSpec:
    spec = load({**ON, **environ}).runtime.tracing
    assert spec is not None
    return spec


def test_an_endpoint_alone_switches_nothing_on() -> None:
    assert load({f"{OTLP}ENDPOINT": "http://collector:4318"}).runtime.tracing is None


def test_the_usual_receiver_is_on_this_machine() -> None:
    spec = traced()
    assert spec.endpoint == "http://localhost:4318/v1/traces"
    assert spec.resource == {"service.name": "nexus-gateway", "service.version": __version__}


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({f"{OTLP}ENDPOINT": "https://c:4318"}, "https://c:4318/v1/traces"),
        ({f"{OTLP}ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
        ({f"{OTLP}TRACES_ENDPOINT": "https://c/otlp/"}, "https://c/otlp/"),
        ({f"{OTLP}ENDPOINT": "http://a", f"{OTLP}TRACES_ENDPOINT": "http://b/x"}, "http://b/x"),
        ({f"{OTLP}ENDPOINT": "http://a", f"{OTLP}TRACES_ENDPOINT": ""}, "http://a/v1/traces"),
    ],
)
def test_what_is_said_of_traces_alone_goes_first(given: dict[str, str], endpoint: str) -> None:
    assert traced(**given).endpoint == endpoint


def test_values_are_percent_decoded_and_a_name_goes_before_an_attribute() -> None:
    spec = traced(
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20x%3D%2C, x-tenant = blue ,",
        OTEL_RESOURCE_ATTRIBUTES="service.name=a,service.version=7,k=v",
        OTEL_SERVICE_NAME="b",
    )
    assert spec.headers == {"authorization": "Bearer x=,", "x-tenant": "blue"}
    assert spec.resource == {"service.name": "b", "service.version": "7", "k": "v"}


def test_a_batch_is_never_larger_than_the_queue() -> None:
    spec = traced(OTEL_BSP_MAX_QUEUE_SIZE="10", OTEL_BSP_SCHEDULE_DELAY="250")
    assert (spec.max_batch, spec.max_waiting, spec.delay_s) == (10, 10, 0.25)


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_librarys_own_switch_holds_and_is_told_of(off: dict[str, str]) -> None:
    loaded = load({**ON, **off})
    assert loaded.runtime.tracing is None
    assert [warning.place for warning in loaded.warnings] == ["GATEWAY_OTEL_ENABLED"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{OTLP}ENDPOINT", "collector:4318"),
        (f"{OTLP}ENDPOINT", "grpc://collector:4317"),
        (f"{OTLP}ENDPOINT", "http://c:99999"),
        (f"{OTLP}ENDPOINT", "http://user:hunter2@c:4318"),
        (f"{OTLP}TRACES_ENDPOINT", "http://"),
        (f"{OTLP}HEADERS", "hunter2"),
        (f"{OTLP}TRACES_HEADERS", "a=b,hunter2"),
        (f"{OTLP}HEADERS", "a=hunter2%0d%0ab: c"),
        (f"{OTLP}PROTOCOL", "grpc"),
        (f"{OTLP}TRACES_PROTOCOL", "http/json"),
        (f"{OTLP}TIMEOUT", "0"),
        (f"{OTLP}COMPRESSION", "zstd"),
        (f"{OTLP}CERTIFICATE", "/nonexistent"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "hunter2"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
    ],
)
def test_what_cannot_work_is_refused_where_it_stands(name: str, value: str) -> None:
    with pytest.raises(ConfigurationProblems) as refused:
        load({**ON, name: value})
    (problem,) = refused.value.problems
    assert problem.place.partition("[")[0] == name
    assert "hunter2" not in str(refused.value)


def test_a_share_is_read_only_where_it_means_something() -> None:
    nonsense = {"OTEL_TRACES_SAMPLER_ARG": "endpoint=http://c"}
    assert traced(**nonsense).sampling == Sampling()
    with pytest.raises(ConfigurationProblems):
        load({**ON, **nonsense, "OTEL_TRACES_SAMPLER": "traceidratio"})


def test_where_spans_go_is_shown_but_no_secret_is() -> None:
    given = {f"{OTLP}HEADERS": "authorization=hunter2", f"{OTLP}TRACES_ENDPOINT": "https://c/v1/traces?key=hunter2"}
    loaded = load({**ON, **given, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.125"})
    assert "nexus-gateway -> https://c/v1/traces, 12.5% of the traces, whoever calls" in describe(loaded)
    assert "hunter2" not in repr(loaded)
    assert "hunter2" not in describe(loaded)
