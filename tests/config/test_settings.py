"""Loading as a whole: what holds by default, what is refused, and that nothing is refused one by one."""

import hashlib

import pytest
from hypothesis import given as for_all
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nexus_gateway.config.problems import Problem
from nexus_gateway.config.runtime import TIMEOUT_SETTINGS, Timeouts, UpstreamSpec
from nexus_gateway.config.schema import NAMES, SECRETS, Settings, variable
from nexus_gateway.config.settings import ConfigurationProblems, load

from .samples import BAD, BAD_CASES, GOOD, OFF, given


def problems_of(environ: dict[str, str]) -> tuple[Problem, ...]:
    """What is refused, besides what does not work yet."""
    with pytest.raises(ConfigurationProblems) as refusal:
        load(environ)
    return refusal.value.problems


def test_with_nothing_set_the_mock_answers_whoever_has_the_dev_key() -> None:
    loaded = load({})
    (upstream,) = loaded.runtime.upstreams
    assert (upstream.name, upstream.kind, upstream.host) == ("mock", "mock", "local")
    assert loaded.runtime.api_key_digests == (hashlib.sha256(b"dev-key").digest(),)
    assert loaded.runtime.accepts_dev_key
    assert loaded.runtime.requests_per_minute == 60
    assert loaded.runtime.timeouts == Timeouts()
    assert (loaded.runtime.max_body_bytes, loaded.runtime.max_answer_bytes) == (10 << 20, 128 << 20)
    assert not loaded.warnings
    assert not loaded.hidden


def test_the_tables_of_good_and_bad_values_cover_every_setting() -> None:
    assert set(GOOD) == set(BAD) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_good_value_is_taken(name: str) -> None:
    loaded = load(GOOD[name])
    assert not loaded.warnings
    assert loaded.places[name] == variable(name)


@pytest.mark.parametrize(("name", "value"), BAD_CASES)
def test_a_bad_value_is_refused_with_its_place_and_a_remedy(name: str, value: str) -> None:
    problems = problems_of(given(name, value))
    assert any(variable(name) in problem.place for problem in problems)
    for problem in problems:
        assert problem.what.endswith(".")
        assert problem.remedy
        assert str(problem).isprintable()


@pytest.mark.parametrize("name", OFF)
def test_every_word_for_off_is_understood(name: str) -> None:
    for word in OFF[name]:
        assert getattr(load(given(name, word)).settings, name) in (False, 0, "none", None, {}, ())


def test_defaults_are_what_the_settings_say() -> None:
    settings = load({}).settings
    assert settings == Settings()
    assert settings.pii_masking_enabled
    assert settings.audit_logging_enabled


def test_all_problems_are_told_at_once() -> None:
    environ = {
        variable(name): values[-1] for name, values in BAD.items() if name not in ("config_file", "jwt_public_key")
    }
    environ["GATEWAY_SHADOW_ENABLED"] = "maybe"
    environ["GATEWAY_API_KEY"] = "x"
    places = " ".join(problem.place for problem in problems_of(environ))
    for name in environ:
        assert name in places
    with pytest.raises(ConfigurationProblems, match=r"The configuration has \d+ problems:\n  - GATEWAY_"):
        load(environ)


def test_one_upstream_that_is_refused_is_one_problem_whoever_names_it() -> None:
    environ = {
        "GATEWAY_UPSTREAMS": "east=htp://localhost;west=mock://local",
        "GATEWAY_DEFAULT_UPSTREAM": "east",
        "GATEWAY_FALLBACKS": "west=east",
        "GATEWAY_SHADOW_TARGET": "east",
    }
    (problem,) = problems_of(environ)
    assert problem.place == "GATEWAY_UPSTREAMS.east"


