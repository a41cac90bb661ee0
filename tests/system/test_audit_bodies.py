"""Prompts and answers in the audit: for the auditor to read, without the identifiers, whatever upstreams may see."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.observe.audit_files import lines_of, verify
from tests.support.gateway import gateway
from tests.support.http_client import Caller, chat
from tests.support.raw_server import RawServer, answering, plain

from .test_audit import _readable, with_stdout
from .test_masking import CANARIES, ask, echo

pytestmark = pytest.mark.anyio

SALT = {"PII_HASH_SALT": "a-salt-of-some-length-for-tests"}
SETTINGS = {  # what the request's own settings may be: the audit's text is masked all the same
    "masking off": {},
    "masking on": {"PII_MASKING_ENABLED": "on"},
    "one detector": {"PII_MASKING_ENABLED": "on", "PII_DETECTORS": "iban"},
    "restored everywhere": {"PII_MASKING_ENABLED": "on", "PII_RESTORE": "everywhere"},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def text_in(path: Path) -> str:
    return path.read_text()


def record_of(path: Path) -> dict[str, Any]:
    (record,) = [line for line in lines_of(path) if line["event"] == "audit"]
    assert isinstance(record, dict)
    return record


def text_of(record: dict[str, Any], name: str) -> str:
    told = record[name]
    assert told["lacks"] is None
    return str(told["text"])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("option", ["", "?mask=off"])
@pytest.mark.parametrize("given", SETTINGS)
async def test_prompt_and_answer_are_masked_whatever_holds_for_the_request(
    path: Path, given: str, option: str, stream: bool
) -> None:
    settings = {**SALT, **SETTINGS[given], "AUDIT_FILE": str(path), "AUDIT_BODIES": "masked"}
    async with RawServer(echo) as upstream:
        async with gateway(settings, f"m=http://127.0.0.1:{upstream.port}{option}") as running:
            answer = await chat(running.port, body=ask(stream))
            assert answer.status == 200
        seen = upstream.peers[0].requests[0].body.decode()
    written = text_in(path)
    assert verify(path).finding is None
    assert not [value for value in CANARIES if value in written]
    record = record_of(path)
    prompt = json.loads(text_of(record, "prompt"))["messages"][0]["content"]
    choice = json.loads(text_of(record, "answer"))["choices"][0]
    assert choice["delta" if stream else "message"]["content"] == prompt
    assert prompt.count("[EMAIL_") == prompt.count("[PHONE_") == prompt.count("[RRN_") == prompt.count("[CARD_") == 1
    assert (record["prompt"]["bytes"], record["answer"]["bytes"]) == (len(ask(stream)), len(answer.body))
    if given == "masking on" and not option:
        assert json.loads(seen)["messages"][0]["content"] == prompt, "the same placeholders as upstream"


async def test_on_stdout_too() -> None:
    async with with_stdout(GATEWAY_AUDIT_BODIES="masked") as stdout:
        assert (await chat(stdout.port, body=ask().replace(b'"m"', b'"mock"'))).status == 200
        await asyncio.to_thread(_readable, stdout.reader)
        (line,) = stdout.lines()
    assert not [value for value in CANARIES if value in str(line)]
    assert text_of(line, "prompt").count("[EMAIL_") == 1
    assert "[EMAIL_" in text_of(line, "answer")


async def test_request_lines_never_hold_them(path: Path) -> None:
    async with with_stdout(GATEWAY_AUDIT_BODIES="masked", GATEWAY_AUDIT_FILE=str(path)) as stdout:
        assert (await chat(stdout.port, body=ask().replace(b'"m"', b'"mock"'))).status == 200
        await asyncio.to_thread(_readable, stdout.reader)
        (line,) = [line for line in stdout.lines() if line["event"] == "request_finished"]
    assert "Write to" not in str(line)
    assert "Write to" in str(record_of(path))


async def test_by_default_no_record_has_them(path: Path) -> None:
    async with gateway({"AUDIT_FILE": str(path)}) as running:
        assert (await chat(running.port, body=ask().replace(b'"m"', b'"mock"'))).status == 200
        assert running.records.last.bodies is None
    assert not {"prompt", "answer"} & set(record_of(path))


async def test_tool_calls_errors_and_what_no_body_came_of(path: Path) -> None:
    call = {"function": {"name": "send", "arguments": json.dumps({"to": CANARIES[0], "card": 4111111111111111})}}
    said = plain(json.dumps({"choices": [{"index": 0, "message": {"tool_calls": [call]}}]}).encode())
    refused = plain(json.dumps({"error": {"message": f"I do not know {CANARIES[0]}"}}).encode(), status=400)
    settings = {**SALT, "AUDIT_FILE": str(path), "AUDIT_BODIES": "masked", "MAX_BODY_BYTES": "2000"}
    async with (
        RawServer(answering(said, refused)) as upstream,
        gateway(settings, f"m=http://127.0.0.1:{upstream.port}") as running,
    ):
        assert (await chat(running.port, body=ask())).status == 200
        assert (await chat(running.port, body=ask())).status == 400
        assert (await chat(running.port, body=b"\xff\xfe" + CANARIES[0].encode())).status == 400
        assert (await chat(running.port, body=b" " * 3000)).status == 413
        assert (await chat(running.port, headers={"x-api-key": "wrong-key"})).status == 401
        async with Caller(running.port) as leaver:
            await leaver.ask(body=ask(max_tokens=1))
        await running.idle()
        assert running.records.last.bodies is not None
    told = [line for line in lines_of(path) if line["event"] == "audit"]
    assert not [value for value in (*CANARIES, "4111111111111111") if value in text_in(path)]
    message = json.loads(text_of(told[0], "answer"))["choices"][0]["message"]
    arguments = message["tool_calls"][0]["function"]["arguments"]
    assert "[EMAIL_" in arguments
    assert "[CARD_" in arguments
    assert "I do not know [EMAIL_" in text_of(told[1], "answer")
    assert told[2]["prompt"] == {"bytes": len(CANARIES[0]) + 2, "text": None, "lacks": "binary"}
    assert told[3]["prompt"] is None
    assert "over the limit" in text_of(told[3], "answer")


async def test_embeddings_are_told_without_their_vectors(path: Path) -> None:
    settings = {**SALT, "AUDIT_FILE": str(path), "AUDIT_BODIES": "masked"}
    async with gateway(settings) as running, Caller(running.port) as caller:
        body = json.dumps({"model": "mock", "input": [CANARIES[0], "x"]}).encode()
        await caller.ask(body=body, path="/v1/embeddings")
        assert (await caller.receive()).status == 200
    record = record_of(path)
    assert text_of(record, "prompt").count("[EMAIL_") == 1
    assert (record["answer"]["text"], record["answer"]["lacks"]) == (None, "vectors")
