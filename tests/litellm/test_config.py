"""litellm:// URLs where the library is installed; tests/config says what is refused."""

from pathlib import Path

import pytest

from nexus_gateway.config.effective import describe_upstream
from nexus_gateway.config.runtime import ProxySpec, UpstreamSpec
from nexus_gateway.config.settings import load
from tests.system.test_readme import configurations

ROOT = Path(__file__).parents[2]
SEED = "llama=http://localhost:8001;mock=mock://local;gpt-4o-mini=litellm://gpt-4o-mini"
ENVIRON = {"KEY": "sk-secret", "OWN_KEY": "sk-secret", "HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "local"}


def sound(url: str) -> UpstreamSpec:
    (spec,) = load({**ENVIRON, "GATEWAY_UPSTREAMS": f"a={url}"}).runtime.upstreams
    return spec


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("litellm://gpt-4o-mini", "gpt-4o-mini"),
        ("litellm://anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("LiteLLM://bedrock/anthropic.Claude-3-v2:0/", "bedrock/anthropic.Claude-3-v2:0"),
        ("litellm://vertex_ai/claude-3@20240229", "vertex_ai/claude-3@20240229"),
        ("litellm://openai/a%2Bb", "openai/a+b"),
        ("litellm://?model=gpt-4o", "gpt-4o"),
        ("litellm://", None),
    ],
)
def test_the_url_is_the_model(url: str, model: str | None) -> None:
    spec = sound(url)
    assert (spec.kind, spec.host, spec.model) == ("litellm", "", model)
    assert describe_upstream(spec) == f"a = litellm://{model or ''}"


def test_options() -> None:
    spec = sound(
        "litellm://openai/x?api_base=http://127.0.0.1:8001/v1/&api_key_env=KEY&forward_headers=X-Team&mask=off"
        "&max_concurrency=3&timeout_seconds=2"
    )
    assert (spec.model, spec.api_base, spec.api_key) == ("openai/x", "http://127.0.0.1:8001/v1", "sk-secret")
    assert spec.forward_headers == {"x-team"}
    assert (spec.mask, spec.max_concurrency, spec.timeout_s) == (False, 3, 2.0)
    assert not spec.is_checked
    assert "secret" not in describe_upstream(spec)
    assert "secret" not in repr(spec)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("litellm://gpt-4o", None),
        ("litellm://gpt-4o?proxy=env", ProxySpec("proxy", 3128)),
        ("litellm://openai/x?api_base=https://local/v1&proxy=env", None),
        ("litellm://openai/x?api_base=http://other/v1&proxy=env", None),
        ("litellm://gpt-4o?proxy=http://own:1", ProxySpec("own", 1)),
    ],
)
def test_a_proxy_is_one_that_was_asked_for(url: str, proxy: ProxySpec | None) -> None:
    assert sound(url).proxy == proxy


@pytest.mark.parametrize("page", ["README.md", "README.ko.md", "docs/configuration.md"])
def test_every_configuration_shown_is_accepted(page: str) -> None:
    shown = [
        configuration
        for configuration in configurations((ROOT / page).read_text())
        if "litellm://" in configuration.get("GATEWAY_UPSTREAMS", "")
    ]
    assert shown
    assert not any(load({**ENVIRON, **configuration}).warnings for configuration in shown)


def test_what_was_always_written_works() -> None:
    environ = {"GATEWAY_UPSTREAMS": SEED, "GATEWAY_FALLBACKS": "llama=gpt-4o-mini,mock"}
    kinds = [spec.kind for spec in load(environ).runtime.upstreams]
    assert kinds == ["http", "mock", "litellm"]
