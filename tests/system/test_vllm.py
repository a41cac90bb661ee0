"""vLLM as it is, and servers like it: the very bytes that they send, through a whole gateway to a caller."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest

from tests.support.gateway import Running, gateway
from tests.support.http_client import Received, chat
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, Script, answering, chunk, plain

pytestmark = pytest.mark.anyio

ASKED: Final = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
DONE: Final = b"data: [DONE]\n\n"
HEAD: Final = {"id": "chatcmpl-9f", "object": "chat.completion.chunk", "created": 1760000000, "model": "llama"}


def in_front_of(
    server: RawServer, options: str = "", settings: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Running]:
    return gateway(settings, f"m=http://127.0.0.1:{server.port}{options}")


async def ask(running: Running, **members: Any) -> Received:
    return await chat(running.port, body=json.dumps({**ASKED, **members}).encode())


def event(document: Mapping[str, Any]) -> bytes:
    """As pydantic writes it, which puts no space behind commas and colons."""
    return b"data: %b\n\n" % json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def delta(index: int = 0, finish_reason: str | None = None, *, usage: Any = None, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    if finish_reason is not None:
        choice |= {"stop_reason": None, "token_ids": None}
    return event({**HEAD, "choices": [choice], **({} if usage is None else {"usage": usage})})


def used(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def streaming(*events: bytes) -> Script:
    return answering(STREAM_HEAD + b"".join(map(chunk, events)) + LAST_CHUNK)


ROLE: Final = delta(role="assistant", content="")
WHOLE: Final = (ROLE, delta(content="Hello"), delta(finish_reason="stop", content=""), DONE)


# ---- errors

ERRORS: Final[dict[str, tuple[int, Any, tuple[int, str | None]]]] = {  # status, body; what the caller gets
    "flat, as it was until 2025": (
        400,
        {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400},
        (400, "too long"),
    ),
    "nested with a number for a code": (
        400,
        {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}},
        (400, "too long"),
    ),
    "a refused field": (
        400,
        {"error": {"message": "[{'type': 'missing'}]", "type": "Bad Request", "param": None, "code": 400}},
        (400, "[{'type': 'missing'}]"),
    ),
    "an unknown model": (
        404,
        {"error": {"message": "The model `m` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
        (404, "The model `m` does not exist."),
    ),
    "a framework's word": (422, {"detail": "Unprocessable"}, (422, "Unprocessable")),
    "its own key": (401, {"error": "Unauthorized"}, (502, None)),
    "an engine that died": (
        500,
        {"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}},
        (502, None),
    ),
    "no room": (
        503,
        {"object": "error", "message": "secret", "type": "ServiceUnavailableError", "param": None, "code": 503},
        (502, None),
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("kind", ERRORS)
async def test_errors_of_all_its_shapes(kind: str, stream: bool) -> None:
    status, body, (told_status, message) = ERRORS[kind]
    script = answering(plain(json.dumps(body).encode(), status=status))
    async with RawServer(script) as server, in_front_of(server) as running:
        answer = await ask(running, stream=stream)
    error = answer.json()["error"]
    assert (answer.status, set(error)) == (told_status, {"message", "type", "param", "code"})
    assert error["message"] == message or message is None
    assert error["code"] is None or isinstance(error["code"], str)
    assert "secret" not in answer.body.decode()


IN_STREAM: Final[dict[str, dict[str, Any]]] = {
    "flat": {"object": "error", "message": "no memory", "type": "InternalServerError", "param": None, "code": 500},
    "nested": {"error": {"message": "no memory", "type": "InternalServerError", "param": None, "code": 500}},
}


@pytest.mark.parametrize("shape", IN_STREAM)
async def test_an_error_event_is_never_a_clean_end(shape: str) -> None:
    """vLLM writes `[DONE]` behind it."""
    first = streaming(event(IN_STREAM[shape]), DONE)
    later = streaming(ROLE, delta(content="Hel"), event(IN_STREAM[shape]), DONE)
    for script, status, events in ((first, 502, 0), (later, 200, 3)):
        async with RawServer(script) as server, in_front_of(server) as running:
            answer = await ask(running, stream=True)
            assert running.records.last.error_code == "upstream_error"
        assert (answer.status, len(answer.events())) == (status, events)
        assert (answer.events()[-1] if events else answer.json())["error"]["code"] == "upstream_error"
        assert b"[DONE]" not in answer.body


async def test_the_callers_error_as_the_first_event_is_the_callers() -> None:
    told = {"error": {"message": "max_tokens is too large", "type": "BadRequestError", "param": None, "code": 400}}
    async with RawServer(streaming(event(told), DONE)) as server, in_front_of(server) as running:
        answer = await ask(running, stream=True)
    assert (answer.status, answer.json()["error"]["message"]) == (400, "max_tokens is too large")


# ---- usage

LAST: Final = event({**HEAD, "choices": [], "usage": used(5, 2)})

USAGE: Final[dict[str, tuple[Any, Any, bool]]] = {  # what the caller sends; what vLLM gets; does the caller see it
    "not asked for": (None, {"include_usage": True}, False),
    "declined": ({"include_usage": False}, {"include_usage": True}, False),
    "asked for": ({"include_usage": True}, {"include_usage": True}, True),
    "in every chunk": (
        {"include_usage": True, "continuous_usage_stats": True},
        {"include_usage": True, "continuous_usage_stats": True},
        True,
    ),
    "in every chunk but the last": (
        {"continuous_usage_stats": True},
        {"continuous_usage_stats": True, "include_usage": True},
        False,
    ),
}


@pytest.mark.parametrize("kind", USAGE)
async def test_usage_is_always_asked_for_and_given_to_who_asked(kind: str) -> None:
    options, sent, is_seen = USAGE[kind]
    each = [used(5, 0), used(5, 1), used(5, 2)] if sent.get("continuous_usage_stats") else [None] * 3
    chunks = [
        delta(role="assistant", content="", usage=each[0]),
        delta(content="Hello", usage=each[1]),
        delta(finish_reason="stop", content="", usage=each[2]),
    ]
    async with RawServer(streaming(*chunks, LAST, DONE)) as server, in_front_of(server) as running:
        answer = await ask(running, stream=True, **({} if options is None else {"stream_options": options}))
        (request,) = server.peers[0].requests
        assert json.loads(request.body)["stream_options"] == sent
        usage = running.records.last.usage
    assert answer.body == b"".join([*chunks, *([LAST] if is_seen else []), DONE])
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 2)


@pytest.mark.parametrize("options", [None, {"include_usage": True}, {"continuous_usage_stats": True}])
async def test_a_server_that_refuses_it_is_not_asked(options: Any) -> None:
    async with RawServer(streaming(*WHOLE)) as server, in_front_of(server, "?stream_usage=off") as running:
        answer = await ask(running, stream=True, **({} if options is None else {"stream_options": options}))
        (request,) = server.peers[0].requests
    assert json.loads(request.body).get("stream_options") == options
    assert answer.body == b"".join(WHOLE)


async def test_plain_answers_have_their_usage_read_and_left_alone() -> None:
    body = (
        b'{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}'
    )
    async with RawServer(answering(plain(body))) as server, in_front_of(server) as running:
        answer = await ask(running, stream_options=None)
        assert answer.body == body
        usage = running.records.last.usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (5, 2)


# ---- what the gateway does not know

UNKNOWN: Final = (
    b'"top_k":40, "min_p":0.050, "structured_outputs":{"regex":"[a-z]+"}, "chat_template_kwargs":{"thinking":false},'
    b'"priority":123456789012345678901234567890, "vllm_xargs":{"a":[1,2.50,null,true]}, "seed":1e3, "n":null'
)


@pytest.mark.parametrize("options", ["", "?model=meta-llama%2FLlama"])
async def test_unknown_fields_travel_both_ways_as_they_were_written(options: str) -> None:
    answer = (
        b'{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant"'
        b',"content":null,"refusal":null,"reasoning_content":"\\u0048m \\ud83d\\ude00","tool_calls":[]},'
        b'"logprobs":null,"finish_reason":"stop","stop_reason":128009,"token_ids":null}],"prompt_logprobs":null,'
        b'"kv_transfer_params":{"x":1.0},"big":123456789012345678901234567890,"usage":null}'
    )
    asked = b'{"model":"m","messages":[{"role":"user","content":"hi"}], %b}' % UNKNOWN
    async with RawServer(answering(plain(answer))) as server, in_front_of(server, options) as running:
        received = await chat(running.port, body=asked)
        (request,) = server.peers[0].requests
    assert received.body == answer
    for member in UNKNOWN.split(b", "):
        name, _, value = member.partition(b":")
        assert name + b":" + value in request.body
    assert json.loads(request.body) == {**json.loads(asked), **({"model": "meta-llama/Llama"} if options else {})}


async def test_events_with_unknown_fields_pass_as_they_were_written() -> None:
    events = [
        ROLE,
        delta(reasoning_content="First, "),
        delta(reasoning="then "),
        event(
            {
                **HEAD,
                "choices": [{"index": 0, "delta": {"content": "안녕"}, "token_ids": [1, 2]}],
                "prompt_token_ids": [3],
            }
        ),
        delta(finish_reason="stop", content=""),
        DONE,
    ]
    async with RawServer(streaming(*events)) as server, in_front_of(server) as running:
        assert (await ask(running, stream=True)).body == b"".join(events)


# ---- tools and reasoning


@pytest.mark.parametrize("masking", ["off", "on"])
@pytest.mark.parametrize("cut_bytes", [1, 13, 100_000])
async def test_deltas_of_tool_calls_and_thoughts_are_neither_split_nor_merged(masking: str, cut_bytes: int) -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        begins = "name" in function
        return {"index": index, **({"id": f"call-{index}", "type": "function"} if begins else {}), "function": function}

    events = [
        ROLE,
        delta(reasoning_content="The weather is asked for. "),
        delta(reasoning_content="In two cities."),
        delta(tool_calls=[call(0, name="get_weather", arguments="")]),
        *(delta(tool_calls=[call(0, arguments=piece)]) for piece in ('{"ci', 'ty": "Seo', 'ul 🌧"}')),
        delta(tool_calls=[call(1, name="get_weather", arguments='{"city"'), call(0, arguments="")]),
        delta(tool_calls=[call(1, arguments=': "Pusan"}')]),
        delta(finish_reason="tool_calls", content=None),
        DONE,
    ]
    wire = b"".join(events)
    pieces = [wire[at : at + cut_bytes] for at in range(0, len(wire), cut_bytes)]
    question = [{"role": "user", "content": "Write to kim@example.com: the weather in Seoul?"}]
    async with RawServer(streaming(*pieces)) as server:
        async with in_front_of(server, settings={"PII_MASKING_ENABLED": masking}) as running:
            answer = await ask(running, stream=True, messages=question)
        assert (b"kim@example.com" in server.peers[0].requests[0].body) is (masking == "off")
    assert [event for event in answer.body.split(b"\n\n") if event] == [event for event in wire.split(b"\n\n") if event]


# ---- several choices


async def test_a_stream_of_several_choices_is_whole_when_each_has_ended() -> None:
    def of_three(*finish: int) -> list[bytes]:
        begun = [delta(index, role="assistant", content="") for index in range(3)]
        said = [delta(index, content=f"{index}!") for index in (2, 0, 1, 0)]
        return [*begun, *said, *(delta(index, "length" if index else "stop", content="") for index in finish)]

    async with RawServer(streaming(*of_three(1, 0, 2), DONE)) as server, in_front_of(server) as running:
        assert (await ask(running, stream=True, n=3)).body == b"".join([*of_three(1, 0, 2), DONE])
    for finished in ((1, 0), (2,), ()):
        async with RawServer(streaming(*of_three(*finished), DONE)) as server, in_front_of(server) as running:
            answer = await ask(running, stream=True, n=3)
        assert b"[DONE]" not in answer.body
        assert answer.events()[-1]["error"]["code"] == "upstream_truncated"


# ---- first tokens that take long


def slow(comments: int, *events: bytes, comment: bytes = b": keep-alive\n\n") -> Script:
    """So many comments, 20 ms apart, and then an answer."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD)
        for _ in range(comments):
            await peer.send(chunk(comment) if comment else b"")
            await asyncio.sleep(0.02)
        for data in events:
            await peer.send(chunk(data))
        await peer.send(LAST_CHUNK)

    return script


