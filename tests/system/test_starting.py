"""A model server that comes up long after the gateway: callers are told so, and nobody counts it as a failure."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest

from tests.support.canaries import RawServer, chat, gateway
from tests.support.gateway import KEY, Running
from tests.support.http_client import Received
from tests.support.raw_server import Peer, Script, answering, plain
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"
SETTINGS = {"CIRCUIT_BREAKER_MAX_FAILURES": "2", "HEALTH_CHECK_SECONDS": "0.05", "ADMIN_KEY": "operator-key"}
BY = {"by its checks": "&health=/health", "by its answers": ""}


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A port that refuses connections until somebody listens on it."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened


def upstream_at(bound: socket.socket, options: str = "", seconds: float = 600) -> str:
    return f"mock=mock://local;{MODEL}=http://127.0.0.1:{bound.getsockname()[1]}?startup_seconds={seconds}{options}"


def answering_as(status: int) -> Script:
    return answering(plain(b'{"error":{"message":"Loading model","code":503}}', status=status))


async def serve_model(peer: Peer) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    while True:
        request = await peer.receive()
        body = {} if request.method == "GET" else {"model": json.loads(request.body)["model"], "choices": [choice]}
        await peer.send(plain(json.dumps(body).encode()))


async def ask(running: Running, model: str = MODEL, *, stream: bool = False) -> Received:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return await chat(running.port, body=json.dumps(body).encode())


def code(answer: Received) -> Any:
    return answer.json()["error"]["code"]


async def stands(running: Running) -> Any:
    """How the model's upstream stands, by the admin routes."""
    import httpx2

    async with httpx2.AsyncClient(base_url=running.url) as http:
        answer = await http.get("/admin/upstreams", headers={"Authorization": "Bearer operator-key"})
    (found,) = [each for each in answer.json()["upstreams"] if each["name"] == MODEL]
    return found


@pytest.mark.parametrize("by", BY)
async def test_it_is_starting_until_it_is_there_and_then_it_just_works(by: str, bound: socket.socket) -> None:
    async with gateway(SETTINGS, upstream_at(bound, BY[by])) as running:
        for stream in (False, True) * 4:
            answer = await ask(running, stream=stream)
            assert (answer.status, code(answer)) == (503, "upstream_starting")
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            assert "x-should-retry" not in answer.headers, "a client's library may wait and try again"
            assert (await ask(running, "mock")).status == 200
        state = await stands(running)
        assert state["starting"]
        assert (state["breaker"]["state"], state["breaker"]["failures"]) == ("closed", 0)
        async with RawServer(serve_model, bound=bound):
            while (answer := await ask(running)).status == 503:
                assert code(answer) == "upstream_starting"
            assert (answer.status, answer.json()["model"]) == (200, MODEL)
            assert not (await stands(running))["starting"]
        later = [await ask(running) for _ in range(4)]
        assert "upstream_starting" not in {code(answer) for answer in later}, "what has been there once is down now"
        assert "circuit_open" in {code(answer) for answer in later}


@pytest.mark.parametrize("by", BY)
async def test_its_time_ends(by: str, bound: socket.socket) -> None:
    async with gateway(SETTINGS, upstream_at(bound, BY[by], seconds=0.001)) as running:
        codes = {code(await ask(running)) for _ in range(3)}
        assert codes <= {"upstream_connect_error", "circuit_open"}


@pytest.mark.parametrize(("status", "told"), [(503, "upstream_starting"), (500, "upstream_error")])
async def test_a_server_that_loads_its_model_is_starting_and_one_that_fails_is_not(status: int, told: str) -> None:
    async with RawServer(answering_as(status)) as server:
        upstreams = f"{MODEL}=http://127.0.0.1:{server.port}?startup_seconds=600"
        async with gateway(SETTINGS, upstreams) as running:
            assert code(await ask(running)) == told


async def test_a_stand_in_answers_meanwhile(bound: socket.socket) -> None:
    async with gateway({**SETTINGS, "FALLBACKS": f"{MODEL}=mock"}, upstream_at(bound)) as running:
        answer = await ask(running)
        assert (answer.status, answer.headers["x-nexus-upstream"]) == (200, "mock")
        assert [attempt.outcome for attempt in running.records.last.attempts] == ["starting", "ok"]


@pytest.mark.parametrize("order", ["starting first", "starting last"])
async def test_a_failure_of_another_says_more_than_a_start(order: str, bound: socket.socket) -> None:
    async with RawServer(answering_as(500)) as broken:
        upstreams = f"{upstream_at(bound)};broken=http://127.0.0.1:{broken.port}"
        asked, other = (MODEL, "broken") if order == "starting first" else ("broken", MODEL)
        async with gateway({**SETTINGS, "FALLBACKS": f"{asked}={other}"}, upstreams) as running:
            assert code(await ask(running, asked)) == "upstream_error"


async def test_a_worker_that_is_not_there_yet_is_starting_too(bound: socket.socket) -> None:
    upstreams = f"{MODEL}=grpc://127.0.0.1:{bound.getsockname()[1]}?startup_seconds=600"
    async with gateway(SETTINGS, upstreams) as running:
        for _ in range(4):
            assert code(await ask(running)) == "upstream_starting"
        assert (await stands(running))["breaker"]["failures"] == 0


async def test_the_official_client_waits_and_is_served(bound: socket.socket) -> None:
    async with gateway(SETTINGS, upstream_at(bound, BY["by its checks"])) as running, AsyncExitStack() as stack:
        sdk = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY)
        stack.push_async_callback(sdk.close)
        asked = asyncio.create_task(
            sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
        )
        await until(lambda: running.records.finished_records)
        assert running.records.last.error_code == "upstream_starting"
        await stack.enter_async_context(RawServer(serve_model, bound=bound))
        assert (await asked).model == MODEL
