"""`nexus-gateway check`: what holds, or all that is wrong, and an exit status that scripts can trust."""

import os
import pathlib

import pytest
from click.testing import CliRunner, Result

from nexus_gateway import __version__
from nexus_gateway.cli import main
from nexus_gateway.config.schema import NAMES, variable


def run(*arguments: str, **variables: str) -> Result:
    """Runs the command in an environment without other settings."""
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("GATEWAY_")}
    return CliRunner().invoke(main, arguments, env={**clean, **variables})


def test_a_good_configuration_is_printed_setting_by_setting() -> None:
    result = run("check", GATEWAY_RATE_LIMIT_PER_MINUTE="unlimited", GATEWAY_LOG_LEVEL="debug")
    assert result.exit_code == 0
    assert not result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    for name in NAMES:
        assert variable(name) in lines
    assert lines["GATEWAY_RATE_LIMIT_PER_MINUTE"].split() == [
        "GATEWAY_RATE_LIMIT_PER_MINUTE",
        "unlimited",
        "environment",
    ]
    assert lines["GATEWAY_API_KEYS"].split() == ["GATEWAY_API_KEYS", "dev-key", "default"]


def test_secrets_are_hidden_and_upstreams_shown_as_they_are_used() -> None:
    result = run(
        "check",
        GATEWAY_API_KEYS="canary-1,canary-2",
        GATEWAY_METRICS_KEY="canary-3",
        GATEWAY_UPSTREAMS="llama=http://[::1]:8001/?model=m&api_key_env=KEY&stream_usage=off;mock=mock://local?seed=3",
        KEY="canary-4",
    )
    assert result.exit_code == 0
    assert "canary" not in result.output
    assert "2 keys (hidden)" in result.stdout
    assert "llama = http://[::1]:8001/v1  model=m  key=(hidden)  stream_usage=off" in result.stdout
    assert "mock = mock://local  seed=3" in result.stdout


def test_routing_is_shown_as_it_holds() -> None:
    policies = (
        '{"chat": {"strategy": "canary", "primary": "a", "canary": "b", "percent": 5, "sticky": "header:X-Team"},'
        ' "big": {"strategy": "weighted", "targets": [{"name": "a", "weight": 2.5}, {"name": "b", "weight": 1}],'
        ' "timeout_seconds": 3, "first_token_timeout_seconds": 0.5, "max_attempts": 2, "fallbacks": ["c"]},'
        ' "near": {"strategy": "failover", "targets": [{"name": "a"}, {"name": "b"}], "fallbacks": []}}'
    )
    upstreams = "a=mock://local;b=mock://local;c=mock://local"
    result = run(
        "check", GATEWAY_UPSTREAMS=upstreams, GATEWAY_ROUTE_POLICIES=policies, GATEWAY_FALLBACKS="a=b,c;chat=c"
    )
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "GATEWAY_FALLBACKS a=b,c;chat=c environment" in lines
    at = lines.index("GATEWAY_ROUTE_POLICIES 3 policies environment")
    assert lines[at + 1 : at + 4] == [
        "chat = canary a:95,b:5 sticky=header:x-team",
        "big = weighted a:2.5,b:1 timeout_seconds=3 first_token_timeout_seconds=0.5 max_attempts=2 fallbacks=c",
        "near = failover a,b fallbacks=",
    ]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_extra_that_is_missing_is_a_problem_like_any_other(command: str) -> None:
    result = run(command, GATEWAY_UPSTREAMS="a=litellm://gpt-4o-mini", GATEWAY_LOG_LEVEL="loud")
    assert result.exit_code == 2
    assert "2 problems" in result.stderr
    assert "GATEWAY_UPSTREAMS.a: LiteLLM is not installed. Run: pip install 'nexus-gateway[litellm]'" in result.stderr


def test_a_bad_configuration_exits_with_2_and_every_problem() -> None:
    result = run("check", GATEWAY_LOG_LEVEL="loud", GATEWAY_UPSTREAMS="a=htp://x", GATEWAY_API_KEY="x")
    assert result.exit_code == 2
    assert not result.stdout
    for place in ("GATEWAY_LOG_LEVEL", "GATEWAY_UPSTREAMS.a", "GATEWAY_API_KEY"):
        assert f"  - {place}: " in result.stderr


@pytest.mark.parametrize(("arguments", "status"), [(("check",), 0), (("check", "--strict"), 2)])
def test_strict_refuses_a_warning(arguments: tuple[str, ...], status: int) -> None:
    result = run(*arguments, GATEWAY_COLOUR="red")
    assert result.exit_code == status
    assert "GATEWAY_COLOUR" in result.stderr
    assert bool(result.stdout) is (status == 0)


def test_what_the_environment_hides_is_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("log_level: error\nmax_body_bytes: 5")
    result = run("check", GATEWAY_CONFIG_FILE=str(path), GATEWAY_LOG_LEVEL="debug")
    assert f"note: GATEWAY_LOG_LEVEL hides {path}: log_level" in result.stdout
    assert f"{path}: max_body_bytes" in result.stdout


def test_the_version() -> None:
    assert run("--version").stdout == f"nexus-gateway, version {__version__}\n"
