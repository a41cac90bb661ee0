"""The image, without an engine: the Dockerfile's own steps, then its entry point as its user on a read-only tree."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.helm import Helm
from tests.deploy.manifests import container, environment
from tests.support.image import ENTER, Stage, build, context

pytestmark = [pytest.mark.anyio, pytest.mark.packages, pytest.mark.timeout(300)]

ROOT: Final = Path(__file__).parents[2]
LIMITS: Final = ("--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
READ_ONLY: Final = (
    f"{ENTER} && mount -t tmpfs tmpfs /tmp && mount -o remount,bind,ro /opt && mount -o remount,bind,ro /"
)
ALONE: Final = ("--mount", "--net", "--pid", "--fork", "--mount-proc")
CHAT: Final = """
import http.client, json
caller = http.client.HTTPConnection("127.0.0.1", 8000, timeout=10)
ask = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "hello"}]})
caller.request("POST", "/v1/chat/completions", ask, {"X-API-Key": "dev-key", "Content-Type": "application/json"})
print(caller.getresponse().status)
"""
STANDS: Final = """
import http.client, json
def status(port, path, *key):
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    ask = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "hello"}]}) if key else None
    headers = {"X-API-Key": key[0], "Content-Type": "application/json"} if key else {}
    caller.request("POST" if key else "GET", path, ask, headers)
    return caller.getresponse().status
print(json.dumps({
    "ready": status(8000, "/readyz"), "alive": status(8000, "/healthz"), "own key": status(8000, CHAT, KEY),
    "usual key": status(8000, CHAT, "dev-key"), "metrics": status(OPS, "/metrics"), "to all": status(8000, "/metrics"),
}))
"""
WRITE: Final = """
import os, pathlib, sys
for folder in map(pathlib.Path, (sys.prefix, "/opt", "/usr/local", "/etc", "/", "/tmp")):
    try:
        (folder / "written").touch()
        print(folder)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    scratch = tmp_path_factory.mktemp("image")
    yield build(ROOT / "Dockerfile", scratch, {})
    shutil.rmtree(scratch)  # 250 MB


@dataclass(frozen=True, slots=True)
class Container:
    image: Stage
    process: asyncio.subprocess.Process
    pid: int  # of the gateway, as this machine counts

    async def run(self, *command: str) -> tuple[int, str]:
        """Exit status and words of a command in the container, as its user."""
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--target={self.pid}", "--mount", "--net", "--pid"), *as_user(self.image), *command,
            env=self.image.outside(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        told, _ = await process.communicate()
        return process.returncode or 0, told.decode()


def as_user(image: Stage) -> list[str]:
    user, _, group = image.user.partition(":")
    return ["setpriv", f"--reuid={user}", f"--regid={group}", *LIMITS, *image.inside()]


@asynccontextmanager
async def running(image: Stage, *arguments: str, **environ: str) -> AsyncIterator[Container]:
    """The entry point as process 1 of namespaces of its own, without a capability; only /tmp can be written."""
    told = [f"{name}={value}" for name, value in environ.items()]
    enter = f'{READ_ONLY} && ip link set lo up && cd {image.workdir} && exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", *ALONE, "sh", "-c", enter, "sh"), *as_user(image), *told, *image.entrypoint, *arguments,
        env=image.outside(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = b""
        while b"  keys:" not in said:
            line = await process.stderr.readline()
            assert line, f"it ended before it was ready: {said.decode()}"
            said += line
        yield Container(image, process, first_child(process.pid))
    finally:
        if process.returncode is None:
            os.kill(first_child(process.pid), signal.SIGKILL)
        await process.communicate()


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def first_child(pid: int) -> int:
    """The process that `unshare` has made; it ends with it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def installed(image: Stage) -> set[tuple[str, str]]:
    """Name and version of every package in it."""
    ask = "import importlib.metadata as m; print(*(f'{d.name.lower()}=={d.version}' for d in m.distributions()))"
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'{ENTER} && exec "$@"',
        "sh",
        *image.inside(),
        "/opt/nexus/bin/python3",
    ]
    told = subprocess.run([*command, "-c", ask], env=image.outside(), check=True, capture_output=True).stdout.decode()
    return {(name.replace("_", "-"), version) for name, _, version in (each.partition("==") for each in told.split())}


def test_it_holds_what_was_pinned_and_nothing_that_installs(image: Stage) -> None:
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE)
    assert {name for name, _ in installed(image) - set(pinned)} == {"nexus-gateway"}
    assert "pip" not in {name for name, _ in installed(image)}


def test_nobody_may_change_it_and_everybody_may_read_it(image: Stage) -> None:
    assert image.user == "65532:65532"
    for path in image.opt.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            assert not mode & 0o022, path
            assert mode & 0o004, path


def test_only_what_it_needs_is_sent_to_the_build() -> None:
    sent = {str(path) for path in context(ROOT)}
    assert {path for path in sent if not path.startswith(("src/", "requirements/"))} == {
        "LICENSE", "README.md", "pyproject.toml",
    }  # fmt: skip
    assert "requirements/runtime.txt" in sent
    assert not sent & {"requirements/dev.txt", "requirements/uv.txt", "requirements/build.in"}


async def test_it_serves_as_its_user_on_a_read_only_tree_until_it_is_told_to_stop(image: Stage) -> None:
    async with running(image) as container:
        status = status_of(container.pid)
        assert status["Uid"] == ["65532"] * 4
        assert status["CapEff"] == ["0" * 16]
        assert status["NSpid"][-1] == "1", "whoever stops the container speaks to the gateway itself"
        assert await container.run(*image.health) == (0, "")
        assert await container.run("python3", "-c", CHAT) == (0, "200\n")
        assert await container.run("python3", "-c", WRITE) == (0, "/tmp\n")
        assert (await container.run("nexus-gateway", "check"))[0] == 0
        os.kill(container.pid, signal.Signals[image.stop_signal])
        async with asyncio.timeout(10):
            assert await container.process.wait() == 0


async def test_it_is_unhealthy_when_nobody_listens_where_it_should(image: Stage) -> None:
    async with running(image, "--port", "8001") as container:
        status, _ = await container.run(*image.health)
        assert status == 1


async def test_a_pod_of_the_chart_says_that_it_goes_and_serves_until_all_have_heard(
    image: Stage, tmp_path: Path
) -> None:
    key = "a-key-of-our-own"
    with Helm() as helm:
        manifests = helm.render({"auth": {"apiKeys": [key]}, "drain": {"delaySeconds": 8, "limitSeconds": 5}})
    (ops,) = [port["containerPort"] for port in container(manifests)["ports"] if port["name"] == "ops"]
    look = STANDS.replace("CHAT", "'/v1/chat/completions'").replace("KEY", repr(key)).replace("OPS", str(ops))
    well = {"ready": 200, "alive": 200, "own key": 200, "usual key": 401, "metrics": 200, "to all": 404}
    async with running(image, **environment(manifests, tmp_path)) as pod:
        assert json.loads((await pod.run("python3", "-c", look))[1]) == well
        os.kill(pod.pid, signal.SIGTERM)
        while (stands := json.loads((await pod.run("python3", "-c", look))[1])) == well:
            pass
        assert stands == {**well, "ready": 503}
        async with asyncio.timeout(20):
            assert await pod.process.wait() == 0
