"""Reading what Helm rendered: single manifests, and what a process in a pod would find.

For:      tests of the chart, and of the image as the chart runs it.
Touches:  the folder that it is given for the files of a ConfigMap.
"""

from pathlib import Path
from typing import Any, Final

from tests.deploy.helm import Manifest

SUPPLIED: Final = {  # what is in the Secrets that an example says exist
    "gateway-keys": {"keys": "one-of-ours,another-of-ours"},
    "gateway-secrets": {
        "GATEWAY_REDIS_URL": "redis://valkey:6379/0",
        "GATEWAY_PII_HASH_SALT": "a-salt-of-some-length",
        "GATEWAY_METRICS_KEY": "metrics-key-of-some-length",
        "GATEWAY_ADMIN_KEY": "admin-key-of-some-length",
        "OPENAI_API_KEY": "sk-1",
    },
}


def the(kind: str, manifests: list[Manifest], name: str = "gateway-nexus-gateway") -> Manifest:
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def kinds(manifests: list[Manifest]) -> set[str]:
    return {each["kind"] for each in manifests}


def pod(manifests: list[Manifest]) -> Any:
    return the("Deployment", manifests)["spec"]["template"]


def container(manifests: list[Manifest]) -> Any:
    (found,) = pod(manifests)["spec"]["containers"]
    return found


def environment(manifests: list[Manifest], folder: Path) -> dict[str, str]:
    """What the gateway finds in a pod. Files of the ConfigMap are put into `folder`."""
    secrets = {each["metadata"]["name"]: each["stringData"] for each in manifests if each["kind"] == "Secret"}
    secrets |= SUPPLIED
    found: dict[str, str] = {}
    for source in container(manifests).get("envFrom", ()):
        found |= secrets[source["secretRef"]["name"]]
    for variable in container(manifests)["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        found[variable["name"]] = secrets[reference["name"]][reference["key"]] if reference else variable["value"]
    if "GATEWAY_CONFIG_FILE" in found:
        mounted = Path(found["GATEWAY_CONFIG_FILE"])
        (place,) = [each for each in container(manifests)["volumeMounts"] if each["name"] == "config"]
        assert Path(place["mountPath"]) == mounted.parent
        (folder / mounted.name).write_text(the("ConfigMap", manifests)["data"][mounted.name])
        found["GATEWAY_CONFIG_FILE"] = str(folder / mounted.name)
    return found
