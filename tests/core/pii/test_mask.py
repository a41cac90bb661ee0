"""What leaves is what came, but for the identifiers, and it can be turned back."""

import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_gateway.core.model import Operation
from nexus_gateway.core.pii import (
    BadPattern,
    CustomPattern,
    Masked,
    Masker,
    MaskingConfig,
    MaskingFailed,
    Restorer,
    Scope,
)
from nexus_gateway.core.pii.fold import Folded

from .samples import (
    MASKER,
    MOBILES,
    SAMPLES,
    WORDS,
    Sample,
    chat,
    content_of,
    disguised,
    escaped,
    with_look_alikes,
    written_as_json,
)

LAYOUTS = st.sampled_from([{}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"indent": 1}])


def mask(
    body: bytes, masker: Masker = MASKER, operation: Operation = Operation.CHAT, principal: str = "k"
) -> Masked | None:
    return masker.mask_body(body, operation, principal)


def masked(body: bytes, masker: Masker = MASKER, operation: Operation = Operation.CHAT, principal: str = "k") -> Masked:
    found = mask(body, masker, operation, principal)
    assert found is not None
    return found


@given(before=WORDS, sample=SAMPLES, after=WORDS, layout=LAYOUTS)
def test_an_identifier_is_masked_and_nothing_else_is_touched(
    before: str, sample: Sample, after: str, layout: dict[str, Any]
) -> None:
    text = f"{before} {sample.label}{sample.text}은 {after}"
    body = chat(text, **layout)
    found = masked(body)
    (name,) = found.table
    assert found.counts == {sample.type: 1}
    assert found.table[name] == sample.text
    assert content_of(found.body) == text.replace(sample.text, name)
    assert found.body == body.replace(json.dumps(sample.text, **layout)[1:-1].encode(), name.encode())


@given(st.lists(st.tuples(WORDS, SAMPLES), min_size=1, max_size=6), LAYOUTS)
def test_restoring_undoes_masking_and_masking_again_finds_nothing(
    parts: list[tuple[str, Sample]], layout: dict[str, Any]
) -> None:
    seen: set[str] = set()
    text = ""
    for words, sample in parts:
        if sample.text not in seen:
            text += f"{words}, {sample.label}{sample.text}, "
        seen.add(sample.text)
    body = chat(text, **layout)
    found = masked(body)
    assert mask(found.body) is None
    spelled_alike = len(set(found.table.values())) == sum(found.counts.values())
    if spelled_alike:
        assert Restorer(found.table).restore_text(content_of(found.body)) == text


@given(WORDS, SAMPLES, WORDS, st.data())
def test_no_spelling_slips_through(before: str, sample: Sample, after: str, data: st.DataObject) -> None:
    shown = data.draw(disguised(sample.text)) if sample.type not in ("API_KEY", "IBAN", "PASSPORT") else sample.text
    label = data.draw(escaped(sample.label)) if data.draw(st.booleans()) else sample.label
    written = data.draw(escaped(shown)) if data.draw(st.booleans()) else json.dumps(shown, ensure_ascii=False)[1:-1]
    plain = [json.dumps(words, ensure_ascii=False)[1:-1] for words in (before, after)]
    raw = f"{plain[0]} {label}{written}, {plain[1]}"
    found = masked(b'{"messages":[{"content":"%b"}]}' % raw.encode())
    assert list(found.counts) == [sample.type]
    (name,) = found.table
    assert found.table[name] == shown
    json.loads(found.body)


@settings(max_examples=150)
@given(before=WORDS, sample=SAMPLES, seed=st.integers())
def test_no_look_alike_slips_through(before: str, sample: Sample, seed: int) -> None:
    """Nor does one beside a date or another number. 150 values, each disguised in 10 ways."""
    rnd = random.Random(seed)
    for _ in range(10):
        shown = with_look_alikes(sample.text, rnd)
        after = rnd.choice(["", " 2024-11-24", ". 2024.", " 12:30 3", ", 5,000원", "입니다"])
        written = written_as_json(f"{before} {sample.label}{shown}{after}", rnd)
        found = masked(b'{"messages":[{"content":"%b"}]}' % written.encode())
        assert shown not in content_of(found.body), written


