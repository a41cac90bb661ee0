"""What parse_call accepts is what every later reader of the same bytes would see."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.body import body_for, parse_call, read_user
from nexus_gateway.core.errors import MalformedRequest
from nexus_gateway.core.model import Operation

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
layouts = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}, {"indent": 0}])
READ = {"model", "messages", "prompt", "input", "stream", "stream_options", "n", "user"}
READ |= {"max_tokens", "max_completion_tokens"}
extras: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(max_size=8).filter(lambda k: k not in READ), json_values, max_size=4
)


def encode(document: Any, layout: dict[str, Any]) -> bytes:
    return json.dumps(document, **layout).encode("utf-8", "surrogatepass")


def is_encodable(document: Any) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(
    extra=extras.filter(is_encodable),
    layout=layouts,
    stream=st.none() | st.booleans(),
    n=st.none() | st.integers(1, 128),
)
def test_every_layout_of_a_valid_body_is_read_alike(
    extra: dict[str, Any], layout: dict[str, Any], stream: bool | None, n: int | None
) -> None:
    call = parse_call(Operation.CHAT, encode({**CHAT, **extra, "stream": stream, "n": n}, layout))
    assert (call.model, call.stream, call.choices) == ("m", bool(stream), n or 1)


@given(
    extra=extras.filter(is_encodable),
    layout=layouts,
    options=st.sampled_from(
        [..., None, {}, {"include_usage": False}, {"include_usage": True, "x": [1e5]}, {"y": 10**30}]
    ),
    model=st.sampled_from(["m", "other/model", 'quo"ted']),
    ask=st.booleans(),
)
def test_a_rewritten_body_differs_only_in_what_was_asked(
    extra: dict[str, Any], layout: dict[str, Any], options: Any, model: str, ask: bool
) -> None:
    document = {**extra, **CHAT, **({} if options is ... else {"stream_options": options})}
    call = parse_call(Operation.CHAT, encode(document, layout))
    sent = body_for(call, model=model, ask_usage=ask)
    expected = {**document, "model": model}
    if ask and not call.include_usage:
        expected["stream_options"] = {**(document.get("stream_options") or {}), "include_usage": True}
    assert json.loads(sent) == expected
    if expected == document:
        assert sent is call.body
    parse_call(Operation.CHAT, sent)


def test_numbers_keep_their_text() -> None:
    call = parse_call(
        Operation.CHAT, b'{"model":"m","messages":[],"seed":123456789012345678901234567890,"temperature":0.10}'
    )
    sent = body_for(call, model="x", ask_usage=True)
    assert b"123456789012345678901234567890" in sent
    assert b"0.10" in sent


@pytest.mark.parametrize("layout", ["%s", " %s", "%s\n", "\t%s"])
@pytest.mark.parametrize(
    "twice", [b'"model":"a","model":"b"', b'"model":"a", "mod\\u0065l" : "b"', b'"x":{}, "x":{},"model":"m"']
)
def test_a_repeated_key_is_refused(layout: str, twice: bytes) -> None:
    body = layout.encode() % (b'{%b,"messages":[]}' % twice)
    with pytest.raises(MalformedRequest, match="twice"):
        parse_call(Operation.CHAT, body)


@given(
    fillers=st.integers(0, 12),
    character=st.sampled_from(["", "\\b", "\\f", "\\u0007", "\\u001f", "\\\\", "\\/", "\x7f", "é", "😀"]),
    length=st.integers(0, 24),
    spaces=st.sampled_from(["", " ", "\n "]),
)
def test_no_length_hides_a_repeated_key(fillers: int, character: str, length: int, spaces: str) -> None:
    """The room that spaces would take, or a longer way to write a key, may hold a second `model`."""
    rest = "".join(f',"{character * number}{number:x}":0' for number in range(fillers))
    for first in (f'"{"x" * length}"', "1" * (length + 1)):
        body = f'{spaces}{{"model":{first},"model":"m","messages":[]{rest}}}'.encode()
        with pytest.raises(MalformedRequest, match="twice"):
            parse_call(Operation.CHAT, body)


@given(extra=extras.filter(is_encodable), key=st.sampled_from(["model", "messages"]), layout=layouts)
def test_no_layout_hides_a_repeated_key(extra: dict[str, Any], key: str, layout: dict[str, Any]) -> None:
    first = encode({**extra, **CHAT}, layout)
    again = first[: first.rindex(b"}")] + b"," + json.dumps(key).encode() + b":1}"
    with pytest.raises(MalformedRequest, match="twice"):
        parse_call(Operation.CHAT, again)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"5", None),
        (b"[]", None),
        (b"null", None),
        (b'"text"', None),
        (b'{"model":"m"', None),
        (b'{"model":"m","messages":[]} x', None),
        (b'{"model":"m","messages":[],"temperature":NaN}', None),
        (b'{"model":"m","messages":[],"x":Infinity}', None),
        (b'{"model":"m","messages":["\xff"]}', None),
        (b'{"model":"m","messages":[],"x":"\xed\xa0\x80"}', None),
        (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"model":"m","messages":[], "x":' + b'{"a":' * 1500 + b"1" + b"}" * 1500 + b"}", None),
        (b'{"messages":[]}', "model"),
        (b'{"model":5,"messages":[]}', "model"),
        (b'{"model":"","messages":[]}', "model"),
        (b'{"model":"%b","messages":[]}' % (b"x" * 257), "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":{}}', "messages"),
        (b'{"model":"m","messages":"hi"}', "messages"),
        (b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"m","messages":[],"stream":1}', "stream"),
        (b'{"model":"m","messages":[],"n":-1}', "n"),
        (b'{"model":"m","messages":[],"n":0}', "n"),
        (b'{"model":"m","messages":[],"n":129}', "n"),
        (b'{"model":"m","messages":[],"n":1.5}', "n"),
        (b'{"model":"m","messages":[],"max_tokens":"5"}', "max_tokens"),
        (b'{"model":"m","messages":[],"max_tokens":5.0}', "max_tokens"),
        (b'{"model":"m","messages":[],"max_tokens":true}', "max_tokens"),
        (b'{"model":"m","messages":[],"max_tokens":7,"max_completion_tokens":[5]}', "max_completion_tokens"),
        (b'{"model":"m","messages":[],"user":5}', "user"),
        (b'{"model":"m","messages":[],"user":["a"]}', "user"),
        (b'{"model":"m","messages":[],"n":"2"}', "n"),
        (b'{"model":"m","messages":[],"n":true}', "n"),
        (b'{"model":"m","messages":[],"stream_options":"on"}', "stream_options"),
        (b'{"model":"m","messages":[],"stream_options":[]}', "stream_options"),
        (b'{"model":"m","messages":[],"stream_options":{"include_usage":"yes"}}', "stream_options"),
        (
            b'{"model":"m","messages":[],"stream_options":{"include_usage":true,"include_usage":false}}',
            "stream_options",
        ),
    ],
)
def test_what_is_not_a_chat_request_is_refused_and_the_field_named(body: bytes, param: str | None) -> None:
    with pytest.raises(MalformedRequest) as refused:
        parse_call(Operation.CHAT, body)
    assert refused.value.param == param


def test_null_is_as_good_as_absent() -> None:
    optional = ("max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "user")
    call = parse_call(Operation.CHAT, json.dumps({**CHAT, **dict.fromkeys(optional)}).encode())
    assert (call.output_limit, call.choices, call.stream, call.include_usage) == (None, 1, False, False)
    assert read_user(call) is None


def test_what_an_operation_does_not_know_is_the_upstreams_business() -> None:
    body = b'{"model":"m","input":"hi","max_tokens":"5","unknown":{"a":[1,"x"]}}'
    assert body_for(parse_call(Operation.EMBEDDINGS, body), model="m", ask_usage=False) == body


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [(b'"one"', 3), (b'["one"]', 3), (b'["one","two"]', 6), (b"[1,2,3]", 3), (b"[[1,2],[3]]", 6), (b"[]", 3)],
)
def test_every_prompt_of_a_batch_has_its_choices(prompt: bytes, choices: int) -> None:
    body = b'{"model":"m","prompt":%b,"n":3}' % prompt
    assert parse_call(Operation.COMPLETIONS, body).choices == choices


@given(st.binary(max_size=80))
def test_no_bytes_whatever_raise_anything_else(body: bytes) -> None:
    for operation in Operation:
        with suppress(MalformedRequest):
            parse_call(operation, body)
