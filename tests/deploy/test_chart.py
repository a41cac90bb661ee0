"""The chart as Helm renders it: Kubernetes takes it, the gateway starts with it, and what could not work is refused."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import kubernetes_validate
import pytest
import yaml

from nexus_gateway.config.runtime import Runtime, UpstreamSpec
from nexus_gateway.config.schema import SECRETS
from nexus_gateway.config.settings import load
from nexus_gateway.edge.server import LAST_WORDS_S
from tests.deploy.chart_values import CHART, PAGE, leaves, page
from tests.deploy.helm import Helm, Manifest, Refused
from tests.deploy.manifests import container, environment, kinds, pod, the
from tests.support.gateway import gateway
from tests.support.image import instructions

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
KEYS = {"auth": {"apiKeys": ["a-key-of-our-own"]}}


@pytest.fixture(scope="module")
def helm() -> Iterator[Helm]:
    with Helm() as running:
        yield running


def example(name: str) -> Any:
    return yaml.safe_load((CHART / f"examples/{name}.yaml").read_text())


def runtime(manifests: list[Manifest], folder: Path) -> Runtime:
    loaded = load(environment(manifests, folder))
    assert not loaded.warnings
    assert not loaded.hidden, "nothing in the file that a variable hides"
    return loaded.runtime


def test_there_are_three_sets_of_values() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("name", EXAMPLES)
def test_lint_finds_nothing(helm: Helm, name: str) -> None:
    assert helm.lint(example(name)) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_kubernetes_takes_it_from_the_oldest_version_to_the_newest(helm: Helm, name: str) -> None:
    (oldest,) = re.findall(r'kubeVersion: ">=(\d+\.\d+)\.0-0"', (CHART / "Chart.yaml").read_text())
    for manifest in helm.render(example(name)):
        if manifest["kind"] == "ServiceMonitor":
            continue
        for version in (oldest, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.packages
def test_the_prometheus_operator_takes_it(helm: Helm) -> None:
    from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor  # takes seconds, therefore not with the others

    for name in ("production", "tokens"):
        monitor = the("ServiceMonitor", helm.render(example(name)))
        known = ServiceMonitor.model_validate(monitor).model_dump(by_alias=True, exclude_unset=True)
        assert known == monitor, "no member that it does not know"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_gateway_starts_with_it_and_not_with_the_key_that_everybody_knows(
    helm: Helm, name: str, tmp_path: Path
) -> None:
    found = runtime(helm.render(example(name)), tmp_path)
    assert not found.accepts_dev_key
    assert hashlib.sha256(b"dev-key").digest() not in found.api_key_digests
    assert found.api_key_digests or found.tokens is not None


def test_production_is_what_it_says(helm: Helm, tmp_path: Path) -> None:
    manifests = helm.render(example("production"))
    found = runtime(manifests, tmp_path)
    assert len(found.api_key_digests) == 2
    assert found.redis_url == "redis://valkey:6379/0"
    upstreams: dict[str, UpstreamSpec] = {spec.name: spec for spec in found.upstreams}
    assert set(upstreams) == {"llama", "gpt-4o-mini"}, "no mock model among them"
    assert upstreams["llama"].startup_s == 1800
    assert upstreams["gpt-4o-mini"].api_key == "sk-1"
    assert found.ops_listen == ("0.0.0.0", 9100)
    assert kinds(manifests) >= {"HorizontalPodAutoscaler", "PodDisruptionBudget", "ServiceMonitor", "NetworkPolicy"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_kubernetes_waits_longer_than_the_gateway_drains(helm: Helm, name: str, tmp_path: Path) -> None:
    manifests = helm.render(example(name))
    times = runtime(manifests, tmp_path).timeouts
    readiness = container(manifests)["readinessProbe"]
    assert times.drain_delay_s >= readiness["periodSeconds"] * readiness["failureThreshold"]
    assert times.drain_s >= 300, "streams last for minutes"
    grace_s = pod(manifests)["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= times.drain_delay_s + times.drain_s + LAST_WORDS_S + 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_pod_is_what_the_image_wants_and_may_do_little(helm: Helm, name: str) -> None:
    manifests = helm.render(example(name))
    spec, gateway_container = pod(manifests)["spec"], container(manifests)
    image = dict(instructions((ROOT / "Dockerfile").read_text()))
    user, group = map(int, image["USER"].split(":"))
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (user, group)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    limits = gateway_container["securityContext"]
    assert limits["readOnlyRootFilesystem"]
    assert not limits["allowPrivilegeEscalation"]
    assert limits["capabilities"] == {"drop": ["ALL"]}
    assert {"command", "args"} & set(gateway_container) == set(), "the entry point is the image's"
    ports = {port["name"]: port["containerPort"] for port in gateway_container["ports"]}
    assert ports["http"] == int(image["EXPOSE"])
    mounted = {mount["mountPath"]: mount.get("readOnly", False) for mount in gateway_container["volumeMounts"]}
    assert mounted["/tmp"] is False
    assert gateway_container["resources"]["requests"]["cpu"], "the autoscaler needs it"


@pytest.mark.anyio
async def test_the_paths_that_are_asked_for_exist(helm: Helm) -> None:
    manifests = helm.render(example("tokens"))
    probes = [container(manifests)[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    (scraped,) = the("ServiceMonitor", manifests)["spec"]["endpoints"]
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        for path in [*(probe["httpGet"]["path"] for probe in probes), scraped["path"]]:
            assert (await http.get(path)).status_code == 200
        exposed = (await http.get("/metrics")).text
    (by_requests,) = example("production")["autoscaling"]["metrics"]
    assert f"\n{by_requests['pods']['metric']['name']} " in exposed


@pytest.mark.parametrize("name", EXAMPLES)
def test_whatever_selects_selects_these_pods_and_these_ports(helm: Helm, name: str) -> None:
    manifests = helm.render(example(name))
    labels = pod(manifests)["metadata"]["labels"]
    ports = {port["name"] for port in container(manifests)["ports"]}
    services = [each for each in manifests if each["kind"] == "Service"]
    for selector in [
        the("Deployment", manifests)["spec"]["selector"]["matchLabels"],
        *(service["spec"]["selector"] for service in services),
        *(each["spec"]["selector"]["matchLabels"] for each in manifests if each["kind"] == "PodDisruptionBudget"),
        *(each["spec"]["podSelector"]["matchLabels"] for each in manifests if each["kind"] == "NetworkPolicy"),
        *(each["labelSelector"]["matchLabels"] for each in pod(manifests)["spec"]["topologySpreadConstraints"]),
    ]:
        assert selector.items() <= labels.items()
    for service in services:
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for monitor in (each for each in manifests if each["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (chosen,) = [service for service in services if wanted <= service["metadata"]["labels"].items()]
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in chosen["spec"]["ports"]}
    for scaler in (each for each in manifests if each["kind"] == "HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == the("Deployment", manifests)["metadata"]["name"]
        assert "replicas" not in the("Deployment", manifests)["spec"], "two would fight over it"


def test_what_is_for_operators_is_not_published_with_the_api(helm: Helm, tmp_path: Path) -> None:
    manifests = helm.render({**KEYS, "service": {"type": "LoadBalancer"}})
    assert the("Service", manifests, "gateway-nexus-gateway-ops")["spec"]["type"] == "ClusterIP"
    assert [port["name"] for port in the("Service", manifests)["spec"]["ports"]] == ["http"]
    without = helm.render({**KEYS, "opsPort": 0})
    assert runtime(without, tmp_path).ops_listen is None
    assert len([each for each in without if each["kind"] == "Service"]) == 1


def test_one_pod_needs_neither_an_autoscaler_nor_a_budget(helm: Helm) -> None:
    assert kinds(helm.render(example("small"))) == {"Deployment", "Secret", "Service", "ServiceAccount"}


def test_only_operators_reach_the_operators_port(helm: Helm) -> None:
    def ports(operators: list[Any]) -> list[Any]:
        values = {**KEYS, "networkPolicy": {"enabled": True, "operators": operators}}
        return [rule["ports"] for rule in the("NetworkPolicy", helm.render(values))["spec"]["ingress"]]

    assert ports([]) == [[{"port": "http"}]]
    assert ports([{"podSelector": {}}]) == [[{"port": "http"}], [{"port": "ops"}]]


DEV_DIGEST = "sha256:" + hashlib.sha256(b"dev-key").hexdigest()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "say who may call"),
        ({"secrets": {"existing": ["unseen"]}}, "say who may call"),
        ({"auth": {"apiKeys": ["a-key-of-our-own", "dev-key"]}}, "everybody knows dev-key"),
        ({"auth": {"apiKeys": [DEV_DIGEST]}}, "everybody knows dev-key"),
        ({"auth": {"apiKeys": [" " + DEV_DIGEST.upper()]}}, "everybody knows dev-key"),
        ({"auth": {"apiKeys": ["one-of-ours,dev-key"]}}, "a key has no comma"),
        ({"auth": {"existingSecret": {"apiKeysKey": "keys"}}}, "its name is missing"),
        ({"auth": {"existingSecret": {"name": "ours"}}}, "say which of its keys"),
        ({"auth": {"apiKeys": ["k" * 9], "existingSecret": {"name": "a", "apiKeysKey": "b"}}}, "give either"),
        ({"auth": {"jwt": {"jwksUrl": "https://login.example.com/keys"}}}, "need an issuer and an audience"),
        ({**KEYS, "autoscaling": {"minReplicas": 11}}, "minReplicas is above maxReplicas"),
        ({**KEYS, "config": {"drain_seconds": 5}}, "config.drain_seconds: the chart has a value of its own"),
        ({**KEYS, "replicas": 3}, "additional properties 'replicas' not allowed"),
        ({**KEYS, "replicaCount": "three"}, "replicaCount"),
        ({**KEYS, "service": {"port": 0}}, "port"),
        ({**KEYS, "secrets": {"values": {"GATEWAY_API_KEYS": "dev-key"}}}, "propertyName 'GATEWAY_API_KEYS'"),
        ({**KEYS, "secrets": {"values": {"NUMBER": 5}}}, "NUMBER"),
        ({**KEYS, "image": {"digest": "sha256:short"}}, "digest"),
    ],
)
def test_what_could_not_work_is_refused(helm: Helm, values: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        helm.render(values)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_goes_into_a_configmap(helm: Helm, name: str) -> None:
    with pytest.raises(Refused, match=rf"config\.{name}: not in a ConfigMap"):
        helm.render({**KEYS, "config": {name: "x"}})


def test_the_secret_of_tokens_says_who_may_call(helm: Helm, tmp_path: Path) -> None:
    secret = base64.b64encode(b"a secret of thirty-two bytes or more").decode()
    by_value = helm.render({"secrets": {"values": {"GATEWAY_JWT_SECRET": secret}}})
    assert runtime(by_value, tmp_path).tokens is not None
    by_reference = helm.render({"auth": {"existingSecret": {"name": "ours", "jwtSecretKey": "jwt"}}})
    (found,) = [each for each in container(by_reference)["env"] if each["name"] == "GATEWAY_JWT_SECRET"]
    assert found["valueFrom"] == {"secretKeyRef": {"name": "ours", "key": "jwt"}}, "without it the pod does not start"


def test_a_change_of_settings_or_secrets_replaces_the_pods(helm: Helm) -> None:
    def annotations(**values: Any) -> Any:
        return pod(helm.render({**KEYS, **values}))["metadata"]["annotations"]

    usual = annotations()
    assert annotations(replicaCount=5) == usual
    assert annotations(config={"log_level": "debug"}) != usual
    assert annotations(auth={"apiKeys": ["another-key-of-ours"]}) != usual


def test_whoever_counts_for_itself_is_told(helm: Helm) -> None:
    assert "No Redis is configured" in helm.notes(KEYS)
    assert "No Redis" not in helm.notes(example("small"))
    assert "No Redis" not in helm.notes(example("tokens"))


def test_the_version_is_that_of_the_package() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


def test_every_value_is_documented() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.deploy.chart_values"
    schema, defaults = (
        json.loads((CHART / "values.schema.json").read_text()),
        yaml.safe_load((CHART / "values.yaml").read_text()),
    )
    documented = {path for path, _, says in leaves(schema, defaults) if says}
    assert documented == set(paths(defaults, documented))


def paths(defaults: Any, documented: set[str], prefix: str = "") -> Iterator[str]:
    """Every path in the defaults, down to where a value is documented as a whole."""
    for name, value in defaults.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in documented:
            yield from paths(value, documented, f"{path}.")
        else:
            yield path
