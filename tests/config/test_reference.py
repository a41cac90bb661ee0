"""The documentation, the example and the settings say the same."""

from pathlib import Path

import pytest
import yaml

from nexus_gateway.config.reference import page
from nexus_gateway.config.schema import NAMES, PREFIX, Settings, variable
from nexus_gateway.config.settings import load
from nexus_gateway.config.upstream_options import OPTIONS

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_that_the_settings_make() -> None:
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == page(), "run: python -m nexus_gateway.config.reference > docs/configuration.md"


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_explained(name: str) -> None:
    assert f"| `{variable(name)}` | " in page()
    assert Settings.model_fields[name].description


def test_every_setting_is_passed_on_by_the_compose_file() -> None:
    passed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["gateway"]["environment"]
    assert {name for name in passed if name.startswith(PREFIX)} == {variable(name) for name in NAMES}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_an_upstream_is_explained(option: str) -> None:
    assert f"| `{option}` | " in page()


def test_the_example_runs_as_it_is_on_the_mock_upstream() -> None:
    loaded = load({"GATEWAY_CONFIG_FILE": str(ROOT / "config/gateway.example.yaml")})
    assert {upstream.kind for upstream in loaded.runtime.upstreams} == {"mock"}
    assert not loaded.warnings
    assert not loaded.hidden
