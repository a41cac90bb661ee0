"""The official client library, unmodified, against a whole gateway: the wire as clients depend on it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import httpx2
import openai
import pytest

from tests.support.gateway import KEY, Running, gateway

pytestmark = pytest.mark.anyio

ASK: Any = [{"role": "user", "content": "안녕, world"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@asynccontextmanager
async def client(running: Running, key: str = KEY) -> AsyncIterator[tuple[openai.AsyncOpenAI, list[str]]]:
    """The client, and the requests that it made."""
    calls: list[str] = []

    async def count(request: httpx2.Request) -> None:
        calls.append(str(request.url.path))

    async with httpx2.AsyncClient(event_hooks={"request": [count]}) as http:
        yield openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=key, http_client=http), calls


async def read_to_end(sdk: openai.AsyncOpenAI, seen: list[Any]) -> None:
    async for chunk in await sdk.chat.completions.create(model="m", messages=ASK, stream=True):
        seen.append(chunk)  # noqa: PERF401  # what came before the fault counts


async def test_a_plain_answer() -> None:
    async with gateway() as running, client(running) as (sdk, _):
        answer = await sdk.chat.completions.create(model="mock", messages=ASK)
        assert "안녕, world" in (answer.choices[0].message.content or "")
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        record = running.records.last
        assert record.status == 200
        assert record.usage is not None
        assert record.usage.prompt_tokens == answer.usage.prompt_tokens


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_gives_the_same_text_and_usage_only_if_asked(asked: bool) -> None:
    async with gateway() as running, client(running) as (sdk, _):
        plain = await sdk.chat.completions.create(model="mock", messages=ASK)
        options: Any = {"stream_options": {"include_usage": True}} if asked else {}
        chunks = [
            c async for c in await sdk.chat.completions.create(model="mock", messages=ASK, stream=True, **options)
        ]
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
        )
        assert len({(c.id, c.created, c.model) for c in chunks}) == 1
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert (chunks[-1].usage is not None and not chunks[-1].choices) is asked
        assert plain.usage is not None
        counted = running.records.last.usage
        assert counted is not None, "counted, asked for or not"
        assert counted.completion_tokens == plain.usage.completion_tokens


async def test_tools_plain_and_streamed() -> None:
    async with gateway() as running, client(running) as (sdk, _):
        plain = await sdk.chat.completions.create(model="mock", messages=ASK, tools=[TOOL])
        call: Any = (plain.choices[0].message.tool_calls or [])[0]
        assert call.function.name == "get_weather"
        assert "city" in json.loads(call.function.arguments)
        async with sdk.chat.completions.stream(model="mock", messages=ASK, tools=[TOOL]) as stream:
            final = await stream.get_final_completion()
        streamed: Any = (final.choices[0].message.tool_calls or [])[0]
        assert streamed.function.arguments == call.function.arguments


async def test_completions_and_embeddings() -> None:
    async with gateway() as running, client(running) as (sdk, _):
        text = await sdk.completions.create(model="mock", prompt=["a", "b"], n=2)
        assert [choice.index for choice in text.choices] == [0, 1, 2, 3]
        streamed = [c async for c in await sdk.completions.create(model="mock", prompt="a", stream=True)]
        assert streamed[-1].choices[0].finish_reason == "stop"
        vectors = await sdk.embeddings.create(model="mock", input=["one", "둘"])
        assert len(vectors.data) == 2
        assert abs(sum(x * x for x in vectors.data[0].embedding) - 1) < 1e-3


async def test_several_choices_in_one_stream() -> None:
    async with gateway() as running, client(running) as (sdk, _):
        chunks = [c async for c in await sdk.chat.completions.create(model="mock", messages=ASK, n=3, stream=True)]
        texts: dict[int, str] = {}
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
        plain = await sdk.chat.completions.create(model="mock", messages=ASK, n=3)
        assert texts == {choice.index: choice.message.content for choice in plain.choices}


async def test_models_are_listed_and_found_also_with_a_slash() -> None:
    names = "org/model:7b=mock://local;mock=mock://local"
    async with gateway({"RATE_LIMIT_PER_MINUTE": "1"}, names) as running, client(running) as (sdk, _):
        assert [model.id async for model in await sdk.models.list()] == ["org/model:7b", "mock"]
        for _ in range(3):
            assert (await sdk.models.retrieve("org/model:7b")).id == "org/model:7b"
        with pytest.raises(openai.NotFoundError) as missing:
            await sdk.models.retrieve("nobody")
        assert missing.value.code == "model_not_found"
        await sdk.chat.completions.create(model="mock", messages=ASK)  # listing consumed nothing


async def test_the_synchronous_client_works_too() -> None:
    def ask(url: str) -> tuple[str, str]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as sdk:
            plain = sdk.chat.completions.create(model="mock", messages=ASK)
            pieces = sdk.chat.completions.create(model="mock", messages=ASK, stream=True)
            streamed = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
            return plain.choices[0].message.content or "", streamed

    async with gateway() as running:
        plain, streamed = await anyio.to_thread.run_sync(ask, running.url)
        assert plain == streamed


@pytest.mark.parametrize(
    ("upstream", "model", "error", "code", "calls"),
    [
        ("m=mock://local", "nobody", openai.NotFoundError, "model_not_found", 1),
        ("m=mock://local?status=400", "m", openai.BadRequestError, None, 1),
        ("m=mock://local?status=422", "m", openai.UnprocessableEntityError, None, 1),
        ("m=mock://local?status=499", "m", openai.APIStatusError, None, 1),
        ("m=mock://local?status=401", "m", openai.InternalServerError, "upstream_auth_error", 1),
        ("m=mock://local?status=500", "m", openai.InternalServerError, "upstream_error", 1),
        ("m=mock://local?status=503", "m", openai.InternalServerError, "upstream_error", 1),
        ("m=mock://local?status=404&model=x", "m", openai.InternalServerError, "upstream_model_not_found", 1),
        ("m=http://127.0.0.1:9", "m", openai.InternalServerError, "upstream_connect_error", 1),
        ("m=http://nowhere.invalid", "m", openai.InternalServerError, "upstream_dns_error", 1),
        ("m=mock://local?delay_ms=5000", "m", openai.InternalServerError, "upstream_timeout", 1),
        ("m=mock://local?status=429", "m", openai.RateLimitError, "rate_limit_exceeded", 3),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_error_is_the_librarys_own_and_is_tried_as_often_as_it_helps(
    upstream: str, model: str, error: type[openai.APIStatusError], code: str | None, calls: int, stream: bool
) -> None:
    async with gateway({"REQUEST_TIMEOUT_SECONDS": "0.1"}, upstream) as running, client(running) as (sdk, made):
        with pytest.raises(error) as raised:
            await sdk.chat.completions.create(model=model, messages=ASK, stream=stream)
        assert raised.value.code == code
        assert len(made) == calls
        assert raised.value.response.headers["x-request-id"] == running.records.last.request_id


async def test_a_wrong_key_is_an_authentication_error_and_no_record_names_a_key() -> None:
    async with gateway() as running, client(running, "wrong") as (sdk, made):
        with pytest.raises(openai.AuthenticationError) as raised:
            await sdk.chat.completions.create(model="mock", messages=ASK)
        assert raised.value.code == "invalid_api_key"
        assert raised.value.response.headers["www-authenticate"] == "Bearer"
        assert len(made) == 1
        assert running.records.last.key_id is None


async def test_a_used_up_limit_tells_the_wait_and_the_rest() -> None:
    async with gateway({"RATE_LIMIT_PER_MINUTE": "2"}) as running, client(running) as (sdk, made):
        left = []
        for _ in range(2):
            raw = await sdk.chat.completions.with_raw_response.create(model="mock", messages=ASK)
            left.append(raw.headers["x-ratelimit-remaining-requests"])
        assert left == ["1", "0"]
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.with_options(max_retries=0).chat.completions.create(model="mock", messages=ASK)
        headers = raised.value.response.headers
        assert (raised.value.type, raised.value.code) == ("requests", "rate_limit_exceeded")
        assert 58 <= int(headers["retry-after"]) <= 61
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert len(made) == 3


@pytest.mark.parametrize("events", [1, 3])
async def test_a_stream_that_breaks_raises_and_is_never_taken_for_complete(events: int) -> None:
    upstream = f"m=mock://local?fail_after={events}"
    async with gateway(upstreams=upstream) as running, client(running) as (sdk, made):
        seen: list[Any] = []
        with pytest.raises(openai.APIError, match="m") as raised:
            await read_to_end(sdk, seen)
        assert len(seen) == events
        assert raised.value.code == "upstream_truncated"
        assert len(made) == 1
        assert running.records.last.error_code == "upstream_truncated"
        assert [attempt.outcome for attempt in running.records.last.attempts] == ["truncated"]


async def test_a_stream_that_stalls_ends_with_an_error_that_names_the_setting() -> None:
    async with (
        gateway({"STREAM_IDLE_TIMEOUT_SECONDS": "0.05"}, "m=mock://local?chunk_delay_ms=5000") as running,
        client(running) as (sdk, _),
    ):
        with pytest.raises(openai.APIError, match="GATEWAY_STREAM_IDLE_TIMEOUT_SECONDS"):
            await read_to_end(sdk, [])


async def test_a_stream_has_a_maximum_length_in_time() -> None:
    async with (
        gateway({"STREAM_MAX_SECONDS": "0.15"}, "m=mock://local?chunk_delay_ms=20&tokens=1000") as running,
        client(running) as (sdk, _),
    ):
        with pytest.raises(openai.APIError, match="GATEWAY_STREAM_MAX_SECONDS"):
            await read_to_end(sdk, [])


async def test_every_way_to_give_a_key_and_the_callers_own_request_id() -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        body = {"model": "mock", "messages": ASK}
        for headers in ({"X-API-Key": KEY}, {"api-key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            answer = await http.post("/v1/chat/completions", json=body, headers={**headers, "x-request-id": "my.id-1"})
            assert answer.status_code == 200
            assert answer.headers["x-request-id"] == "my.id-1"
        twice = await http.post("/v1/chat/completions", json=body, headers={"X-API-Key": KEY, "api-key": "other"})
        assert twice.status_code == 401
        hostile = await http.post("/v1/chat/completions", json=body, headers={"X-API-Key": KEY, "x-request-id": "a b"})
        assert hostile.headers["x-request-id"].startswith("req_")