@pytest.mark.parametrize("name", NAMES)
@for_all(data=st.data())
@hypothesis_settings(deadline=None, max_examples=15)
def test_a_slip_of_the_finger_in_a_name_is_refused_with_the_right_name(name: str, data: st.DataObject) -> None:
    word = variable(name)
    at = data.draw(st.integers(len("GATEWAY_"), len(word) - 1))
    letter = data.draw(st.sampled_from("ABCXYZ_"))
    slip = data.draw(
        st.sampled_from(
            [word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]]
        )
    )
    known = {variable(other) for other in NAMES} | {f"{variable(other)}_FILE" for other in SECRETS}
    if slip in known or slip.startswith(("GATEWAY_PORT", "GATEWAY_SERVICE")):
        return
    (problem,) = problems_of({slip: "x"})
    assert problem.place == slip
    assert problem.remedy == f"Did you mean {word}?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_API_KEY", "GATEWAY_API_KEYS"),
        ("GATEWAY_REQUEST_TIMEOUT", "GATEWAY_REQUEST_TIMEOUT_SECONDS"),
        ("GATEWAY_RATE_LIMIT", "GATEWAY_RATE_LIMIT_PER_MINUTE"),
        ("GATEWAY_LOGLEVEL", "GATEWAY_LOG_LEVEL"),
        ("gateway_api_keys", "GATEWAY_API_KEYS"),
        ("Gateway_Upstream", "GATEWAY_UPSTREAMS"),
        ("GATEWAY_UPSTREAMS_FILE", "GATEWAY_UPSTREAMS"),
        ("GATEWAY_API_KEYS_FILES", "GATEWAY_API_KEYS_FILE"),
    ],
)
def test_a_name_close_to_a_known_one_is_refused(name: str, meant: str) -> None:
    (problem,) = problems_of({name: "x"})
    assert problem.place == name
    assert meant in problem.remedy


def test_any_other_unknown_name_is_one_warning() -> None:
    loaded = load({"GATEWAY_COLOUR": "red", "GATEWAY_X": "1", "OTHER": "2"})
    assert [warning.place for warning in loaded.warnings] == ["GATEWAY_COLOUR", "GATEWAY_X"]


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_PORT",
        "GATEWAY_PORT_80_TCP",
        "GATEWAY_PORT_8000_TCP_ADDR",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_SERVICE_PORT",
    ],
)
def test_names_that_kubernetes_injects_are_ignored(name: str) -> None:
    loaded = load({name: "tcp://10.0.0.1:80"})
    assert not loaded.warnings
    assert loaded.runtime == load({}).runtime


def test_no_setting_bears_a_name_that_kubernetes_injects() -> None:
    assert not [name for name in NAMES if name == "port" or name.startswith(("port_", "service_"))]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BAD or "" not in BAD[name]])
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    loaded = load(given(name, " "))
    assert loaded.runtime == load({}).runtime
    assert name not in loaded.places


def test_the_dev_key_holds_only_while_nothing_else_lets_callers_in() -> None:
    assert not load({"GATEWAY_API_KEYS": "mine"}).runtime.accepts_dev_key
    assert load({"GATEWAY_API_KEYS": "mine,dev-key"}).runtime.accepts_dev_key
    assert load(GOOD["jwt_secret"]).runtime.api_key_digests == ()
    assert load({**GOOD["jwt_secret"], "GATEWAY_API_KEYS": ""}).runtime.api_key_digests == ()


def test_the_settings_that_errors_name_are_those_that_fill_the_timeouts() -> None:
    assert set(TIMEOUT_SETTINGS) == set(Timeouts.__dataclass_fields__)
    for field, name in TIMEOUT_SETTINGS.items():
        assert getattr(load({name: "3.5"}).runtime.timeouts, field) == 3.5


def test_no_secret_stands_in_the_text_of_a_configuration() -> None:
    environ = {
        "GATEWAY_API_KEYS": "canary-1",
        "GATEWAY_METRICS_KEY": "canary-2",
        "GATEWAY_UPSTREAMS": "a=https://host?api_key_env=KEY",
        "GATEWAY_API_KEY_POLICIES": '{"canary-1": {}}',
        "GATEWAY_REDIS_URL": "redis://:canary-3@host",
        "KEY": "canary-4",
    }
    loaded = load(environ)
    assert isinstance(loaded.runtime.upstreams[0], UpstreamSpec)
    assert loaded.runtime.upstreams[0].api_key == "canary-4"
    assert "canary" not in repr(loaded)
