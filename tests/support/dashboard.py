"""The dashboard as tests look at it: its panels and their expressions, with Grafana's variables filled in."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "deploy/grafana/dashboards/nexus-gateway.json"


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a panel."""

    section: str
    panel: str
    expression: str
    legend: str


def dashboard() -> dict[str, Any]:
    page: dict[str, Any] = json.loads(FILE.read_text())
    return page


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """All panels but the rows, each with the title of its section."""
    section = ""
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            section = panel["title"]
        else:
            yield section, panel


def asked(variables: Mapping[str, str]) -> list[Asked]:
    """All queries. `variables` are Grafana's, without the dollar."""
    found = []
    for section, panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(f"${name}", value)
            found.append(Asked(section, panel["title"], expression, target["legendFormat"]))
    return found
