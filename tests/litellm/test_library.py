"""What the library may not do in our process, and what callers may not do to it."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from nexus_gateway.config.runtime import MockSpec, ProxySpec
from nexus_gateway.core.answers import StreamJudge
from nexus_gateway.core.errors import UpstreamConnectError, UpstreamDnsError, UpstreamInvalidResponse
from nexus_gateway.core.sse import DONE
from nexus_gateway.upstreams.litellm_library import CALLBACKS, QUIET, litellm
from nexus_gateway.upstreams.litellm_words import MEMBERS
from tests.support.openai_server import openai_server
from tests.support.proxy import proxy as http_proxy
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, answering, chunk, deaf_port, plain
from tests.upstreams.calls import LIMIT_BYTES, read_stream
from tests.upstreams.kinds import NAME, OWN_KEY, closing

from .kinds import adapter, request

LOAD: Final = "import nexus_gateway.upstreams.litellm"
GATEWAY: Final = """
import asyncio, sys, threading
from nexus_gateway.app import create_app
{before}
async def main():
    app = create_app({environ})
    async with app.router.lifespan_context(app):
        {inside}
asyncio.run(main())
"""

SETTINGS: Final[tuple[tuple[str, Any], ...]] = (
    ("api_base", "http://192.0.2.1"),
    ("base_url", "http://192.0.2.1"),
    ("api_key", "theirs"),
    ("custom_llm_provider", "anthropic"),
    ("fallbacks", ["gpt-4o"]),
    ("model_list", [{"model_name": "m", "litellm_params": {"model": "gpt-4o"}}]),
    ("num_retries", 3),
    ("max_retries", 3),
    ("mock_response", "made up"),
    ("mock_timeout", True),
    ("timeout", 0.001),
    ("drop_params", True),
    ("extra_headers", {"x-evil": "1"}),
    ("headers", {"x-evil": "1"}),
    ("callbacks", ["langfuse"]),
    ("success_callback", ["langfuse"]),
    ("litellm_logging_obj", 1),
    ("_skip_mcp_handler", False),
    ("acompletion", False),
    ("metadata", {"a": "b"}),
    ("guided_json", {}),
)


def run(code: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: what is imported there was not before."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PATH": "/usr/bin", "HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        timeout=110,
    )


def body(**members: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **members})


class TestWhereItIs:
    def test_a_gateway_without_such_an_upstream_holds_no_trace_of_it(self) -> None:
        environ = {"GATEWAY_UPSTREAMS": "mock=mock://local;llama=http://localhost:8001"}
        inside = "sys.exit(any(name in sys.modules for name in ('litellm', 'httpx', 'openai', 'tiktoken', 'boto3')))"
        done = run(GATEWAY.format(before="", environ=environ, inside=inside))
        assert done.returncode == 0, done.stderr

    @pytest.mark.timeout(120)
    def test_it_is_loaded_in_a_thread_before_anybody_is_served_and_asks_nobody(self, tmp_path: Path) -> None:
        """Nor does it read `.env`, nor say a word."""
        (tmp_path / ".env").write_text("READ_FROM_DOT_ENV=yes\n")
        before = """
where = []
class Watch:
    def find_spec(self, name, *_):
        if name == "litellm":
            where.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
def audit(event, args):
    if event in ("socket.getaddrinfo", "socket.connect") and args[-1] not in (None,) :
        where.append(f"{event} {args}")
