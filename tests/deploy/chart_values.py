"""The table of the chart's values, from their schema and their defaults.

For:      deploy/helm/nexus-gateway/README.md; `python -m tests.deploy.chart_values` writes it anew.
Touches:  that file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "deploy/helm/nexus-gateway"
PAGE: Final = CHART / "README.md"
_TABLE: Final = re.compile(r"(?<=<!-- values -->\n).*?(?=<!-- end of values -->)", re.DOTALL)


def leaves(schema: Any, defaults: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Path, default and description of every value that may be set. Raises KeyError where a default is missing."""
    for name, part in schema["properties"].items():
        if path == "" and name == "global":  # Helm's own
            continue
        if "properties" in part:
            yield from leaves(part, defaults[name], f"{path}{name}.")
        else:
            yield f"{path}{name}", defaults[name], part["description"]


def table() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [f"| `{path}` | `{json.dumps(default)}` | {says} |" for path, default, says in leaves(schema, defaults)]
    return "\n".join(["", "| value | default | meaning |", "|---|---|---|", *rows, "", ""])


def page() -> str:
    """The whole page, with the table as it should be."""
    return _TABLE.sub(lambda _: table(), PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
