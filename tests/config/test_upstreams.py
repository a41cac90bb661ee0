"""GATEWAY_UPSTREAMS: every entry that is sound becomes one specification, every other one a problem."""

import pathlib
import tomllib
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.config.litellm import LITELLM_VERSION
from nexus_gateway.config.problems import Report
from nexus_gateway.config.runtime import MockSpec, UpstreamSpec
from nexus_gateway.config.upstream_options import OPTIONS
from nexus_gateway.config.upstreams import NAME, compile_upstreams

ROOT = pathlib.Path(__file__).parents[2]
NAMES = st.from_regex(NAME, fullmatch=True)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda host: ".." not in host)
QUICK = settings(deadline=None, max_examples=60)


def compile_text(text: object, environ: dict[str, str] | None = None) -> tuple[tuple[UpstreamSpec, ...], list[str]]:
    """The specifications, and the problems as text."""
    report = Report()
    upstreams = compile_upstreams(text, "GATEWAY_UPSTREAMS", environ or {}, report)
    return upstreams.specs, [str(problem) for problem in report.problems]


def sound(text: object, environ: dict[str, str] | None = None) -> UpstreamSpec:
    specs, problems = compile_text(text, environ)
    assert not problems
    (spec,) = specs
    return spec


def refusal(text: object, environ: dict[str, str] | None = None) -> str:
    """The only problem."""
    specs, problems = compile_text(text, environ)
    assert not specs
    (problem,) = problems
    return problem


@given(names=st.lists(NAMES, min_size=1, max_size=5, unique=True), host=HOSTS, port=st.integers(1, 65535))
@QUICK
def test_every_name_is_kept_whatever_its_signs(names: list[str], host: str, port: int) -> None:
    specs, problems = compile_text(";".join(f" {name} = http://{host}:{port} " for name in names) + ";")
    assert not problems
    assert [(spec.name, spec.host, spec.port, spec.base_path) for spec in specs] == [
        (name, host, port, "/v1") for name in names
    ]