@settings(max_examples=400)
@given(st.lists(st.one_of(WORDS, SAMPLES.map(lambda sample: sample.label + sample.text)), max_size=4), st.data())
def test_the_first_look_suspects_whatever_the_detectors_find(parts: list[str], data: st.DataObject) -> None:
    raw = data.draw(escaped(data.draw(disguised(" ".join(parts))))).encode()
    if MASKER._detection.find(Folded(raw).text):
        assert not MASKER._is_clean(raw, 0, len(raw))


@pytest.mark.parametrize(
    ("operation", "document", "where"),
    [
        (Operation.CHAT, {"messages": [{"role": "user", "content": "{}"}]}, 1),
        (Operation.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "{}"}]}]}, 1),
        (
            Operation.CHAT,
            {"messages": [{"role": "assistant", "content": None, "refusal": "{}", "reasoning_content": "{}"}]},
            2,
        ),
        (Operation.CHAT, {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": '{{"a":"{}"}}'}}]}]}, 1),
        (Operation.CHAT, {"messages": [{"function_call": {"arguments": '{{"a":"{}"}}'}}]}, 1),
        (Operation.CHAT, {"messages": [{"tool_calls": [{"custom": {"input": "{}"}}]}]}, 1),
        (Operation.CHAT, {"messages": [{"name": "{}", "content": "x"}], "user": "{}", "metadata": {"a": "{}"}}, 3),
        (Operation.CHAT, {"messages": [], "prediction": {"type": "content", "content": "{}"}}, 1),
        (Operation.CHAT, {"messages": [], "prediction": {"content": [{"type": "text", "text": "{}"}]}}, 1),
        (Operation.COMPLETIONS, {"prompt": "{}", "suffix": "{}"}, 2),
        (Operation.COMPLETIONS, {"prompt": ["{}", "x", "{}"]}, 2),
        (Operation.EMBEDDINGS, {"input": ["{}", "x"], "user": "{}"}, 2),
        (Operation.EMBEDDINGS, {"input": "{}"}, 1),
        (Operation.CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "{}"}}]}]}, 0),
        (Operation.CHAT, {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "{}"}}]}]}, 0),
        (Operation.CHAT, {"messages": [{"content": [{"type": "file", "file": {"file_data": "{}"}}]}]}, 0),
        (
            Operation.CHAT,
            {"messages": [], "tools": [{"function": {"description": "{}", "parameters": {"content": "{}"}}}]},
            0,
        ),
        (Operation.CHAT, {"messages": [], "stop": "{}", "model": "{}", "prompt": "{}"}, 0),
        (Operation.COMPLETIONS, {"messages": [{"content": "{}"}]}, 0),
    ],
)
def test_the_callers_text_is_scanned_and_the_rest_is_left(
    operation: Operation, document: dict[str, Any], where: int
) -> None:
    body = json.dumps(document).replace("{}", "kim@example.com").replace("{{", "{").replace("}}", "}").encode()
    found = mask(body, operation=operation)
    assert (found.counts if found else {}) == ({"EMAIL": where} if where else {})


def test_a_member_is_known_by_its_name_however_that_is_written() -> None:
    assert mask(b'{"mess\\u0061ges":[{"c\\u006fntent":"kim@example.com"}]}') is not None


