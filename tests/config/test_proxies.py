"""`proxy=`: what is named holds, the usual variables count only where they are asked for, and passwords stay unsaid."""

import pytest

from nexus_gateway.config.effective import describe_upstream
from nexus_gateway.config.runtime import ProxySpec, UpstreamSpec

from .test_upstreams import compile_text, refusal, sound

FROM_ENV = ProxySpec("env.proxy", 3128)


def found(url: str, **environ: str) -> ProxySpec | None:
    """The proxy of an upstream that asks for the variables'."""
    return sound(f"a={url}?proxy=env", environ).proxy


@pytest.mark.parametrize("kind", ["http", "https", "grpc", "grpcs"])
def test_variables_are_ignored_unless_asked_for(kind: str) -> None:
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    environ = dict.fromkeys((*names, *map(str.upper, names)), "http://env.proxy:3128")
    assert sound(f"a={kind}://host", environ).proxy is None
    assert found(f"{kind}://host", **environ) == FROM_ENV
    assert sound(f"a={kind}://host?proxy=http://named:1", {**environ, "no_proxy": "*"}).proxy == ProxySpec("named", 1)
    assert found(f"{kind}://host") is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://proxy:3128", ProxySpec("proxy", 3128)),
        ("http://Proxy.internal:3128/", ProxySpec("proxy.internal", 3128)),
        ("proxy:3128", ProxySpec("proxy", 3128)),
        ("http://proxy", ProxySpec("proxy", 80)),
        ("http://[::1]:3128", ProxySpec("::1", 3128)),
        ("http://10.0.0.1:3128", ProxySpec("10.0.0.1", 3128)),
    ],
)
def test_a_proxy_is_taken_apart(given: str, expected: ProxySpec) -> None:
    assert sound(f"a=http://host?proxy={given}").proxy == expected
    assert found("http://host", HTTP_PROXY=given) == expected


@pytest.mark.parametrize(
    ("kind", "first", "then"),
    [
        ("http", "http_proxy", "all_proxy"),
        ("https", "https_proxy", "all_proxy"),
        ("grpc", "grpc_proxy", "https_proxy"),
        ("grpcs", "https_proxy", "http_proxy"),
    ],
)
def test_the_variable_of_its_own_kind_counts_first(kind: str, first: str, then: str) -> None:
    assert found(f"{kind}://host", **{first: "env.proxy:3128", then: "other:1"}) == FROM_ENV
    assert found(f"{kind}://host", **{first: "", then: "env.proxy:3128"}) == FROM_ENV
    assert found(f"{kind}://host", **{first.upper(): "other:1", first: "env.proxy:3128"}) == FROM_ENV


@pytest.mark.parametrize(
    ("host", "exceptions", "is_excepted"),
    [
        ("model.internal", "internal", True),
        ("model.internal", ".internal", True),
        ("model.internal", "*.internal", True),
        ("model.internal", "MODEL.Internal", True),
        ("model.internal", "other, model.internal:8001", True),
        ("model.internal", "model.internal:8002", False),
        ("model.internal", "ternal", False),
        ("model.internal", "a.model.internal", False),
        ("model.internal", "*", True),
        ("model.internal", "", False),
        ("model.internal", " , .", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:8001", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("10.1.2.3", "2.3", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "[fd00::1]:8001", True),
    ],
)
def test_exceptions_of_the_variables(host: str, exceptions: str, is_excepted: bool) -> None:
    environ = {"HTTP_PROXY": "env.proxy:3128", "NO_PROXY": exceptions}
    assert found(f"http://{host}:8001", **environ) == (None if is_excepted else FROM_ENV)


def test_a_password_comes_from_a_variable_alone_and_is_never_said() -> None:
    spec = sound("a=https://host?proxy=env", {"HTTPS_PROXY": "http://user:kanarien%20vogel@proxy:3128"})
    assert spec.proxy == ProxySpec("proxy", 3128, "Basic dXNlcjprYW5hcmllbiB2b2dlbA==")
    assert "proxy=proxy:3128" in describe_upstream(spec)
    for said in (describe_upstream(spec), repr(spec)):
        assert "anarien" not in said
        assert "dXNl" not in said


@pytest.mark.parametrize(
    "given", ["socks5://kanarienvogel:1", "https://u:kanarienvogel@host:3128", "http://u:kanarienvogel@"]
)
def test_a_bad_variable_is_found_at_start_and_not_repeated(given: str) -> None:
    problem = refusal("a=https://host?proxy=env", {"https_proxy": given})
    assert problem.startswith("GATEWAY_UPSTREAMS.a.proxy: HTTPS_PROXY: ")
    assert "kanarienvogel" not in problem


def test_only_kinds_with_a_network_have_one() -> None:
    specs, problems = compile_text("a=mock://local?proxy=env")
    assert (specs, len(problems)) == ((), 1)


def test_what_check_prints_of_an_upstream() -> None:
    spec = UpstreamSpec("a", "https", "host", 443, "/v1", cert_file="/c", key_file="/k", health_path="/h", mask=False)
    assert describe_upstream(spec) == "a = https://host:443/v1  cert_file=/c  key_file=/k  health=/h  mask=off"