@given(prefix=st.from_regex(r"(/[a-z]{1,8}){0,3}", fullmatch=True), slash=st.sampled_from(["", "/"]))
@QUICK
def test_a_base_url_means_the_same_with_and_without_its_version(prefix: str, slash: str) -> None:
    with_version = sound(f"a=http://host{prefix}/v1{slash}")
    assert with_version == sound(f"a=http://host{prefix}{slash}")
    assert with_version.base_path == f"{prefix}/v1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", ("http", "host", 80, "/v1")),
        ("HTTPS://Host", ("https", "host", 443, "/v1")),
        ("http://10.0.0.1:8001/", ("http", "10.0.0.1", 8001, "/v1")),
        ("http://[::1]:8001", ("http", "::1", 8001, "/v1")),
        ("http://host/v1beta/openai", ("http", "host", 80, "/v1beta/openai")),
        ("http://host/api/paas/v4", ("http", "host", 80, "/api/paas/v4")),
        ("http://my_service:80/v1?", ("http", "my_service", 80, "/v1")),
        ("grpc://host", ("grpc", "host", 50051, "")),
        ("grpcs://[::1]:8443/", ("grpcs", "::1", 8443, "")),
        ("mock://local", ("mock", "local", 0, "/v1")),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: tuple[str, str, int, str]) -> None:
    spec = sound(f"a={url}")
    assert (spec.kind, spec.host, spec.port, spec.base_path) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:8001", "no scheme"),
        ("htp://host", "htp:// is an unknown scheme. Known: http, https, grpc, grpcs, litellm, mock"),
        ("ht tp://host", "unknown scheme"),
        ("http://", "no valid host"),
        ("http://:80", "no valid host"),
        ("http://host:port", "no valid host"),
        ("http://host:0", "port is out of range"),
        ("http://host:65536", "port is out of range"),
        ("http://[::g]", "no valid host"),
        ("http://a..b", "no valid host"),
        ("http://-host", "no valid host"),
        ("http://host#model", "fragment"),
        ("http://ho st", "space"),
        ("http://host/ü", "outside ASCII"),
        ("http://host/\r\nX: y", "space"),
        ("http://host/a/../b", "dot segment"),
        ("http://host//v1", "empty or a dot segment"),
        ("http://host/v1/chat/completions", "ends in an operation"),
        ("http://host/v1/embeddings/", "ends in an operation"),
        ("http://host?modle=x", "Did you mean model?"),
        ("http://host?delay_ms=5", "no option of http:// upstreams"),
        ("http://host?ca_file=/x", "no option of http:// upstreams"),
        ("mock://local?api_key_env=KEY", "no option of mock:// upstreams"),
        ("grpc://host/v1", "has no path"),
        ("grpc://host?ca_file=/x", "no option of grpc:// upstreams"),
        ("grpcs://host?api_key_env=KEY", "no option of grpcs:// upstreams"),
        ("http://host?startup_seconds=0", "seconds above 0"),
        ("mock://local?startup_seconds=9", "no option of mock:// upstreams"),
        ("http://host?health_rpc=off", "no option of http:// upstreams"),
        ("http://host?model=a&model=b", "'model' stands twice"),
        ("http://host?model=", "empty"),
        ("http://host?model", "empty"),
    ],
)
def test_a_bad_url_is_refused(url: str, why: str) -> None:
    assert why in refusal(f"a={url}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("litellm://gpt-4o-mini", ""),
        ("litellm://", ""),
        ("litellm://a/b?model=c", "'model' stands twice"),
        ("litellm:///a", "not the name of a model"),
        ("litellm://huggingface/https://host", "not the name of a model"),
        ("litellm://a%20b", "not the name of a model"),
        ("litellm://a#b", "fragment"),
        ("litellm://a?api_base=ftp://host", "not the address of an API"),
        ("litellm://a?api_base=host:80", "not the address of an API"),
        ("litellm://a?api_base=http://host:x", "not the address of an API"),
        ("litellm://a?api_base=http://user:secret@host", "holds a user or a password"),
        ("litellm://a?api_key_env=sk-secret", "not the name of a variable"),
        ("litellm://a?api_key_env=UNSET", "is not set"),
        ("litellm://a?health=/health", "no option of litellm:// upstreams"),
        ("http://host?api_base=http://other", "no option of http:// upstreams"),
        ("mock://local?mock_response=x", "no option of mock:// upstreams"),
    ],
)
def test_without_the_library_that_is_told_with_whatever_else_is_wrong(url: str, why: str) -> None:
    _, problems = compile_text(f"a={url}")
    remedy = "pip install 'nexus-gateway[litellm]' (a container: build it with --build-arg NEXUS_EXTRAS=litellm)"
    assert any("LiteLLM is not installed" in problem and remedy in problem for problem in problems) is (
        url.startswith("litellm")
    )
    assert any(why in problem for problem in problems)
    assert not any("secret" in problem for problem in problems)


def test_the_release_that_is_looked_for_is_the_one_that_the_extra_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [need for need in project["optional-dependencies"]["litellm"] if need.startswith("litellm")]
    assert pin == f"litellm=={LITELLM_VERSION},!=1.82.7,!=1.82.8,!=1.107.*"
    assert not any(need.startswith("litellm") for need in project["dependencies"])
    locked = {name: (ROOT / f"requirements/{name}.txt").read_text() for name in ("runtime", "litellm")}
    assert f"\nlitellm=={LITELLM_VERSION} \\\n    --hash=sha256:" in locked["litellm"]
    assert "litellm" not in locked["runtime"]


@pytest.mark.parametrize(
    ("url", "is_checked"),
    [
        ("http://host", False),
        ("http://host?health=/health", True),
        ("grpc://host", True),
        ("grpcs://host?health_rpc=off", False),
        ("mock://local", False),
    ],
)
def test_a_worker_is_asked_how_it_is_unless_told_otherwise(url: str, is_checked: bool) -> None:
    assert sound(f"a={url}").is_checked is is_checked


def test_an_entry_is_split_at_its_first_equals_sign() -> None:
    assert sound("a=http://host?model=x=y").model == "x=y"


