"""Where records go, and keys that are none."""

from base64 import b64encode

import pytest

from nexus_gateway.config.runtime import AuditSpec
from nexus_gateway.config.settings import ConfigurationProblems, load

SEED = bytes(range(32))


def test_by_default_every_request_is_recorded_on_stdout_and_losses_are_only_counted() -> None:
    assert load({}).runtime.audit == AuditSpec()


def test_switched_off_there_is_none() -> None:
    assert load({"GATEWAY_AUDIT_LOGGING_ENABLED": "off", "GATEWAY_AUDIT_FILE": "x"}).runtime.audit is None


def test_all_of_it_reaches_the_runtime() -> None:
    environ = {
        "GATEWAY_AUDIT_FILE": "x",
        "GATEWAY_AUDIT_MAX_BYTES": "1000",
        "GATEWAY_AUDIT_CHECKPOINT_RECORDS": "7",
        "GATEWAY_AUDIT_ON_FAILURE": "block",
        "GATEWAY_AUDIT_SIGNING_KEY": b64encode(SEED).decode(),
    }
    assert load(environ).runtime.audit == AuditSpec("x", 1000, 7, True, SEED)
    assert str(list(SEED)) not in repr(load(environ))
    assert repr(SEED) not in repr(load(environ))


@pytest.mark.parametrize("name", ["GATEWAY_AUDIT_MAX_BYTES", "GATEWAY_AUDIT_CHECKPOINT_RECORDS"])
def test_what_is_about_a_file_is_a_warning_without_one(name: str) -> None:
    (warning,) = load({name: "1000"}).warnings
    assert warning.place == name
    assert "GATEWAY_AUDIT_FILE" in warning.remedy


@pytest.mark.parametrize("key", [b"", SEED[:-1], SEED + b"x"])
def test_a_key_of_another_length_is_refused_and_not_shown(key: bytes) -> None:
    given = b64encode(key or b"short").decode()
    with pytest.raises(ConfigurationProblems) as refusal:
        load({"GATEWAY_AUDIT_FILE": "x", "GATEWAY_AUDIT_SIGNING_KEY": given})
    assert "no private Ed25519 key" in str(refusal.value)
    assert given not in str(refusal.value)
