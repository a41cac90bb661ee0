"""The YAML file and secrets from files: the same settings, the same checks, and the environment wins."""

import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.config.problems import Problem
from nexus_gateway.config.schema import NAMES, SECRETS, variable
from nexus_gateway.config.settings import ConfigurationProblems, Loaded, load

from .samples import GOOD


@pytest.fixture(scope="module")
def folder() -> Iterator[pathlib.Path]:
    """A short name, for a problem repeats only so much of one."""
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


def load_file(folder: pathlib.Path, content: str, **variables: str) -> Loaded:
    path = folder / "gateway.yaml"
    path.write_text(content)
    return load({"GATEWAY_CONFIG_FILE": str(path), **variables})


def problems_of(folder: pathlib.Path, content: str, **variables: str) -> list[Problem]:
    with pytest.raises(ConfigurationProblems) as refusal:
        load_file(folder, content, **variables)
    return list(refusal.value.problems)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "config_file"])
def test_text_means_the_same_in_the_file_and_in_the_environment(name: str, folder: pathlib.Path) -> None:
    content = yaml.safe_dump({key.removeprefix("GATEWAY_").lower(): value for key, value in GOOD[name].items()})
    by_file, by_environment = load_file(folder, content), load(GOOD[name])
    assert by_file.runtime == by_environment.runtime
    assert by_file.settings == by_environment.settings.model_copy(update={"config_file": str(folder / "gateway.yaml")})
    assert by_file.places[name] == f"{folder / 'gateway.yaml'}: {name}"