def test_options_are_read_and_never_part_of_the_path() -> None:
    query = (
        "model=meta-llama/Meta-Llama-3-8B-Instruct&api_key_env=KEY&timeout_seconds=0.25&max_concurrency=8"
        "&forward_headers=X-Tenant,%20traceparent&stream_usage=off"
        "&health=/health&startup_seconds=900"
    )
    assert sound(f"a=https://host/v1?{query}", {"KEY": " sk-1 "}) == UpstreamSpec(
        name="a",
        kind="https",
        host="host",
        port=443,
        base_path="/v1",
        model="meta-llama/Meta-Llama-3-8B-Instruct",
        api_key="sk-1",
        timeout_s=0.25,
        max_concurrency=8,
        forward_headers=frozenset({"x-tenant", "traceparent"}),
        stream_usage=False,
        health_path="/health",
        startup_s=900.0,
    )


def test_options_of_the_mock() -> None:
    query = (
        "delay_ms=1.5&chunk_delay_ms=20&tokens=3&status=429&error_rate=0.5&seed=7&fail_after=2"
        "&model=m&max_concurrency=2&timeout_seconds=1&stream_usage=off"
    )
    spec = sound(f"a=mock://local?{query}")
    assert spec.mock == MockSpec(0.0015, 0.02, 3, 429, 0.5, 7, 2)
    assert (spec.model, spec.max_concurrency, spec.timeout_s, spec.stream_usage) == ("m", 2, 1.0, False)


@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
@QUICK
def test_a_percent_encoded_value_comes_out_as_it_was(text: str) -> None:
    encoded = "".join(f"%{ord(letter):02X}" for letter in text)
    assert sound(f"a=http://host?model={encoded}").model == text
    assert sound("a=http://host?model=a+b").model == "a+b"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("timeout_seconds", value) for value in ("0", "-1", "nan", "inf", "soon")),
        *(("max_concurrency", value) for value in ("0", "-1", "1.5", "many")),
        ("stream_usage", "perhaps"),
        *(("delay_ms", value) for value in ("-1", "nan", "inf")),
        ("chunk_delay_ms", "-1"),
        ("tokens", "-1"),
        *(("status", value) for value in ("199", "600", "OK")),
        *(("error_rate", value) for value in ("-0.1", "1.1", "nan")),
        ("seed", "x"),
        ("fail_after", "-1"),
        ("model", "%0A"),
        *(("api_key_env", value) for value in ("UNSET", "EMPTY", "BROKEN", "sk-1", "GATEWAY_API_KEYS")),
        *(
            ("forward_headers", value)
            for value in ("authorization", "Cookie", "X-API-Key", "api-key", "proxy-anything")
        ),
        *(("forward_headers", value) for value in ("connection", "HOST", "content-length", "te", "a%20b", "x:y")),
        *(("ca_file", value) for value in ("/does/not/exist", "/", "/dev/null", "pyproject.toml")),
        *(("cert_file", value) for value in ("/does/not/exist", "/", "/dev/null", "pyproject.toml")),
        *(("key_file", value) for value in ("/does/not/exist", "/", "/dev/null")),
        *(("proxy", value) for value in ("socks5://host:1080", "https://host:3128", "http://", "http://a..b", "a%20b")),
        *(("proxy", value) for value in ("http://host:0", "http://host/path", "http://[::g]:1", "http://a:b@host")),
    ],
)
def test_a_bad_option_is_refused_in_its_place(option: str, value: str) -> None:
    kind = "mock" if OPTIONS[option].kinds == ("mock",) else "https"
    environ = {"EMPTY": " ", "BROKEN": "a\nb", "GATEWAY_API_KEYS": "x"}
    problem = refusal(f"a={kind}://host?{option}={value}", environ)
    assert problem.startswith(f"GATEWAY_UPSTREAMS.a.{option}: ")


