"""What operators and browsers ask for, beside `/v1`."""

import json
import re
from collections.abc import Iterator

import httpx2
import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from nexus_gateway.edge.operations import OPENMETRICS, SAMPLES_AT_ONCE, expose
from tests.support.gateway import KEY, gateway

pytestmark = pytest.mark.anyio


async def test_the_docs_page_needs_nobody_but_the_gateway() -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        page = await http.get("/docs")
        assert page.status_code == 200
        linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(linked) >= 3
        for link in linked:
            assert "//" not in link
            assert (await http.get(f"/{link}")).status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]


async def test_the_hot_routes_are_described_with_examples_that_work() -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert {"/v1/models", "/v1/models/{id}", "/healthz", "/readyz", "/metrics"} <= set(paths)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            content = paths[path]["post"]["requestBody"]["content"]["application/json"]
            for example in content["examples"].values():
                answer = await http.post(path, json=example["value"], headers={"X-API-Key": KEY})
                assert answer.status_code == 200


async def test_probes_need_no_key_and_tell_nothing() -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ok"}


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_metrics_are_protected_when_a_key_is_set(key: str | None) -> None:
    async with gateway({"METRICS_KEY": "scrape"}) as running, httpx2.AsyncClient(base_url=running.url) as http:
        refused = await http.get("/metrics", headers={"Authorization": f"Bearer {key}"} if key else {})
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        shown = await http.get("/metrics", headers={"Authorization": "Bearer scrape"})
        assert "nexus_in_flight_requests 0.0" in shown.text


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
async def test_metrics_that_are_told_in_pieces_are_told_as_a_whole(accept: str) -> None:
    class Many(Collector):
        def collect(self) -> Iterator[Metric]:
            many = CounterMetricFamily("many", "More than fit into one piece.", labels=["caller"])
            for number in range(2 * SAMPLES_AT_ONCE + 1):
                many.add_metric([f"key-{number}"], number)
            yield many
            yield CounterMetricFamily("none", "Without a sample.", labels=["caller"])
            yield CounterMetricFamily("last", "After it.", value=1)

    registry = CollectorRegistry()
    registry.register(Many())
    encode, content_type = choose_encoder(accept)
    assert await expose(registry, accept) == (encode(registry), content_type)


async def test_unknown_names_make_no_series() -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        for number in range(50):
            body = {"model": f"nobody-{number}", "messages": []}
            await http.post("/v1/chat/completions", json=body, headers={"X-API-Key": KEY})
            await http.get(f"/v1/unknown-{number}")
        text = (await http.get("/metrics")).text
        assert "nobody-" not in text
        assert "unknown-" not in text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/responses", 404, "unsupported_endpoint"),
        ("POST", "/v1/chat/completions/", 404, "unsupported_endpoint"),
        ("GET", "/v1", 404, "unsupported_endpoint"),
        ("GET", "/nothing", 404, "unsupported_endpoint"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("GET", "/docs/assets/../../x", 404, "unsupported_endpoint"),
    ],
)
async def test_every_error_has_the_apis_shape_and_a_request_id(method: str, path: str, status: int, code: str) -> None:
    async with gateway() as running, httpx2.AsyncClient(base_url=running.url) as http:
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert set(json.loads(answer.text)["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
        assert status != 405 or answer.headers["allow"]


@pytest.mark.parametrize("path", ["/admin/upstreams/mock/isolate", "/nothing", "/docs"])
async def test_a_large_body_beside_the_api_is_refused_in_its_shape(path: str) -> None:
    async with gateway({"ADMIN_KEY": "operator-key"}) as running, httpx2.AsyncClient(base_url=running.url) as http:
        answer = await http.post(path, content=b"x" * (2 << 20), headers={"Authorization": "Bearer operator-key"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert answer.headers["x-request-id"]


async def test_a_refused_method_is_told_which_ones_the_path_answers() -> None:
    async with gateway({"ADMIN_KEY": "operator-key"}) as running, httpx2.AsyncClient(base_url=running.url) as http:
        for method, path, allowed in (
            ("GET", "/admin/upstreams/mock/isolate", "POST"),
            ("POST", "/admin/keys", "GET, HEAD"),
            ("POST", "/docs/assets/favicon.png", "GET, HEAD"),
            ("GET", "/v1/embeddings", "POST"),
            ("POST", "/v1/models/mock", "GET, HEAD"),
        ):
            answer = await http.request(method, path, headers={"Authorization": "Bearer operator-key"})
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            assert allowed in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/healthz", "/readyz", "/metrics", "/docs", "/docs/assets/favicon.png", "/openapi.json", "/admin"),
        *("/v1/models", "/v1/models/mock", "/nothing", "/v1/responses"),
    ],
)
async def test_whatever_answers_get_answers_head_without_the_body(path: str) -> None:
    async with gateway({"ADMIN_KEY": "operator-key"}) as running, httpx2.AsyncClient(base_url=running.url) as http:
        whole = await http.get(path, headers={"X-API-Key": KEY})
        head = await http.head(path, headers={"X-API-Key": KEY})
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert "content-length" in head.headers
        if whole.status_code == 200:
            refused = await http.delete(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_the_root_says_what_this_is_and_its_links_lead_somewhere() -> None:
    for settings in ({}, {"ADMIN_KEY": "operator-key"}):
        async with gateway(settings) as running, httpx2.AsyncClient(base_url=running.url) as http:
            answer = await http.get("/")
            told = answer.json()
            assert (told["name"], answer.headers["vary"]) == ("Nexus Gateway", "accept")
            assert re.fullmatch(r"\d+\.\d+\.\d+", told["version"])
            assert ("admin" in told["links"]) == bool(settings)
            for link in told["links"].values():
                assert (await http.get(f"/{link}", headers={"X-API-Key": KEY})).status_code == 200, link
            page = await http.get("/", headers={"accept": "text/html,*/*;q=0.8"})
            assert re.findall(r'href="([^"]+)"', page.text) == list(told["links"].values())
            assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
            assert (await http.head("/")).status_code == 200
