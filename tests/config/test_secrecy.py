"""Whatever stands in the environment, loading returns or raises ConfigurationProblems, and no secret gets out."""

import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.config.effective import describe
from nexus_gateway.config.schema import NAMES, SECRETS, variable
from nexus_gateway.config.settings import ConfigurationProblems, load

from .samples import BAD, GOOD

CANARY = "kanarienvogel"  # stands in every secret, and nowhere else
FUZZ = settings(deadline=None, max_examples=150)

ANYTHING = st.text(st.characters(exclude_categories=()))  # lone surrogates are what bad bytes become
PIECES = [*'=;,:{}[]"/?&%@#-. \n', "a", "1", "mock", "mock://local", "http://", "nan"]
STRUCTURED = st.lists(st.sampled_from(PIECES)).map("".join)
VALUES = st.one_of(
    ANYTHING,
    STRUCTURED,
    st.sampled_from([value for values in BAD.values() for value in values]),
    st.sampled_from([value for environ in GOOD.values() for value in environ.values()]),
)
SECRET_VALUES = st.builds("".join, st.tuples(VALUES, st.just(CANARY), VALUES)) | st.builds(
    lambda key, rules: json.dumps({f"{CANARY}{key}": rules}), ANYTHING, ANYTHING
)
VARIABLES = st.sampled_from([*map(variable, NAMES), *(f"{variable(name)}_FILE" for name in SECRETS)])
OPEN = VARIABLES.filter(lambda name: name.removeprefix("GATEWAY_").lower() not in SECRETS)
CLOSED = st.sampled_from([*map(variable, sorted(SECRETS))])


def all_text(environ: dict[str, str]) -> str:
    """Everything that anybody may get to read of a configuration."""
    try:
        loaded = load(environ)
    except ConfigurationProblems as refusal:
        return f"{refusal}{refusal!r}{refusal.problems!r}{refusal.__cause__!r}{refusal.__context__!r}"
    return f"{loaded!r}{describe(loaded)}{loaded.warnings}{loaded.hidden}"


@given(environ=st.dictionaries(VARIABLES | ANYTHING.map(lambda text: f"GATEWAY_{text}"), VALUES, max_size=6))
@FUZZ
def test_any_environment_is_taken_or_refused(environ: dict[str, str]) -> None:
    text = all_text(environ)
    assert text.replace("\n", "").isprintable()


@given(secrets=st.dictionaries(CLOSED, SECRET_VALUES, min_size=1, max_size=4), rest=st.dictionaries(OPEN, VALUES))
@FUZZ
def test_no_secret_gets_out(secrets: dict[str, str], rest: dict[str, str]) -> None:
    assert CANARY not in all_text({**rest, **secrets})


@given(before=VALUES, after=VALUES, name=st.sampled_from(sorted(SECRETS)))
@FUZZ
def test_no_secret_gets_out_of_its_file(
    before: str, after: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "secret"
    path.write_bytes(f"{before}{CANARY}{after}".encode(errors="surrogateescape" if before.isascii() else "replace"))
    assert CANARY not in all_text({f"{variable(name)}_FILE": str(path)})
    assert CANARY not in all_text({f"{variable(name)}_FILE": f"/{CANARY}"})


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("config") / "gateway.yaml"


YAML_PIECES = [
    *("api_keys", "upstreams", "a", "1", ": ", "- ", "\n", "  ", *"[]{},'|?#~\t\x00é", '"'),
    *("&x ", "*x", "!!int ", "!t ", "<<", "---\n", "2026-01-01", "0x"),
]
YAML = st.lists(st.sampled_from(YAML_PIECES), max_size=30).map("".join)


@given(content=ANYTHING | YAML)
@FUZZ
def test_any_file_is_taken_or_refused(content: str, yaml_file: pathlib.Path) -> None:
    yaml_file.write_bytes(content.encode(errors="replace"))
    all_text({"GATEWAY_CONFIG_FILE": str(yaml_file)})


@pytest.mark.parametrize(
    "content",
    [
        f"api_keys: [{CANARY}, {CANARY}]",
        f"api_keys: {{{CANARY}: x}}",
        f"metrics_key: '{CANARY} {CANARY}'",
        f"metrics_key: !{CANARY} x",
        f"metrics_key: *{CANARY}",
        f"metrics_key: '{CANARY}",
        f"api_key_policies: {{{CANARY}: {{}}, {CANARY}: {{}}}}",
        f"api_key_policies:\n  {CANARY}-1:\n{CANARY}-2:\n",
        f"jwt_secret: [{CANARY}]",
        f"upstreams: {{a: 'http://user:{CANARY}@host'}}",
        f"upstreams: {{a: {{url: 'http://host', api_key: {CANARY}}}}}",
    ],
)
def test_no_secret_gets_out_of_a_bad_file(content: str, yaml_file: pathlib.Path) -> None:
    yaml_file.write_text(content)
    assert CANARY not in all_text({"GATEWAY_CONFIG_FILE": str(yaml_file)})