def test_a_ca_file_is_read_once_at_start(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    assert sound(f"a=https://host?ca_file={path}").ca_file == str(path)


class TestCertificates:
    @pytest.fixture
    def files(self, tmp_path: pathlib.Path) -> dict[str, str]:
        """Paths of a certificate, its key, both in one, the key of another, and the key with a password."""
        authority = trustme.CA()
        own, other = (authority.issue_cert("gateway.internal") for _ in range(2))
        key = serialization.load_pem_private_key(own.private_key_pem.bytes(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        contents = {
            "cert": own.cert_chain_pems[0].bytes(),
            "key": own.private_key_pem.bytes(),
            "both": own.private_key_and_cert_chain_pem.bytes(),
            "other": other.private_key_pem.bytes(),
            "locked": locked,
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        return {name: str(tmp_path / name) for name in contents}

    @pytest.mark.parametrize("kind", ["https", "grpcs"])
    def test_one_that_fits_its_key_is_taken(self, kind: str, files: dict[str, str]) -> None:
        apart = sound(f"a={kind}://host?cert_file={files['cert']}&key_file={files['key']}")
        assert (apart.cert_file, apart.key_file) == (files["cert"], files["key"])
        together = sound(f"a={kind}://host?cert_file={files['both']}")
        assert (together.cert_file, together.key_file) == (files["both"], None)

    @pytest.mark.parametrize(
        "query",
        [
            "cert_file={cert}",
            "cert_file={cert}&key_file={other}",
            "cert_file={cert}&key_file={locked}",
            "cert_file={key}&key_file={cert}",
            "cert_file={key}",
            "key_file={key}",
        ],
    )
    def test_one_that_does_not_is_found_at_start(self, query: str, files: dict[str, str]) -> None:
        assert refusal(f"a=https://host?{query.format(**files)}").startswith("GATEWAY_UPSTREAMS.a.cert_file: ")

    def test_a_bad_file_is_one_problem(self, files: dict[str, str]) -> None:
        assert "key_file: " in refusal(f"a=https://host?cert_file={files['cert']}&key_file=/nowhere")
        assert "cert_file: " in refusal(f"a=https://host?cert_file=/nowhere&key_file={files['key']}")


@pytest.mark.parametrize(
    "entry",
    [
        "a=http://host?proxy=http://user:canary@proxy",
        "a=http://user:canary@host",
        "a=http://canary@host/v1",
        "a=http://user:1/canary@host",
        "http://user:canary@host",
        "http://user:canary@host/path?model=x",
        "http://user:canary@host/path=x",
        "a=https://host?api_key=canary",
        "a=https://host?api_key_env=canary",
        "a=https://host?api_key_env=CANARY",
        "a=https://host?canary-1",
        "a=http://host:canary",
        "a=canary",
    ],
)
def test_what_may_be_a_secret_is_refused_and_not_repeated(entry: str) -> None:
    specs, problems = compile_text(entry)
    assert not specs
    assert problems
    assert "canary" not in " ".join(problems).lower()


MAPPINGS: list[tuple[dict[str, Any], str]] = [
    ({"a": "http://host:8001"}, "a=http://host:8001"),
    ({"a": {"url": "mock://local"}}, "a=mock://local"),
    (
        {
            "a": {
                "url": "http://host",
                "model": "m",
                "timeout_seconds": 0.5,
                "max_concurrency": 4,
                "stream_usage": False,
            }
        },
        "a=http://host?model=m&timeout_seconds=0.5&max_concurrency=4&stream_usage=off",
    ),
    (
        {"a": {"url": "http://host?model=m", "forward_headers": ["x-one", "x-two"]}},
        "a=http://host?model=m&forward_headers=x-one,x-two",
    ),
    (
        {"a": {"url": "mock://local", "delay_ms": 5, "error_rate": 0.25, "seed": 3}},
        "a=mock://local?delay_ms=5&error_rate=0.25&seed=3",
    ),
]


@pytest.mark.parametrize(("mapping", "text"), MAPPINGS)
def test_a_mapping_means_what_the_text_means(mapping: dict[str, Any], text: str) -> None:
    assert sound(mapping) == sound(text)


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        [],
        5,
        {"a": None},
        {"a": 5},
        {"a": {}},
        {"a": {"model": "m"}},
        {"a": {"url": 5}},
        {4: "mock://local"},
        {"a": {"url": "http://host?model=m", "model": "m"}},
        {"a": {"url": "http://host", "model": 5}},
        {"a": {"url": "http://host", "timeout_seconds": True}},
        {"a": {"url": "http://host", "forward_headers": ["a,b"]}},
        {"a": {"url": "http://host", 5: "x"}},
    ],
)
def test_a_bad_mapping_is_refused(mapping: object) -> None:
    assert refusal(mapping)


def test_two_names_that_are_the_same_are_refused() -> None:
    specs, problems = compile_text("a=mock://one;a=mock://two")
    assert [spec.host for spec in specs] == ["one"]
    assert len(problems) == 1