async def test_comments_neither_begin_an_answer_nor_prolong_the_wait_for_it() -> None:
    settings = {"REQUEST_TIMEOUT_SECONDS": "0.3"}
    async with RawServer(slow(10_000)) as server, in_front_of(server, settings=settings) as running:
        answer = await ask(running, stream=True)
        await server.all_closed()
    assert (answer.status, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert "GATEWAY_REQUEST_TIMEOUT_SECONDS" in answer.json()["error"]["message"]


@pytest.mark.parametrize("comment", [b": keep-alive\n\n", b""], ids=["comments", "silence"])
async def test_a_first_token_may_take_its_time_and_only_then_the_silence_of_streams_counts(comment: bytes) -> None:
    settings = {"REQUEST_TIMEOUT_SECONDS": "20", "STREAM_IDLE_TIMEOUT_SECONDS": "0.3"}
    async with (
        RawServer(slow(30, *WHOLE, comment=comment)) as server,
        in_front_of(server, settings=settings) as running,
    ):
        assert (await ask(running, stream=True)).body == b"".join(WHOLE)

    async def silent(peer: Peer) -> None:
        await peer.receive()
        await peer.send(STREAM_HEAD + chunk(ROLE))
        await peer.closed.wait()

    async with RawServer(silent) as server, in_front_of(server, settings=settings) as running:
        answer = await ask(running, stream=True)
    assert "GATEWAY_STREAM_IDLE_TIMEOUT_SECONDS" in answer.events()[-1]["error"]["message"]


# ---- health


async def test_its_health_says_whether_it_is_asked() -> None:
    """vLLM answers 200 or 503 with no body at all."""
    well, asked = True, asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.receive()
            if request.target == "/health":
                await peer.send(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % (200 if well else 503))
                asked.set()
            else:
                await peer.send(plain(b'{"choices":[{"index":0,"finish_reason":"stop"}]}'))

    async with RawServer(script) as server:
        settings = {"HEALTH_CHECK_SECONDS": "0.05", "FALLBACKS": "m=spare"}
        upstreams = f"m=http://127.0.0.1:{server.port}?health=/health;spare=mock://local"
        async with gateway(settings, upstreams) as running:

            async def answered_by(name: str) -> None:
                while (await ask(running)).headers["x-nexus-upstream"] != name:
                    asked.clear()
                    await asked.wait()

            await answered_by("m")
            well = False
            await answered_by("spare")
            well = True
            await answered_by("m")


# ---- dialects

DIALECTS: Final = {
    "comments of OpenRouter": [b": OPENROUTER PROCESSING\n\n", *WHOLE],
    "event lines": [b"event: message\n" + data for data in WHOLE],
    "ids and retries": [b"id: 7\nretry: 100\n" + data for data in WHOLE],
    "crlf": [data.replace(b"\n", b"\r\n") for data in WHOLE],
    "cr": [data.replace(b"\n", b"\r") for data in WHOLE],
    "a byte order mark": [b"\xef\xbb\xbf", *WHOLE],
    "no space behind the colon": [data.replace(b"data: ", b"data:") for data in WHOLE],
    "pings as events": [b"event: ping\ndata:\n\n", *WHOLE],
    "no [DONE]": [*WHOLE[:-1]],
    "no last empty line": [*WHOLE[:-1], b"data: [DONE]"],
    "words after [DONE]": [*WHOLE, b": bye\n\n"],
}


@pytest.mark.parametrize("cut_bytes", [1, 5, 100_000])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_is_the_same_stream_however_it_is_cut(dialect: str, cut_bytes: int) -> None:
    wire = b"".join(DIALECTS[dialect])
    pieces = [wire[at : at + cut_bytes] for at in range(0, len(wire), cut_bytes)]
    async with RawServer(streaming(*pieces)) as server, in_front_of(server) as running:
        assert (await ask(running, stream=True)).body == b"".join(WHOLE)
        assert running.records.last.attempts[-1].outcome == "ok"


async def test_blank_lines_before_an_answer_keep_the_connection_and_mean_nothing() -> None:
    """As DeepSeek sends them while a plain answer has to wait."""
    answer = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'

    async def script(peer: Peer) -> None:
        await peer.receive()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        for piece in (head, chunk(b"\n"), chunk(b"\n\n"), chunk(answer), LAST_CHUNK):
            await peer.send(piece)
            await asyncio.sleep(0)

    async with RawServer(script) as server, in_front_of(server) as running:
        received = await ask(running)
    assert (received.status, received.body.lstrip()) == (200, answer)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "rate limited", "code": 429}, 429),
        ({"message": "no credit", "code": "insufficient_quota"}, 429),
        ({"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}, 400),
        ({"message": "overloaded", "type": "overloaded_error"}, 502),
        ("boom", 502),
    ],
)
async def test_an_error_object_in_a_200_is_the_status_it_stands_for(error: Any, status: int, stream: bool) -> None:
    body = json.dumps({"error": error}).encode()
    script = streaming(b"data: %b\n\n" % body) if stream else answering(plain(body))
    async with RawServer(script) as server, in_front_of(server) as running:
        answer = await ask(running, stream=stream)
    assert (answer.status, set(answer.json()["error"])) == (status, {"message", "type", "param", "code"})
