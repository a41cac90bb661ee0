"""Which of several upstreams gets a request: by how busy they are, or by who asks."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from click.testing import CliRunner

from nexus_gateway.cli import main
from tests.support.gateway import KEY, Running, gateway
from tests.support.http_client import Received, chat

pytestmark = pytest.mark.anyio

TWO_MOCKS = "a=mock://local;b=mock://local"


def policy(**fields: Any) -> dict[str, str]:
    return {"ROUTE_POLICIES": json.dumps({"m": fields})}


def half_and_half(sticky: str) -> dict[str, str]:
    return policy(strategy="weighted", sticky=sticky, targets=[{"name": name, "weight": 1} for name in "ab"])


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def who(answer: Received) -> str:
    assert answer.status == 200
    return answer.headers["x-nexus-upstream"]


async def ask_at_once(running: Running, callers: int) -> Counter[str]:
    return Counter([who(answer) for answer in await asyncio.gather(*(chat(running.port) for _ in range(callers)))])


# ---- balanced


async def test_replicas_that_are_alike_get_alike() -> None:
    upstreams = "a=mock://local?delay_ms=30;b=mock://local?delay_ms=30;c=mock://local?delay_ms=30"
    async with gateway(policy(strategy="balanced", targets=["a", "b", "c"]), upstreams) as running:
        for _ in range(3):
            asked = await ask_at_once(running, 60)
            assert all(15 <= asked[name] <= 25 for name in "abc"), asked


async def test_a_replica_that_is_held_up_gets_little_until_it_is_well() -> None:
    """By requests in flight alone: nobody knows yet how slow it is."""
    upstreams = "a=mock://local?delay_ms=600;b=mock://local?delay_ms=5"
    async with gateway(policy(strategy="balanced", targets=["a", "b"]), upstreams) as running:
        asked = Counter[str]()

        async def ask_on(until_s: float) -> None:
            while time.monotonic() < until_s:
                asked[who(await chat(running.port))] += 1

        await asyncio.gather(*(ask_on(time.monotonic() + 0.3) for _ in range(10)))
        assert asked["a"] <= 5, "half of those who come at first, and then nobody while they wait there"
        assert asked["b"] > 5 * asked["a"]


async def test_weights_say_how_much_a_replica_takes_at_once() -> None:
    upstreams = "a=mock://local?delay_ms=50;b=mock://local?delay_ms=50"
    targets = [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]
    async with gateway(policy(strategy="balanced", targets=targets), upstreams) as running:
        asked = await ask_at_once(running, 80)
        assert 50 <= asked["a"] <= 70


async def test_a_replica_that_fails_is_skipped_and_every_request_answered() -> None:
    settings = {**policy(strategy="balanced", targets=["a", "b"]), "CIRCUIT_BREAKER_MAX_FAILURES": "3"}
    async with gateway(settings, "a=mock://local?status=503;b=mock://local") as running:
        assert await ask_at_once(running, 50) == {"b": 50}
        failed = [attempt for record in running.records.finished_records for attempt in record.attempts]
        first = sum(attempt.upstream == "a" for attempt in failed)
        assert await ask_at_once(running, 50) == {"b": 50}
        again = [attempt for record in running.records.finished_records for attempt in record.attempts]
        assert first == sum(attempt.upstream == "a" for attempt in again) > 0, "its breaker is open"


# ---- sticky


async def test_a_user_stays_on_its_side_and_the_sides_are_shared() -> None:
    async with gateway(half_and_half("user"), TWO_MOCKS) as running:
        sides: dict[str, set[str]] = {}
        for number in [*range(24)] * 3:
            user = f"user-{number}"
            sides.setdefault(user, set()).add(who(await chat(running.port, body=body(user=user))))
        assert all(len(side) == 1 for side in sides.values())
        assert Counter([min(side) for side in sides.values()]).keys() == {"a", "b"}


@pytest.mark.parametrize("fields", [{}, {"user": None}])
async def test_whoever_names_no_user_is_split_by_request(fields: dict[str, Any]) -> None:
    async with gateway(half_and_half("user"), TWO_MOCKS) as running:
        asked = Counter([who(await chat(running.port, body=body(**fields))) for _ in range(40)])
        assert abs(asked["a"] - 20) <= 2


async def test_a_key_stays_on_its_side_in_every_process() -> None:
    keys = [f"key-number-{number}" for number in range(16)]
    settings = {**half_and_half("key"), "API_KEYS": ",".join(keys)}

    async def sides() -> list[str]:
        async with gateway(settings, TWO_MOCKS) as running:
            twice = [[who(await chat(running.port, headers={"x-api-key": key})) for key in keys] for _ in range(2)]
            assert twice[0] == twice[1]
            return twice[0]

    first = await sides()
    assert set(first) == {"a", "b"}
    assert await sides() == first


async def test_when_its_side_is_down_a_caller_has_a_second_one_and_comes_back() -> None:
    settings = {**half_and_half("user"), "ADMIN_KEY": "operator-key"}
    async with gateway(settings, "a=mock://local;b=mock://local;c=mock://local") as running:
        asked = [body(user=f"user-{number}") for number in range(12)]
        before = [who(await chat(running.port, body=each)) for each in asked]
        running.app.data_plane.endpoints["a"].isolate()  # type: ignore[union-attr]
        assert {who(await chat(running.port, body=each)) for each in asked} == {"b"}
        running.app.data_plane.endpoints["a"].restore()  # type: ignore[union-attr]
        assert [who(await chat(running.port, body=each)) for each in asked] == before


# ---- explain


def explain(*arguments: str, **settings: str) -> tuple[int, str]:
    chosen = {"UPSTREAMS": "a=mock://local;b=mock://local;c=mock://local", "API_KEYS": KEY, **settings}
    environ = {f"GATEWAY_{name}": value for name, value in chosen.items()}
    result = CliRunner(env=environ).invoke(main, ["explain", *arguments])
    return result.exit_code, result.output


CANARY = policy(strategy="canary", primary="a", canary="b", percent=5, fallbacks=["c"])


def test_explain_prints_the_plan_of_a_request() -> None:
    status, said = explain("--model", "m", **CANARY)
    assert status == 0
    assert "a -> c  (at most 3 attempts)" in said


def test_explain_prints_exact_shares_over_many() -> None:
    status, said = explain("--model", "m", "--samples", "10000", **CANARY)
    assert status == 0
    assert "9500 x  a -> c" in said
    assert "500 x  b -> c -> a" in said
    assert "95.00%    a" in said
    assert "5.00%    b" in said


def test_explain_says_who_stands_in_for_whom() -> None:
    _, said = explain("--model", "m", "--down", "a", "--down", "c", "--samples", "100", **CANARY)
    assert "95 x  nobody: 503 circuit_open" in said, "the canary never takes over from the primary"
    assert explain("--model", "m", "--down", "nobody", **CANARY)[0] == 2
    assert explain("--model", "unknown", **CANARY)[0] == 1


async def test_explain_says_of_a_caller_what_happens_to_it() -> None:
    settings = half_and_half("key")
    async with gateway(settings, TWO_MOCKS) as running:
        side = who(await chat(running.port))
        key_id = running.records.last.key_id
    status, said = explain("--model", "m", "--key-id", str(key_id), **{**settings, "UPSTREAMS": TWO_MOCKS})
    assert status == 0
    assert f"1 x  {side} ->" in said
