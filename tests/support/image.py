"""What a Dockerfile says, carried out without an engine: its own commands on this machine, where /opt is the image's.

For:      a build in a mount namespace of its own: its /opt is a folder of the test's, its /usr/local is this Python.
Touches:  that folder. Needs root, for namespaces; fails on an instruction that it does not know.

    image = build(Path("Dockerfile"), tmp_path, {"NEXUS_EXTRAS": ""})
    ...  # image.opt holds the image's /opt; image.user, .entrypoint, .health say how it would be run
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PASSED_ON: Final = re.compile(r"(?i)PIP_\w+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|(?:https?|no)_proxy")
"""How this machine reaches its package index, which is no part of the image."""

ENTER: Final = 'mount --bind "$BASE" /usr/local && mount --bind "$OPT" /opt'
"""Makes a mount namespace look like the image."""


@dataclass(slots=True)
class Stage:
    base: str
    opt: Path
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    workdir: str = "/"
    user: str = "0:0"
    stop_signal: str = "SIGTERM"
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    exposed: set[int] = field(default_factory=set)

    def outside(self) -> dict[str, str]:
        """What `ENTER` wants to know."""
        return {**os.environ, "BASE": sys.base_prefix, "OPT": str(self.opt)}

    def inside(self) -> list[str]:
        """A command's prefix: nothing of this machine's environment but the way to its libraries."""
        passed = {"LD_LIBRARY_PATH": "/usr/local/lib"} | self.environ
        return ["env", "-i", *(f"{name}={value}" for name, value in passed.items())]


def build(dockerfile: Path, scratch: Path, arguments: Mapping[str, str]) -> Stage:
    """The last stage. Raises CalledProcessError when a command fails, as an engine would end the build."""
    stages: dict[str, Stage] = {}
    stage = Stage("", scratch)
    for word, rest in instructions(dockerfile.read_text()):
        match word:
            case "FROM":
                base, _, name = rest.partition(" AS ")
                stage = stages[name] = Stage(base, scratch / (name or "last"))
                stage.opt.mkdir()
            case "ARG":
                name, _, default = rest.partition("=")
                stage.environ[name] = arguments.get(name, default.strip('"'))
            case "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    stage.environ[name] = value.replace("$PATH", stage.environ["PATH"])
            case "WORKDIR":
                stage.workdir = rest
                if rest.startswith("/opt/"):
                    _in(stage, rest).mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(dockerfile.parent, stages, stage, rest.split())
            case "RUN":
                _run(stage, rest)
            case "USER":
                stage.user = rest
            case "EXPOSE":
                stage.exposed.add(int(rest))
            case "HEALTHCHECK":
                stage.health = json.loads(rest.partition(" CMD ")[2])
            case "STOPSIGNAL":
                stage.stop_signal = rest
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(rest)
            case _:
                raise NotImplementedError(word)
    return stage


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Word and rest of each, comments left out and continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, " ".join(rest.split()) if word != "RUN" else rest.strip()


def context(root: Path) -> list[Path]:
    """The files that `.dockerignore` leaves, relative to `root`. The last pattern that matches decides."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, check=True, capture_output=True)
    return [path for path in map(Path, listed.stdout.decode().splitlines()) if not _is_ignored(path, rules)]


def _is_ignored(path: Path, rules: list[str]) -> bool:
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = [path, *path.parents][:-1]
        if any(fnmatch.fnmatchcase(part.name if "**/" in rule else str(part), pattern) for part in parts):
            ignored = not rule.startswith("!")
    return ignored


def _copy(root: Path, stages: Mapping[str, Stage], stage: Stage, words: list[str]) -> None:
    if words[0].startswith("--from="):
        source, target = words[1:]
        shutil.copytree(_in(stages[words[0].removeprefix("--from=")], source), _in(stage, target), symlinks=True)
        return
    *sources, target = words
    sent = context(root)
    for source in sources:
        chosen = [path for path in sent if path.is_relative_to(source)]
        assert chosen, f"{source} is not in the build's context"
        for path in chosen:
            place = _in(stage, stage.workdir) / target / path.relative_to(source if source.endswith("/") else ".")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, place)


def _in(stage: Stage, path: str) -> Path:
    """Where a path of the image lies on this machine."""
    assert path.startswith("/opt/"), f"{path}: only /opt is the image's own"
    return stage.opt / path.removeprefix("/opt/")


def _run(stage: Stage, command: str) -> None:
    passed = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    words = [
        "env",
        f"--chdir={stage.workdir}",
        *stage.inside()[1:],
        *(f"{name}={value}" for name, value in passed.items()),
    ]
    entered = f'{ENTER} && exec "$@"'
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", entered, "sh", *words, "/bin/sh", "-c", command],
        env=stage.outside(), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