sys.addaudithook(audit)
"""
        inside = "import os; assert 'litellm' in sys.modules; assert where == [False], where;"
        inside += "assert 'READ_FROM_DOT_ENV' not in os.environ"
        environ = {
            "GATEWAY_UPSTREAMS": "gpt=litellm://gpt-4o-mini;claude=litellm://anthropic/claude-sonnet-4-5;any=litellm://",
            "GATEWAY_AUDIT_LOGGING_ENABLED": "false",
            "GATEWAY_PII_MASKING_ENABLED": "false",
        }
        code = GATEWAY.format(before=before, environ=environ, inside=inside)
        done = run(code, tmp_path, OPENAI_API_KEY="none", ANTHROPIC_API_KEY="none")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.timeout(120)
    def test_what_cannot_be_asked_is_told_at_the_start(self) -> None:
        environ = {
            "GATEWAY_UPSTREAMS": "keyless=litellm://gpt-4o-mini;unknown=litellm://nobody-knows-this",
            "GATEWAY_PII_MASKING_ENABLED": "false",
        }
        done = run(GATEWAY.format(before="", environ=environ, inside="pass"))
        lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
        told = {line["upstream"] for line in lines if line["event"] == "litellm_unready"}
        assert (done.returncode, told) == (0, {"keyless", "unknown"}), done.stderr

    def test_what_it_would_do_besides_is_off(self) -> None:
        assert not any(getattr(litellm, name) for name in CALLBACKS)
        assert litellm.cache is None
        assert litellm.model_fallbacks is None
        assert litellm.num_retries is None
        assert not litellm.drop_params
        assert QUIET["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


class TestCallers:
    pytestmark = pytest.mark.anyio

    async def test_reach_none_of_its_settings(self) -> None:
        """They travel to the server like any member that the library does not know, and mean nothing before."""
        settings = dict(SETTINGS)
        assert not any(settings.keys() & members for members in MEMBERS.values())
        async with openai_server() as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(body=body(**settings)))
                answer = msgspec.json.decode(await reply.read_all(LIMIT_BYTES))
                await reply.aclose()
            (seen,) = server.seen
        assert answer["choices"][0]["message"]["content"].endswith("hi")
        assert seen.headers["authorization"] == f"Bearer {OWN_KEY}"
        assert "x-evil" not in seen.headers
        sent = msgspec.json.decode(seen.body)
        assert sent["model"] == "m"
        assert {name: sent[name] for name in settings} == settings
        assert not seen.headers.keys() & {"x-stainless-lang", "x-stainless-os"}

    async def test_name_the_model_where_none_is_configured_but_no_address(self) -> None:
        async with openai_server() as server:
            upstream = adapter(None, api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                for model, status in (("openai/own", 200), ("huggingface/http://127.0.0.1:9", 404), ("nobody", 404)):
                    reply = await upstream.send(msgspec.structs.replace(request(body=body()), model=model))
                    await reply.aclose()
                    assert reply.status == status
            (seen,) = server.seen
        assert msgspec.json.decode(seen.body)["model"] == "own"

    async def test_add_no_header_by_the_value_of_another(self) -> None:
        headers = [
            (b"traceparent", b"00-1-2-01"),
            (b"tracestate", "é".encode()),
            *((b"openai-beta", value) for value in (b"a\r\nx-evil: 1", b"a\n", b"\x00", b"\x01", b" a")),
        ]
        async with openai_server() as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(body=body(), headers=headers))
                await reply.aclose()
                assert reply.status == 200
            (seen,) = server.seen
        assert seen.headers["traceparent"] == "00-1-2-01"
        assert seen.headers["tracestate"].encode("latin-1") == "é".encode()
        assert not seen.headers.keys() & {"x-evil", "openai-beta"}

    async def test_have_nothing_fetched_from_inside(self) -> None:
        """Gemini takes images by value only, so the library fetches those that are told by address."""
        async with RawServer(answering(plain(b"secret"))) as inside:
            url = f"http://127.0.0.1:{inside.port}/secret.png"
            content = [{"type": "image_url", "image_url": {"url": url}}]
            asked = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": content}]})
            upstream = adapter("gemini/gemini-2.0-flash", api_base="http://127.0.0.1:9", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(body=asked))
                said = await reply.read_all(LIMIT_BYTES)
                await reply.aclose()
            assert not inside.peers
        assert reply.status == 400
        assert b"litellm" not in said.lower()

    async def test_tools_of_another_server_are_not_called_here(self) -> None:
        tools = [{"type": "mcp", "server_url": "litellm_proxy/x", "require_approval": "never"}]
        async with openai_server() as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(body=body(tools=tools)))
                await reply.aclose()
            (seen,) = server.seen
        assert msgspec.json.decode(seen.body)["tools"] == tools


class TestTheWire:
    pytestmark = pytest.mark.anyio

    async def test_an_answer_of_openais_goes_on_byte_for_byte(self) -> None:
        answer = b'{"object":"chat.completion","big":123456789012345678901234567890,"choices":[{"index":0,"message":'
        answer += b'{"role":"assistant","content":"x","refusal":null,"odd":1},"finish_reason":"stop"}], "usage":null}'
        async with RawServer(answering(plain(answer))) as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(body=body()))
                assert await reply.read_all(LIMIT_BYTES) == answer
                await reply.aclose()

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
    async def test_nothing_is_asked_twice(self, status: int, stream: bool) -> None:
        async with openai_server(MockSpec(status=status)) as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(stream=stream, body=body(stream=stream)))
                await reply.aclose()
            assert (reply.status, len(server.seen)) == (status, 1)

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_caller_may_leave_at_any_moment(self, stream: bool) -> None:
        """Also between the end of a call and the moment at which its caller would have heard of it."""
        async with openai_server(MockSpec(tokens=2, chunk_delay_s=5.0)) as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                for turns in itertools.count():
                    asked = request(stream=stream, body=body(stream=stream))
                    sending = asyncio.ensure_future(upstream.send(asked))
                    await server.model.reach(1 if stream else 0)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if sending.done():
                        await sending.result().aclose()
                        break
                    sending.cancel()
                    await asyncio.wait({sending})
                    assert sending.cancelled()
                    await server.model.reach(0)

    async def test_a_kept_connection_that_was_closed_is_no_failure(self) -> None:
        async def close_after_one(peer: Peer) -> None:
            await peer.receive()
            await peer.send(plain(b'{"choices":[]}'))
            await peer.receive()

        async with RawServer(close_after_one) as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                for _ in range(3):
                    reply = await upstream.send(request(body=body()))
                    await reply.aclose()
                    assert reply.status == 200
            assert [len(peer.requests) for peer in server.peers] == [2, 2, 1]

    async def test_connections_are_kept_after_streams_too(self) -> None:
        chunks = chunk(b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n') + chunk(b"data: [DONE]\n\n")
        async with RawServer(answering(STREAM_HEAD + chunks + LAST_CHUNK)) as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                for _ in range(3):
                    reply = await upstream.send(request(stream=True, body=body(stream=True)))
                    assert (await read_stream(reply))[-1] == DONE
                    await reply.aclose()
            assert [len(peer.requests) for peer in server.peers] == [3]

    async def test_a_proxy_is_the_configured_one(self) -> None:
        async with openai_server() as server, http_proxy(wanted="Basic abc") as proxy:
            way = ProxySpec("127.0.0.1", proxy.port, "Basic abc")
            address = f"http://models.example:{server.port}/v1"
            upstream = adapter("openai/m", api_base=address, api_key=OWN_KEY, proxy=way)
            async with closing(upstream):
                reply = await upstream.send(request(body=body()))
                await reply.aclose()
            assert reply.status == 200
            (asked,) = proxy.requests
            assert asked.target == f"{address}/chat/completions"

    async def test_a_name_that_does_not_resolve(self) -> None:
        upstream = adapter("openai/m", api_base="http://no-such-host.invalid/v1", api_key=OWN_KEY)
        async with closing(upstream):
            with pytest.raises(UpstreamDnsError):
                await upstream.send(request(body=body(), within_s=10))

    async def test_whoever_does_not_accept_is_not_waited_for(self) -> None:
        with deaf_port() as port:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                with pytest.raises(UpstreamConnectError):
                    await upstream.send(request(body=body()))

    async def test_an_event_without_end_is_refused(self) -> None:
        async def endless(peer: Peer) -> None:
            await peer.receive()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
            while True:
                await peer.send(b"x" * (1 << 18))
                await asyncio.sleep(0)

        async with RawServer(endless) as server:
            upstream = adapter("openai/m", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(stream=True, body=body(stream=True)))
                with pytest.raises(UpstreamInvalidResponse):
                    await reply.read_all(1 << 30)
                await reply.aclose()
            assert server.peers[0].accepted_bytes < 64 << 20

    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_the_library_plays_for_a_provider_is_not_relayed(self, stream: bool) -> None:
        """Here a schema for the answer, by a tool that nobody gave."""
        schema = {"name": "s", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
        wanted = body(stream=stream, response_format={"type": "json_schema", "json_schema": schema})
        used = {"id": "t", "type": "function", "function": {"name": "json_tool_call", "arguments": '{"city":"Seoul"}'}}
        choice = {"index": 0, "message": {"role": "assistant", "tool_calls": [used]}, "finish_reason": "tool_calls"}
        answer = {"object": "chat.completion", "model": "m", "choices": [choice], "service_tier": None}
        async with RawServer(answering(plain(msgspec.json.encode(answer)))) as server:
            upstream = adapter("groq/llama3-8b-8192", api_base=f"http://127.0.0.1:{server.port}", api_key=OWN_KEY)
            async with closing(upstream):
                reply = await upstream.send(request(stream=stream, body=wanted))
                raw = await reply.read_all(LIMIT_BYTES)
                await reply.aclose()
            assert "tools" in msgspec.json.decode(server.peers[0].requests[0].body)
        assert reply.status == 200
        assert b'"tool_calls":' not in raw
        assert b'"content":"{' in raw

    @pytest.mark.parametrize("model", ["openai/m", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.0-flash"])
    async def test_a_key_that_is_missing_is_no_fault_of_the_callers(
        self, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        async with RawServer(answering(plain())) as server:
            upstream = adapter(model, api_base=f"http://127.0.0.1:{server.port}")
            async with closing(upstream):
                reply = await upstream.send(request(body=body()))
                await reply.aclose()
            assert (reply.status, server.peers) == (401, [])


class TestItsOwnAnswers:
    """LiteLLM's mock, which needs no network."""

    pytestmark = pytest.mark.anyio

    async def test_plain(self) -> None:
        upstream = adapter("openai/m", mock_response="Hello", api_key="none")
        async with closing(upstream):
            reply = await upstream.send(request(body=body()))
            raw = await reply.read_all(LIMIT_BYTES)
            await reply.aclose()
        answer = msgspec.json.decode(raw)
        assert (answer["object"], answer["choices"][0]["message"]["content"]) == ("chat.completion", "Hello")
        assert answer.keys() == {"id", "object", "created", "model", "choices", "usage"}

    async def test_streamed(self) -> None:
        upstream = adapter("openai/m", mock_response="Hello you", api_key="none")
        async with closing(upstream):
            reply = await upstream.send(request(stream=True, body=body(stream=True)))
            *events, last = await read_stream(reply)
            await reply.aclose()
        judge = StreamJudge(NAME, choices=1, keep_usage=True)
        assert all(judge.admit(event) for event in events)
        assert judge.is_complete
        assert last == DONE
        said = [msgspec.json.decode(event)["choices"][0]["delta"].get("content") or "" for event in events]
        assert "".join(said) == "Hello you"

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("error", "status"),
        [("RateLimitError", 429), ("ContextWindowExceededError", 400), ("InternalServerError", 500)],
    )
    async def test_its_errors_are_answers(self, error: str, status: int, stream: bool) -> None:
        upstream = adapter("openai/m", mock_response=f"litellm.{error}", api_key="none")
        async with closing(upstream):
            reply = await upstream.send(request(stream=stream, body=body(stream=stream)))
            said = msgspec.json.decode(await reply.read_all(LIMIT_BYTES))["error"]["message"]
            await reply.aclose()
        assert reply.status == status
        assert "litellm." not in said