@given(sample=SAMPLES, words=WORDS, depth=st.integers(0, 2), compact=st.booleans())
def test_arguments_stay_json(sample: Sample, words: str, depth: int, compact: bool) -> None:
    inner: Any = {"q": f"{words} {sample.label}{sample.text}", "n": [1, {"x": None}]}
    for _ in range(depth):
        inner = {"wrapped": json.dumps(inner)}
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {}
    arguments = json.dumps(inner, **layout)
    body = json.dumps({"messages": [{"tool_calls": [{"function": {"arguments": arguments}}]}]}, **layout).encode()
    found = masked(body)
    sent = json.loads(found.body)["messages"][0]["tool_calls"][0]["function"]["arguments"]
    restored = (
        Restorer(
            found.table,
        ).restore_text(sent, in_json=True)
        if depth == 0
        else None
    )
    json.loads(sent)
    assert found.counts == {sample.type: 1}
    if restored is not None:
        assert json.loads(restored) == inner


@given(sample=SAMPLES, words=WORDS, seed=st.integers())
def test_arguments_stay_json_however_they_are_escaped(sample: Sample, words: str, seed: int) -> None:
    rnd = random.Random(seed)
    inner = {"q": f'{words} "{sample.label}{sample.text}" C:\\dir\\', "n": [1]}
    for _ in range(5):
        written = written_as_json(json.dumps(inner, ensure_ascii=rnd.random() < 0.5), rnd)
        found = masked(b'{"messages":[{"tool_calls":[{"function":{"arguments":"%b"}}]}]}' % written.encode())
        sent = json.loads(found.body)["messages"][0]["tool_calls"][0]["function"]["arguments"]
        (name,) = found.table
        assert json.loads(sent) == {**inner, "q": str(inner["q"]).replace(sample.text, name)}, written


@pytest.mark.parametrize("quote", ['"', "\\u0022"])
def test_a_number_in_arguments_becomes_a_string(quote: str) -> None:
    arguments = '{"card": 4111111111111111, "mail":"kim@example.com", "n":[4111111111111111]}'
    raw = json.dumps(arguments)[1:-1].replace('\\"', "\\" + quote if quote == '"' else quote)
    found = masked(b'{"messages":[{"tool_calls":[{"function":{"arguments":"%b"}}]}]}' % raw.encode())
    sent = json.loads(json.loads(found.body)["messages"][0]["tool_calls"][0]["function"]["arguments"])
    card, mail = found.table
    assert sent == {"card": card, "mail": mail, "n": [card]}
    assert found.table == {card: "4111111111111111", mail: "kim@example.com"}


@given(MOBILES, MOBILES)
def test_values_and_placeholders_are_one_to_one(one: Sample, other: Sample) -> None:
    found = masked(chat(f"{one.text}, {other.text}"))
    alike = _digits(one.text) == _digits(other.text)
    assert len(found.table) == (1 if alike else 2)
    assert found.counts == {"PHONE": 2}


def _digits(text: str) -> str:
    return "".join(sign for sign in text if sign.isdigit())[-8:]


def test_the_same_value_has_the_same_placeholder_for_one_caller_only() -> None:
    body = chat("kim@example.com")
    again = Masker(MaskingConfig(salt=b"a salt for tests"))
    shared = Masker(MaskingConfig(salt=b"a salt for tests", scope=Scope.GLOBAL))
    salted = Masker(MaskingConfig(salt=b"another salt"))
    first = masked(body).table
    assert masked(body, again).table == first
    assert masked(body, principal="other").table != first
    assert masked(body, salted).table != first
    assert masked(body, shared, principal="a").table == masked(body, shared, principal="b").table


def test_embeddings_get_the_type_alone() -> None:
    found = masked(b'{"input":["kim@example.com","lee@example.com 010-1234-5678"]}', operation=Operation.EMBEDDINGS)
    assert found.body == b'{"input":["[EMAIL]","[EMAIL] [PHONE]"]}'
    assert (found.table, found.counts) == ({}, {"EMAIL": 2, "PHONE": 1})


