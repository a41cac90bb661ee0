"""Helm, in a process of its own: its library brings a Go runtime, with threads and signal handlers.

For:      lint, render and refuse, as `helm` does.
Touches:  one child process, which reads a line of JSON and answers with one.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

CHART: Final = Path(__file__).parents[2] / "deploy/helm/nexus-gateway"
Manifest = dict[str, Any]


class Refused(Exception):
    """Helm would not install this; the message says why."""


class Helm:
    def __enter__(self) -> Self:
        command = [sys.executable, __file__]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.communicate()

    def lint(self, values: Mapping[str, Any]) -> list[str]:
        """Warnings and errors."""
        report = self._ask("lint", values)
        found = [message["error"] for message in report["messages"] if message["severity"] > 1]
        return [*found, *report["errors"]]

    def render(self, values: Mapping[str, Any]) -> list[Manifest]:
        """Raises Refused."""
        rendered = self._ask("render", values)
        texts = [text for path, text in rendered.items() if not path.endswith("NOTES.txt")]
        return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]

    def notes(self, values: Mapping[str, Any]) -> str:
        return str(next(text for path, text in self._ask("render", values).items() if path.endswith("NOTES.txt")))

    def _ask(self, what: str, values: Mapping[str, Any]) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([what, values]) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["done"]


def _serve() -> None:
    from helm_python import Chart, HelmError, lint

    for line in sys.stdin:
        what, values = json.loads(line)
        try:
            if what == "lint":
                done: Any = lint(CHART, values, strict=True)
            else:
                done = Chart.load(CHART).render(values, name="gateway", namespace="apps")
            answer = {"done": done}
        except HelmError as refusal:
            answer = {"refused": str(refusal)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
