"""What the image is built from: the files that are sent to the build, and the pins of the extras to be built in."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.support.image import context, instructions

ROOT: Final = Path(__file__).parents[2]
EXTRAS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_only_what_it_needs_is_sent_to_the_build() -> None:
    sent = {str(path) for path in context(ROOT)}
    pinned = {f"requirements/{name}.txt" for name in ("runtime", *EXTRAS)}
    others = {"LICENSE", "README.md", "pyproject.toml"}
    assert {path for path in sent if not path.startswith("src/")} == pinned | others
    assert "src/nexus_gateway/command.py" in sent


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_it_says_and_changes_nothing_else(extra: str) -> None:
    """It is installed on top of the rest, and so is any other."""
    own = pins(extra)
    asked = {re.split(r"[^\w-]", wanted, maxsplit=1)[0].lower() for wanted in EXTRAS[extra]}
    assert asked <= set(own)
    for other in ("runtime", *EXTRAS):
        shared = own.keys() & pins(other).keys()
        assert {name: own[name] for name in shared} == {name: pins(other)[name] for name in shared}


@pytest.mark.parametrize("asked", ["nothing", "../pyproject", "litellm,nothing"])
def test_an_extra_that_is_none_ends_the_build(asked: str, tmp_path: Path) -> None:
    """It names the one; what comes before it would be installed first."""
    (command,) = [
        rest
        for word, rest in instructions((ROOT / "Dockerfile").read_text())
        if "NEXUS_EXTRAS" in rest and word == "RUN"
    ]
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/litellm.txt").touch()
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o755)
    environ = {"NEXUS_EXTRAS": asked, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environ, capture_output=True, check=False)
    unknown = asked.split(",")[-1]
    assert (ended.returncode, ended.stderr.decode()) == (1, f"NEXUS_EXTRAS: there is no extra '{unknown}'\n")
