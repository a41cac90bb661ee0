"""The compose files, read by Compose itself: what is published, what is passed on, and what the gateway makes of it."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_gateway.config.runtime import Timeouts
from nexus_gateway.config.schema import NAMES, variable
from nexus_gateway.config.settings import load
from tests.support.gateway import gateway
from tests.support.http_client import chat
from tests.support.raw_server import Peer, RawServer, plain

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
VLLM = ("docker-compose.yml", "docker-compose.vllm.yml")
MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"


async def run(*command: str, cwd: Path, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(cwd), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complained = await process.communicate()
    return process.returncode or 0, told.decode(), complained.decode()


async def compose(project: Path, *files: str, **environ: str) -> Any:
    """The services, with everything filled in. `project`: where Compose looks for `.env`."""
    named = [part for file in files or VLLM[:1] for part in ("-f", str(ROOT / file))]
    command = ["docker-compose", "--project-directory", str(project), *named, "config", "--format", "json"]
    status, told, complained = await run(*command, cwd=project, **environ)
    assert status == 0, complained
    return json.loads(told)["services"]


def environment(service: Any) -> dict[str, str]:
    """What the process will find in its environment."""
    return {name: value for name, value in service["environment"].items() if value is not None}


def published(services: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    ports = [(name, port) for name, service in services.items() for port in service.get("ports", ())]
    return {(name, port["host_ip"], port["target"]) for name, port in ports if port["published"] == str(port["target"])}


@pytest.mark.parametrize("files", [VLLM[:1], VLLM])
@pytest.mark.parametrize("bind", [None, "0.0.0.0"])
async def test_nothing_is_published_beyond_loopback_unless_told_so(
    tmp_path: Path, files: tuple[str, ...], bind: str | None
) -> None:
    told = {} if bind is None else {"NEXUS_BIND": bind}
    services = await compose(tmp_path, *files, MODEL_ID=MODEL, **told)
    address = bind or "127.0.0.1"
    assert published(services) == {
        ("gateway", address, 8000),
        ("prometheus", address, 9090),
        ("grafana", address, 3000),
    }
    assert sum(len(service.get("ports", ())) for service in services.values()) == 3


async def test_with_nothing_set_it_is_the_mock_and_the_usual_key(tmp_path: Path) -> None:
    services = await compose(tmp_path)
    loaded = load(environment(services["gateway"]))
    assert not loaded.warnings
    assert loaded.runtime.accepts_dev_key
    assert [spec.kind for spec in loaded.runtime.upstreams] == ["mock"]
    assert loaded.runtime.redis_url == "redis://valkey:6379/0"
    assert "valkey" in services


async def test_every_setting_reaches_the_gateway(tmp_path: Path) -> None:
    settings = {variable(name): f"value of {name}" for name in NAMES}
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-1\nGATEWAY_API_KEYS_FILE=/run/secrets/keys\n")
    passed = environment((await compose(tmp_path, **settings))["gateway"])
    assert passed == {**settings, "OPENAI_API_KEY": "sk-1", "GATEWAY_API_KEYS_FILE": "/run/secrets/keys"}


async def test_the_gateway_may_do_little_and_has_time_to_drain(tmp_path: Path) -> None:
    service = (await compose(tmp_path))["gateway"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    (grace_s,) = re.fullmatch(r"(\d+)s", service["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert int(grace_s) > Timeouts().drain_delay_s + Timeouts().drain_s + 1


async def test_what_is_mounted_exists_and_what_is_scraped_is_a_service(tmp_path: Path) -> None:
    services = await compose(tmp_path, *VLLM, MODEL_ID=MODEL)
    binds = [
        Path(volume["source"]).relative_to(tmp_path)
        for service in services.values()
        for volume in service.get("volumes", ())
        if volume["type"] == "bind"
    ]
    assert binds
    for bind in binds:
        assert (ROOT / bind).exists(), bind
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for static in job["static_configs"] for target in static["targets"]]
    assert "gateway:8000" in targets


async def test_grafana_finds_its_data_source_and_the_dashboard(tmp_path: Path) -> None:
    services = await compose(tmp_path)
    grafana = services["grafana"]
    told = grafana["environment"]
    assert (told["GF_SECURITY_ADMIN_USER"], told["GF_SECURITY_ADMIN_PASSWORD"]) == ("admin", "admin")
    mounted = {volume["target"]: volume["source"].replace(str(tmp_path), str(ROOT)) for volume in grafana["volumes"]}
    provisioned = Path(mounted["/etc/grafana/provisioning"])
    (source,) = yaml.safe_load((provisioned / "datasources/prometheus.yml").read_text())["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert int(port) in {each["target"] for each in services[host]["ports"]}
    (provider,) = yaml.safe_load((provisioned / "dashboards/nexus-gateway.yml").read_text())["providers"]
    dashboard = json.loads((Path(mounted[provider["options"]["path"]]) / "nexus-gateway.json").read_text())
    assert dashboard["title"] == "Nexus Gateway"


async def test_grafana_has_another_password_where_one_is_given(tmp_path: Path) -> None:
    grafana = (await compose(tmp_path, GRAFANA_PASSWORD="a-better-one"))["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "a-better-one"


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
async def test_the_commands_shown_are_ones_that_compose_understands(page: str, tmp_path: Path) -> None:
    shown = re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    commands = [block for block in shown if "docker compose" in block]
    assert len(commands) == 2
    for command in commands:
        read = command.replace("docker compose", "docker-compose").replace("up --build", "config --services")
        status, told, complained = await run("bash", "-ec", read, cwd=ROOT)
        assert (status, complained) == (0, "")
        assert {"gateway", "valkey", "prometheus"} <= set(told.split())
        assert ("vllm" in told.split()) is ("vllm" in command)


# ---- vLLM


async def test_a_model_server_needs_a_model(tmp_path: Path) -> None:
    files = [part for file in VLLM for part in ("-f", str(ROOT / file))]
    status, _, complained = await run("docker-compose", *files, "config", cwd=tmp_path)
    assert status != 0
    assert "name the model to serve" in complained


async def test_the_model_server_has_its_gpus_its_cache_and_the_token(tmp_path: Path) -> None:
    services = await compose(tmp_path, *VLLM, MODEL_ID=MODEL, HF_TOKEN="hf_1", VLLM_ARGS="--max-model-len 8192")
    vllm = services["vllm"]
    assert (vllm["runtime"], vllm["ipc"]) == ("nvidia", "host")
    assert vllm["command"] == ["--model", MODEL, "--max-model-len", "8192"]
    assert vllm["environment"]["HF_TOKEN"] == "hf_1"
    (cache,) = vllm["volumes"]
    assert (cache["type"], cache["target"]) == ("volume", vllm["environment"]["HF_HOME"])
    assert "vllm" not in services["gateway"].get("depends_on", ()), "the gateway starts at once"


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A port that refuses connections until somebody listens on it."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened


async def vllm(peer: Peer) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    while True:
        request = await peer.receive()
        assert request.target in ("/health", "/v1/chat/completions")
        body = {} if request.method == "GET" else {"model": json.loads(request.body)["model"], "choices": [choice]}
        await peer.send(plain(json.dumps(body).encode()))


async def test_a_chat_call_naming_the_model_just_works_once_it_is_loaded(tmp_path: Path, bound: socket.socket) -> None:
    services = await compose(tmp_path, *VLLM, MODEL_ID=MODEL)
    settings = {name.removeprefix("GATEWAY_"): value for name, value in environment(services["gateway"]).items()}
    del settings["REDIS_URL"]
    upstreams = settings.pop("UPSTREAMS").replace("vllm:8000", f"127.0.0.1:{bound.getsockname()[1]}")
    assert settings["REQUEST_TIMEOUT_SECONDS"] == "120"
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    async with gateway({**settings, "HEALTH_CHECK_SECONDS": "0.05"}, upstreams) as running:
        assert (await chat(running.port, body=json.dumps({**ask, "model": "mock"}).encode())).status == 200
        answer = await chat(running.port, body=json.dumps(ask).encode())
        assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_starting")
        assert int(answer.headers["retry-after"]) >= 1
        async with RawServer(vllm, bound=bound):
            while (answer := await chat(running.port, body=json.dumps(ask).encode())).status == 503:
                pass
            assert (answer.status, answer.json()["model"]) == (200, MODEL)
