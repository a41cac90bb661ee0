"""Whose fault an answer is, and whether a stream was whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core import errors
from nexus_gateway.core.answers import StreamJudge, read_answer, read_failure
from nexus_gateway.core.model import Operation, Usage


def chunk(index: int = 0, finish: str | None = None, **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": index, "delta": {}, "finish_reason": finish}], **more}).encode()


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
USAGE_READ = ("prompt_tokens", "completion_tokens")


def judge(choices: int = 1, keep_usage: bool = False) -> StreamJudge:
    return StreamJudge("u", choices=choices, keep_usage=keep_usage)


@given(
    events=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30),
    choices=st.integers(1, 5),
    unfinished=st.sampled_from([None, ""]),
)
def test_a_stream_is_complete_exactly_when_every_choice_that_began_has_finished(
    events: list[tuple[int, bool]], choices: int, unfinished: str | None
) -> None:
    following = judge(choices)
    began: set[int] = set()
    finished: set[int] = set()
    for index, ends in events:
        assert following.admit(chunk(index, "stop" if ends else unfinished))
        began.add(index)
        finished |= {index} if ends else set()
    assert following.is_complete == (bool(began) and began == finished)
    assert not following.all_finished or (following.is_complete and len(finished) >= choices)


def test_the_usage_chunk_goes_on_only_to_who_asked_for_it() -> None:
    usage_chunk = json.dumps({"choices": [], "usage": USAGE}).encode()
    for keep in (True, False):
        following = judge(keep_usage=keep)
        assert following.admit(chunk(usage=None))
        assert following.admit(chunk(finish="stop", usage=USAGE)), "a chunk with a choice is never withheld"
        assert following.admit(usage_chunk) is keep
        assert following.usage == Usage(3, 4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=30))
def test_a_stream_of_several_choices_that_is_cut_counts_what_all_of_them_had_come_to(
    events: list[tuple[int, int]],
) -> None:
    following = judge(choices=4, keep_usage=True)
    came_to: dict[int, int] = {}
    for index, tokens in events:
        came_to[index] = came_to.get(index, 0) + tokens
        assert following.admit(chunk(index, usage={"prompt_tokens": 9, "completion_tokens": came_to[index]}))
        assert following.usage == Usage(9, sum(came_to.values()))
    assert following.admit(json.dumps({"choices": [], "usage": USAGE}).encode())
    assert following.usage == Usage(3, 4), "the last word is the server's"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"1", b"null", b'{"choices":5}', b'{"choices":[{"index":"a"}]}', b'{"x":NaN}', b'{"x":"\xff"}'],
)
def test_an_event_that_is_no_chunk_breaks_the_stream(data: bytes) -> None:
    with pytest.raises(errors.UpstreamInvalidResponse):
        judge().admit(data)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"message": "no", "type": "invalid_request_error", "code": None}}, errors.UpstreamRejected),
        ({"error": {"message": "no", "code": 400}}, errors.UpstreamRejected),
        ({"error": {"message": "no", "code": "429"}}, errors.UpstreamRateLimited),
        ({"error": {"message": "no", "type": "rate_limit_error"}}, errors.UpstreamRateLimited),
        ({"error": {"message": "no", "code": "invalid_api_key"}}, errors.UpstreamAuthError),
        ({"error": {"message": "no", "type": "server_error"}}, errors.UpstreamUnavailable),
        ({"error": "it broke"}, errors.UpstreamUnavailable),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, errors.UpstreamRejected),
        ({"object": "error", "message": "no", "code": 503}, errors.UpstreamUnavailable),
    ],
)
def test_an_error_in_a_200_stands_for_the_status_it_should_have_had(
    error: dict[str, Any], kind: type[errors.UpstreamError]
) -> None:
    body = json.dumps(error).encode()
    with pytest.raises(kind):
        judge().admit(body)
    with pytest.raises(kind):
        read_answer(Operation.CHAT, body, "u")


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":{},"data":{}}', b'{"choices":[],"data":[]', b"\xff"]
)
def test_what_is_no_answer_is_refused(operation: Operation, body: bytes) -> None:
    with pytest.raises(errors.UpstreamInvalidResponse):
        read_answer(operation, body, "u")


@pytest.mark.parametrize("absurd", ["-1", "-0.5", "1000000001", "1e300", "1" + "0" * 40])
@pytest.mark.parametrize("member", USAGE_READ)
def test_usage_that_cannot_be_counts_as_not_told(member: str, absurd: str) -> None:
    """Else an upstream could block a caller for a minute, give it tokens, or let a counter go back."""
    body = b'{"choices":[],"usage":%b}' % json.dumps({**USAGE, member: "?"}).replace('"?"', absurd).encode()
    assert read_answer(Operation.CHAT, body, "u") is None
    following = judge()
    assert not following.admit(body)
    assert following.usage is None


def test_usage_is_read_where_it_is_given() -> None:
    assert read_answer(Operation.CHAT, json.dumps({"choices": [], "usage": USAGE}).encode(), "u") == Usage(3, 4)
    assert read_answer(Operation.EMBEDDINGS, b'{"data":[],"usage":{"prompt_tokens":2}}', "u") == Usage(2, 0)
    assert read_answer(Operation.CHAT, b'{"choices":[],"usage":null}', "u") is None
    floats = b'{"choices":[],"usage":{"prompt_tokens":2.0,"completion_tokens":3e1}}'
    assert read_answer(Operation.CHAT, floats, "u") == Usage(2, 30)


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_an_error_that_says_nothing_is_none(nothing: Any) -> None:
    """Servers whose language has no null write one into every answer."""
    assert judge().admit(chunk(error=nothing))
    read_answer(Operation.CHAT, json.dumps({"choices": [], "error": nothing}).encode(), "u")


@pytest.mark.parametrize(
    ("status", "own_name", "kind"),
    [
        (400, True, errors.UpstreamRejected),
        (413, True, errors.UpstreamRejected),
        (422, False, errors.UpstreamRejected),
        (401, True, errors.UpstreamAuthError),
        (403, True, errors.UpstreamAuthError),
        (404, True, errors.UpstreamRejected),
        (404, False, errors.UpstreamModelNotFound),
        (408, True, errors.UpstreamUnavailable),
        (429, True, errors.UpstreamRateLimited),
        (500, True, errors.UpstreamUnavailable),
        (503, True, errors.UpstreamUnavailable),
        (204, True, errors.UpstreamInvalidResponse),
        (302, True, errors.UpstreamInvalidResponse),
    ],
)
def test_every_status_has_its_kind(status: int, own_name: bool, kind: type[errors.UpstreamError]) -> None:
    failure = read_failure("u", status, {}, b"<html>", own_name=own_name, now_unix_s=0.0)
    assert type(failure) is kind
    assert "html" not in failure.message


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "too long", "type": "t", "param": "p", "code": "c"}}, ("too long", "t", "p", "c")),
        ({"object": "error", "message": "flat", "type": "T", "param": None, "code": 400}, ("flat", "T", None, None)),
        ({"error": "bare"}, ("bare", "invalid_request_error", None, None)),
        ({"detail": "framework"}, ("framework", "invalid_request_error", None, None)),
        ({"error": {"message": "n", "code": 1234}}, ("n", "invalid_request_error", None, "1234")),
    ],
)
def test_a_rejection_keeps_the_upstreams_words_in_our_shape(body: dict[str, Any], told: tuple[str | None, ...]) -> None:
    failure = read_failure("u", 400, {}, json.dumps(body).encode(), own_name=True, now_unix_s=0.0)
    assert isinstance(failure, errors.UpstreamRejected)
    assert (failure.message, failure.type_, failure.param, failure.code) == told


@given(st.binary(max_size=60), st.integers(100, 599))
def test_no_body_and_no_status_raise(body: bytes, status: int) -> None:
    assert isinstance(read_failure("u", status, {}, body, own_name=True, now_unix_s=0.0), errors.UpstreamError)
