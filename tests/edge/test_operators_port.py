"""A port of its own for operators: each path is answered on one of the two, and nothing leads around that."""

import httpx2
import pytest

from nexus_gateway.app import build
from nexus_gateway.config.settings import load
from tests.support.gateway import KEY, gateway
from tests.support.http_client import Caller, Received, chat
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

APART = {"OPS_LISTEN": "127.0.0.1:0", "ADMIN_KEY": "admin-key"}
ADMIN = {"authorization": "Bearer admin-key"}
FOR_OPERATORS = ["/metrics", "/docs", "/docs/assets/favicon.png", "/openapi.json", "/admin", "/admin/upstreams"]
FOR_ALL = ["/healthz", "/readyz"]


async def get(port: int, path: str, **headers: str) -> Received:
    async with Caller(port) as caller:
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": "gateway", **headers}.items())
        await caller.send(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        return await caller.receive()


async def test_what_operators_ask_for_is_answered_on_their_port_only() -> None:
    async with gateway(APART) as running:
        for path in FOR_OPERATORS:
            assert (await get(running.server.ops_port, path, **ADMIN)).status == 200
            hidden = await get(running.port, path, **ADMIN)
            assert (hidden.status, hidden.json()["error"]["code"]) == (404, "unsupported_endpoint")
            assert hidden.headers["x-request-id"]


async def test_the_api_is_not_on_the_operators_port() -> None:
    async with gateway(APART) as running:
        assert (await chat(running.server.ops_port)).status == 404
        assert (await get(running.server.ops_port, "/v1/models", **{"x-api-key": KEY})).status == 404
        assert (await get(running.server.ops_port, "/v1", **{"x-api-key": KEY})).status == 404
        assert (await get(running.port, "/v1/models", **{"x-api-key": KEY})).status == 200
        assert not running.records.begun


async def test_probes_are_answered_on_both() -> None:
    async with gateway(APART) as running:
        for path in FOR_ALL:
            assert (await get(running.port, path)).status == 200
            assert (await get(running.server.ops_port, path)).status == 200


async def test_the_root_of_each_port_leads_to_what_is_there() -> None:
    async with gateway(APART) as running:
        told = {}
        for port in (running.port, running.server.ops_port):
            told[port] = (await get(port, "/")).json()["links"]
            for path in told[port].values():
                assert (await get(port, f"/{path}", **{"x-api-key": KEY})).status == 200
        assert not {"admin", "metrics", "docs"} & set(told[running.port])
        assert {"admin", "metrics", "docs"} < set(told[running.server.ops_port])


@pytest.mark.parametrize(
    "path",
    ["/metrics/", "//metrics", "/%6detrics", "/healthz/../metrics", "/METRICS", "/./metrics", "/v1/../metrics",
     "/metrics?x=/healthz", "http://gateway/metrics", "/admin/upstreams/mock/isolate"],
)  # fmt: skip
async def test_no_other_way_of_writing_a_path_leads_there(path: str) -> None:
    async with gateway(APART) as running:
        assert (await get(running.port, path, **ADMIN)).status == 404


async def test_the_end_of_the_gateway_can_be_watched_there() -> None:
    settings = {**APART, "DRAIN_SECONDS": "20"}
    async with (
        gateway(settings, "m=mock://local?chunk_delay_ms=20&tokens=30") as running,
        Caller(running.port) as caller,
    ):
        await caller.ask(stream=True)
        await caller.read_until(b"data: ")
        ops_port = running.server.ops_port
        running.server.stop()
        await until(lambda: running.server.draining)
        assert (await get(ops_port, "/readyz")).json() == {"status": "draining"}
        assert b"nexus_in_flight_requests 1.0" in (await get(ops_port, "/metrics")).body
        assert await caller.read_until(b"[DONE]")


async def test_another_server_has_no_such_port_and_answers_them_nowhere() -> None:
    app = build(load({"GATEWAY_OPS_LISTEN": "127.0.0.1:9100"}).runtime, log_fd=2)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway") as http:
        assert [(await http.get(path)).status_code for path in FOR_OPERATORS] == [404] * len(FOR_OPERATORS)
        assert (await http.get("/healthz")).status_code == 200
