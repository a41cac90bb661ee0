"""What auditors get to read: verdicts, exit statuses, filtered records, and no exception whatever the files hold."""

import json
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from nexus_gateway.cli import main
from nexus_gateway.core.audit import Chain, Entry
from nexus_gateway.core.model import CallRecord, Operation
from nexus_gateway.observe.audit_keys import signer
from tests.observe.audit_files import Checkpoints, records, writing

SEED = bytes(range(32))
HOUR_S = 3600.0


def run(*arguments: object, **environ: str) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], env=environ, catch_exceptions=False)


def some_calls() -> list[Entry]:
    facts = [("key_1", "gpt", 200), ("key_2", "gpt", 200), ("key_1", "llama", 429), ("key_2", "llama", 200)]
    return [
        CallRecord(f"req-{n}", Operation.CHAT, n * HOUR_S, 0.0, key_id=key, model=model, status=status)
        for n, (key, model, status) in enumerate(facts)
    ]


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """A signed file of several, and `shipped.log` with its checkpoints among other lines."""
    path, announce = tmp_path / "audit.jsonl", Checkpoints()
    for _ in range(3):
        options = {"max_bytes": 2000, "checkpoint_records": 2, "sign": signer(SEED), "announce": announce}
        with writing(path, **options) as writer:
            writer.put(some_calls())
    (tmp_path / "shipped.log").write_bytes(b'{"event":"other"}\nplain text\n' + b"".join(announce.lines))
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SEED).public_key()
    (tmp_path / "key.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def files_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))  # the newest comes first: its name is the shortest


def test_files_verify_in_any_order_and_doubts_are_told(audited: Path) -> None:
    files = files_of(audited)
    assert len(files) > 1
    for order in (files, files[::-1]):
        told = run("verify", *order)
        assert told.exit_code == 0
        assert told.stdout.startswith("Unbroken: records 0 to ")
        assert told.stdout.count("Not proved: ") == 3


def test_with_an_anchor_and_the_key_nothing_is_in_doubt(audited: Path) -> None:
    told = run("verify", *files_of(audited), "--anchor", audited.parent / "shipped.log",
               "--public-key", audited.parent / "key.pem")  # fmt: skip
    assert (told.exit_code, told.stdout.count("\n"), told.stderr) == (0, 1, "")


def test_large_files_are_read_with_progress_in_seconds(tmp_path: Path) -> None:
    """A fifth of 100 MB, in a fifth of ten seconds of the processor."""
    chain, path = Chain("c0ffee"), tmp_path / "large.jsonl"
    call = CallRecord("req", Operation.CHAT, 0.0, 0.0, key_id="key_1", model="m" * 300)
    with path.open("wb") as file:
        file.write(chain.open(datetime(2026, 1, 1, tzinfo=UTC)))
        while file.tell() < 20_000_000:
            file.write(chain.add(call))
    began_s = time.process_time()
    told = run("verify", path)
    assert time.process_time() - began_s < 2
    assert told.exit_code == 0
    assert told.stderr == " 84% of 20 MB\n"


def test_what_is_wrong_is_named_with_its_place(audited: Path) -> None:
    text = audited.read_bytes()
    audited.write_bytes(text.replace(b"key_1", b"key_9", 1))
    told = run("verify", *files_of(audited))
    assert told.exit_code == 1
    assert f"BROKEN at {audited}:" in told.stdout
    assert "(altered)" in told.stdout
    assert "Unbroken before that: records 0 to " in told.stdout
    audited.write_bytes(b"".join(text.splitlines(keepends=True)[:-1]))
    assert run("verify", *files_of(audited)).exit_code == 0
    told = run("verify", *files_of(audited), "--anchor", audited.parent / "shipped.log")
    assert (told.exit_code, "(truncated)" in told.stdout) == (1, True)


def test_a_first_line_that_is_damaged_does_not_mix_up_the_files(audited: Path) -> None:
    text = audited.read_bytes()
    seq = json.loads(text.splitlines()[0])["seq"]
    audited.write_bytes(b"X" + text[1:])
    told = run("verify", *files_of(audited))
    assert f"Record {seq} is altered" in told.stdout


def test_a_missing_file_in_the_middle_is_named(audited: Path) -> None:
    files = [*files_of(audited)[1:], audited]
    assert len(files) > 2
    told = run("verify", files[0], *files[2:])
    assert (told.exit_code, "(removed)" in told.stdout) == (1, True)


def test_a_half_line_at_the_end_is_an_incomplete_tail(audited: Path) -> None:
    audited.write_bytes(audited.read_bytes()[:-10])
    told = run("verify", *files_of(audited))
    assert told.exit_code == 0
    assert f"Incomplete tail at {audited}:" in told.stdout


@pytest.mark.parametrize(("content", "status"), [(b"", 2), (b"half", 2), (b"\xff\n", 1), (b"{}\n" * 3, 1)])
def test_any_file_is_read_without_failing(tmp_path: Path, content: bytes, status: int) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    assert run("verify", path).exit_code == status
    assert run("show", path).exit_code == 0
    assert run("verify", path, "--anchor", path).exit_code == 2
    assert run("verify", path, "--public-key", path).exit_code == 2
    assert run("verify", tmp_path / "missing").exit_code == 2


def test_show_filters_by_key_model_status_and_time(audited: Path) -> None:
    def shown(*filters: str) -> list[str]:
        told = run("show", *files_of(audited), *filters)
        return [json.loads(line)["request_id"] for line in told.stdout.splitlines()]

    assert shown() == [f"req-{n}" for n in range(4)] * 3
    assert shown("--key", "key_1") == ["req-0", "req-2"] * 3
    assert shown("--model", "llama", "--status", "200") == ["req-3"] * 3
    assert shown("--since", "1970-01-01T01:00:00", "--until", "1970-01-01T03:00:00") == ["req-1", "req-2"] * 3
    assert shown("--since", "2030-01-01") == []


def test_show_leaves_out_what_is_no_request(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    at = some_calls()[0]
    with writing(path) as writer:
        writer.put([at, *records(1)])
    told = run("show", path).stdout
    assert [json.loads(line)["event"] for line in told.splitlines()] == ["audit", "audit"]


def test_the_public_key_is_that_of_the_signing_key(audited: Path) -> None:
    expected = (audited.parent / "key.pem").read_text()
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for given in (pem, pem.replace("\n", "\\n"), b64encode(SEED).decode()):
        told = run("public-key", GATEWAY_AUDIT_FILE="x", GATEWAY_AUDIT_SIGNING_KEY=given)
        assert (told.exit_code, told.stdout) == (0, expected)
    assert run("public-key").exit_code == 2


def test_another_kind_of_key_is_refused() -> None:
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    told = run("public-key", GATEWAY_AUDIT_FILE="x", GATEWAY_AUDIT_SIGNING_KEY=pem)
    assert told.exit_code == 2
    assert "This is no private Ed25519 key." in told.stderr