SECONDS = st.floats(0.001, 3600) | st.integers(1, 3600)
UPSTREAM = st.fixed_dictionaries(
    {"url": st.sampled_from(["http://host:8001", "https://host/v1", "mock://local", "http://[::1]/prefix"])},
    optional={
        "model": st.sampled_from(["m", "meta-llama/Llama", "모델"]),
        "timeout_seconds": SECONDS,
        "max_concurrency": st.integers(1, 1000),
        "stream_usage": st.booleans(),
    },
)
UPSTREAM_NAMES = st.sampled_from(["a", "b", "org/model:7b", "x@y"])


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Settings as a file would structure them."""
    upstreams = draw(st.dictionaries(UPSTREAM_NAMES, UPSTREAM, min_size=1))
    name = st.sampled_from(list(upstreams))
    weights = st.dictionaries(name, st.integers(1, 100), min_size=1)
    found: dict[str, Any] = {"upstreams": upstreams}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "default_upstream": name,
        "rate_limit_per_minute": st.integers(1, 10_000) | st.just("unlimited"),
        "request_timeout_seconds": SECONDS,
        "stream_max_seconds": SECONDS | st.just("off") | st.just(False),
        "shadow_percent": st.floats(0, 100),
        "api_keys": st.lists(st.sampled_from(["k1", "k2", "k3"]), min_size=1, unique=True),
        "max_body_bytes": st.integers(1, 1 << 40),
        "log_level": st.sampled_from(["info", "error"]),
        "fallbacks": st.just({a: [b for b in upstreams if b != a] for a in upstreams if len(upstreams) > 1}),
        "route_policies": weights.map(
            lambda found: {
                "route": {"strategy": "weighted", "targets": [{"name": n, "weight": w} for n, w in found.items()]}
            }
        ),
    }
    for key, strategy in optional.items():
        if draw(st.booleans()):
            found[key] = draw(strategy)
    return found


def as_variables(configuration: dict[str, Any]) -> dict[str, str]:
    """The same settings as an operator would write them into the environment."""
    written = {}
    for name, value in configuration.items():
        if name == "upstreams":
            value = ";".join(f"{key}={as_url(options)}" for key, options in value.items())
        elif name == "fallbacks":
            value = ";".join(f"{key}={','.join(others)}" for key, others in value.items())
        elif name == "route_policies":
            value = json.dumps(value)
        elif isinstance(value, list):
            value = ",".join(value)
        elif value is False:
            value = "off"
        written[variable(name)] = str(value)
    return written


def as_url(options: dict[str, Any]) -> str:
    query = "&".join(
        f"{key}={'on' if value is True else 'off' if value is False else value}"
        for key, value in options.items()
        if key != "url"
    ).replace("모델", "%EB%AA%A8%EB%8D%B8")
    return f"{options['url']}?{query}" if query else str(options["url"])


@given(configuration=configurations())
@settings(deadline=None, max_examples=60)
def test_a_structured_file_compiles_to_what_the_environment_compiles_to(
    folder: pathlib.Path, configuration: dict[str, Any]
) -> None:
    content = yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False)
    assert load_file(folder, content).runtime == load(as_variables(configuration)).runtime


def test_the_environment_wins_and_what_it_hides_is_told(folder: pathlib.Path) -> None:
    loaded = load_file(folder, "log_level: error\nrate_limit_per_minute: 5", GATEWAY_LOG_LEVEL="debug")
    assert loaded.runtime.log_level == "debug"
    assert loaded.runtime.requests_per_minute == 5
    assert loaded.hidden == (f"GATEWAY_LOG_LEVEL hides {folder / 'gateway.yaml'}: log_level",)


def test_an_empty_variable_hides_nothing(folder: pathlib.Path) -> None:
    assert load_file(folder, "log_level: error", GATEWAY_LOG_LEVEL="").runtime.log_level == "error"


@pytest.mark.parametrize("content", ["", "# nothing", "---", "log_level:", "log_level: ''", "~"])
def test_nothing_in_the_file_is_nothing_set(content: str, folder: pathlib.Path) -> None:
    assert load_file(folder, content).runtime == load({}).runtime


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("log_level: info\nlog_level: debug", "line 2 stood in line 1"),
        ("upstreams: {a: mock://l, a: mock://m}", "line 1 stood in line 1"),
        ("upstreams:\n  a: {url: mock://l}\n  b:\n    url: mock://l\n    url: mock://m", "line 5 stood in line 4"),
        ("- log_level", "not a mapping"),
        ("text", "not a mapping"),
        ("a: [", "broken at line"),
        ("a: 'x", "broken at line"),
        ("log_level: *missing", "broken at line"),
        ("log_level: !!python/object:os.system x", "date or a tag"),
        ("log_level: !secret x", "date or a tag"),
        ("rate_limit_per_minute: !!int abc", "does not fit"),
        ("log_level: 2026-11-24", "date or a tag"),
        ("? [a, b]\n: c", "key that is not text"),
        ("upstreams: &ring\n  a: *ring", "nested too deeply"),
        (f"upstreams: {'[' * 200}{']' * 200}", "nested too deeply"),
        ("max_body_bytes: 0b_", "cannot be read"),
        ("\x01", "cannot be read"),
        ("colour: red", "'colour' is not a setting"),
        ("log_levle: debug", "Did you mean log_level?"),
        ("GATEWAY_LOG_LEVEL: debug", "Did you mean log_level?"),
        ("config_file: other.yaml", "'config_file' is not a setting"),
        ("5: debug", "A name is not a setting"),
        ("sk-misplaced-1: {}", "A name is not a setting"),
        ("default_upstream: 4", "not text"),
        ("api_keys: [12345678]", "not text"),
        ("rate_limit_per_minute: true", "not a whole number"),
        ("rate_limit_per_minute: 1.5", "not a whole number"),
        ("request_timeout_seconds: .inf", "not finite"),
        ("request_timeout_seconds: [1]", "A list is not a number"),
        ("log_level: 10", "not text"),
        ("route_policies: []", "not an object"),
        ("route_policies: {5: {}}", "not text"),
        ("fallbacks: 5", "neither text nor a mapping"),
        ("upstreams:", "neither text nor a mapping"),
        ("api_keys:", "no value"),
    ],
)
def test_a_bad_file_is_refused(content: str, why: str, folder: pathlib.Path) -> None:
    problems = problems_of(folder, content)
    assert any(why in str(problem) for problem in problems)
    assert all("gateway.yaml" in problem.place for problem in problems)


def test_anchors_and_merges_are_fine(folder: pathlib.Path) -> None:
    content = """
    upstreams:
      a: &defaults {url: "mock://local", delay_ms: 5, tokens: 3}
      b: {<<: *defaults, delay_ms: 7}
    """
    a, b = load_file(folder, content).runtime.upstreams
    assert a.mock is not None
    assert b.mock is not None
    assert (a.mock.delay_s, b.mock.delay_s, b.mock.tokens) == (0.005, 0.007, 3)


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_stand_in_a_file_of_its_own(name: str, end: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "secret"
    environ = dict(GOOD[name])
    path.write_text(environ.pop(variable(name)) + end)
    by_file = load({**environ, f"{variable(name)}_FILE": str(path)})
    assert by_file.runtime == load(GOOD[name]).runtime
    assert by_file.places[name] == f"{variable(name)}_FILE"


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_given_twice_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "secret"
    path.write_text(GOOD[name][variable(name)])
    with pytest.raises(ConfigurationProblems) as refusal:
        load({**GOOD[name], f"{variable(name)}_FILE": str(path)})
    (problem,) = refusal.value.problems
    assert problem.place == f"{variable(name)}_FILE"


def test_the_file_may_name_files_of_secrets(folder: pathlib.Path) -> None:
    (folder / "keys").write_text("one,two\n")
    content = f"api_keys_file: {folder / 'keys'}"
    assert len(load_file(folder, content).runtime.api_key_digests) == 2
    assert len(load_file(folder, content, GATEWAY_API_KEYS="x").runtime.api_key_digests) == 1
    (problem,) = problems_of(folder, f"{content}\napi_keys: x")
    assert problem.place.endswith("gateway.yaml: api_keys_file")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * (1 << 20) + b"y"])
def test_a_file_without_a_secret_is_refused(content: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigurationProblems) as refusal:
        load({"GATEWAY_METRICS_KEY_FILE": str(path)})
    (problem,) = refusal.value.problems
    assert problem.place == "GATEWAY_METRICS_KEY_FILE"


def test_a_path_that_leads_nowhere_is_not_repeated(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("canary-key", "/canary/key", "canary\x00", "canary" * 1000, str(tmp_path / "pipe"), "/"):
        with pytest.raises(ConfigurationProblems) as refusal:
            load({"GATEWAY_API_KEYS_FILE": path})
        (problem,) = refusal.value.problems
        assert "canary" not in str(problem)


def test_an_unreadable_list_of_keys_is_one_problem() -> None:
    environ = {"GATEWAY_API_KEYS_FILE": "/does/not/exist", "GATEWAY_API_KEY_POLICIES": '{"one": {}}'}
    with pytest.raises(ConfigurationProblems) as refusal:
        load(environ)
    assert len(refusal.value.problems) == 1