def test_a_placeholder_that_the_caller_writes_stays_and_reveals_nothing() -> None:
    first = masked(chat("kim@example.com"))
    (name,) = first.table
    assert mask(chat(f"who is {name}?")) is None
    other = masked(chat(f"{name} lee@example.com"))
    assert name not in other.table
    assert Restorer(other.table).restore_text(name) == name


@pytest.mark.parametrize("operation", list(Operation))
@given(body=st.binary(max_size=60))
def test_a_body_that_cannot_be_read_is_refused_or_has_nothing(operation: Operation, body: bytes) -> None:
    with contextlib.suppress(MaskingFailed):
        assert mask(body, operation=operation) is None


@pytest.mark.parametrize("end", ["", "\\", '\\"', "\\u00"])
def test_an_unfinished_string_never_passes(end: str) -> None:
    with pytest.raises(MaskingFailed):
        mask(b'{"messages":[{"content":"kim@example.com%b' % end.encode())


def test_an_operators_pattern_is_masked_whole() -> None:
    custom = (CustomPattern("EMPLOYEE", r"EMP-\d{6}"), CustomPattern("MEMO", r"memo:[^\n]*"))
    masker = Masker(MaskingConfig(salt=b"s", custom=custom))
    found = masked(chat('EMP-123456 "x"\nmemo: kim@example.com and "more"\nlee@example.com'), masker)
    assert found.counts == {"EMPLOYEE": 1, "MEMO": 1, "EMAIL": 1}
    assert list(found.table.values()) == ["EMP-123456", 'memo: kim@example.com and "more"', "lee@example.com"]
    assert mask(chat("EMP-12345"), masker) is None


def test_an_operators_pattern_that_crosses_strings_of_arguments_leaves_them_strings() -> None:
    masker = Masker(MaskingConfig(salt=b"s", custom=(CustomPattern("ALL", r"(?s)a.*z"),)))
    arguments = json.dumps({"x": "1a2", "k": 'q"q', "n": 5, "y": "3z4"})
    body = json.dumps({"messages": [{"tool_calls": [{"function": {"arguments": arguments}}]}]}).encode()
    sent = json.loads(masked(body, masker).body)["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert "q" not in "".join(map(str, json.loads(sent).values())).replace("ALL", "")


@pytest.mark.parametrize(
    ("type_", "pattern"),
    [("lower", "x"), ("A B", "x"), ("", "x"), ("X", "("), ("X", "(?=x)"), ("X", "x*"), ("X", r"\C")],
)
def test_a_bad_pattern_is_refused_at_the_start(type_: str, pattern: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Masker(MaskingConfig(salt=b"s", custom=(CustomPattern(type_, pattern),)))
    assert issubclass(BadPattern, ValueError)


def test_an_unknown_detector_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="'phones'"):
        Masker(MaskingConfig(salt=b"s", detectors=frozenset({"phones"})))


def test_only_the_chosen_detectors_look() -> None:
    masker = Masker(MaskingConfig(salt=b"s", detectors=frozenset({"email"})))
    assert masked(chat("kim@example.com 010-1234-5678"), masker).counts == {"EMAIL": 1}
    assert mask(chat("010-1234-5678"), Masker(MaskingConfig(salt=b"s", detectors=frozenset()))) is None


@given(st.lists(st.one_of(WORDS, SAMPLES.map(lambda sample: sample.label + sample.text)), max_size=5).map(" / ".join))
def test_plain_text_is_masked_and_explained_alike(text: str) -> None:
    found = MASKER.mask_text(text)
    findings = MASKER.explain(text)
    assert sum(found.counts.values()) == len(findings)
    rebuilt, done = "", 0
    by_value = {}
    for finding in findings:
        by_value[finding.start] = text[finding.start : finding.end]
        rebuilt += text[done : finding.start]
        done = finding.end
    rebuilt += text[done:]
    kept = found.text
    for name in found.table:
        kept = kept.replace(name, "")
    assert kept == rebuilt


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert MASKER.mask_text("\ud800 kim@example.com").counts == {"EMAIL": 1}
