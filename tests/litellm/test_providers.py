"""Providers with an API of their own (here Anthropic's): what they are asked, and what becomes of their answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import pytest

from nexus_gateway.core.answers import StreamJudge, read_answer, read_failure
from nexus_gateway.core.errors import (
    UpstreamConnectError,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from nexus_gateway.core.model import Operation, Usage
from nexus_gateway.core.sse import DONE
from nexus_gateway.upstreams.base import Reply
from nexus_gateway.upstreams.litellm import LiteLLMUpstream
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, Script, answering, chunk, plain
from tests.upstreams.calls import LIMIT_BYTES, now_s, read_stream, read_until_cut

from .kinds import adapter, request

pytestmark = pytest.mark.anyio

KEY: Final = "key-of-the-upstream"
MODEL: Final = "anthropic/claude-sonnet-4-5"
TOOL_USE: Final = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
ANSWER: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello"}, TOOL_USE],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 5},
}
USAGE: Final = Usage(3, 5)
EVENTS: Final[list[dict[str, Any]]] = [
    {"type": "message_start", "message": {**ANSWER, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {**TOOL_USE, "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]
TOOLS: Final = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def body(**members: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **members})


STREAM: Final = body(stream=True, tools=TOOLS, stream_options={"include_usage": True})


def streaming(events: list[dict[str, Any]], ending: bytes = LAST_CHUNK) -> bytes:
    sent = (b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event)) for event in events)
    return STREAM_HEAD + b"".join(map(chunk, sent)) + ending


@asynccontextmanager
async def claude(script: Script, **spec: Any) -> AsyncIterator[tuple[RawServer, LiteLLMUpstream]]:
    """At the end no connection may be left open."""
    async with RawServer(script) as server:
        address = f"http://127.0.0.1:{server.port}"
        upstream = adapter(MODEL, **{"api_base": address, "api_key": KEY, **spec})
        try:
            yield server, upstream
        finally:
            await upstream.aclose()
        async with asyncio.timeout(2):
            await server.all_closed()


async def ask(upstream: LiteLLMUpstream, asked: bytes = body(), **call: Any) -> Any:
    reply = await upstream.send(request(body=asked, **call))
    try:
        return reply.status, msgspec.json.decode(await reply.read_all(LIMIT_BYTES))
    finally:
        await reply.aclose()


async def read_patiently(reply: Reply, each_s: float) -> None:
    """Until the end, or until nothing comes for that long."""
    while await reply.read(now_s() + each_s):
        pass


class TestAnswers:
    async def test_a_plain_one_is_openais_and_nothing_else(self) -> None:
        async with claude(answering(plain(msgspec.json.encode(ANSWER)))) as (server, upstream):
            reply = await upstream.send(request(body=body(tools=TOOLS)))
            raw = await reply.read_all(LIMIT_BYTES)
            await reply.aclose()
            (sent,) = server.peers[0].requests
        assert sent.headers["x-api-key"] == KEY
        assert sent.headers["user-agent"].startswith("nexus-gateway/")
        assert sent.headers["x-request-id"] == "req-1"
        answer = msgspec.json.decode(raw)
        (choice,) = answer["choices"]
        assert answer["object"] == "chat.completion"
        assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello", "tool_calls")
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
        assert read_answer(Operation.CHAT, raw, "east") == USAGE
        assert answer.keys() == {"id", "object", "created", "model", "choices", "usage"}
        assert choice.keys() == {"index", "message", "finish_reason"}
        assert choice["message"].keys() == {"role", "content", "tool_calls"}
        assert answer["usage"].keys() <= {
            *("prompt_tokens", "completion_tokens", "total_tokens"),
            *("prompt_tokens_details", "completion_tokens_details"),
        }

    async def test_a_stream_says_the_same_in_chunks_and_then_what_it_cost(self) -> None:
        async with claude(answering(streaming(EVENTS))) as (_, upstream):
            reply = await upstream.send(request(stream=True, body=STREAM))
            *events, last = await read_stream(reply)
            await reply.aclose()
        assert last == DONE
        judge = StreamJudge("east", choices=1, keep_usage=True)
        assert all(judge.admit(event) for event in events)
        assert judge.is_complete
        assert judge.usage == USAGE
        chunks = [msgspec.json.decode(event) for event in events]
        assert {(c["id"], c["object"], c["model"]) for c in chunks} == {
            (chunks[0]["id"], "chat.completion.chunk", "claude-sonnet-4-5")
        }
        deltas = [choice["delta"] for c in chunks for choice in c["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == "Hello"
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
        assert "".join(call.get("arguments") or "" for call in calls) == '{"a": 1}'
        assert chunks[-1]["choices"] == []
        assert all(c.keys() <= {"id", "object", "created", "model", "choices", "usage"} for c in chunks)
        assert all(delta.keys() <= {"role", "content", "tool_calls"} for delta in deltas)

    async def test_usage_is_told_to_who_asks_for_it(self) -> None:
        async with claude(answering(streaming(EVENTS))) as (_, upstream):
            reply = await upstream.send(request(stream=True, body=body(stream=True)))
            events = await read_stream(reply)
            await reply.aclose()
        assert not any(b"usage" in event for event in events)

    async def test_text_completions_are_put_as_chats(self) -> None:
        answer = {**ANSWER, "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
        prompt = msgspec.json.encode({"model": "m", "prompt": "hi"})
        async with claude(answering(plain(msgspec.json.encode(answer)))) as (_, upstream):
            reply = await upstream.send(msgspec.structs.replace(request(body=prompt), operation=Operation.COMPLETIONS))
            answered = msgspec.json.decode(await reply.read_all(LIMIT_BYTES))
            await reply.aclose()
        assert (answered["object"], answered["choices"][0]["text"]) == ("text_completion", "Hello")


class TestErrors:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_they_are_the_providers_own(self, stream: bool) -> None:
        error = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}
        answer = plain(msgspec.json.encode(error), b"retry-after: 7", b"x-request-id: theirs", status=429)
        async with claude(answering(answer)) as (server, upstream):
            reply = await upstream.send(request(stream=stream, body=body(stream=stream)))
            said = await reply.read_all(LIMIT_BYTES)
            await reply.aclose()
            assert sum(len(peer.requests) for peer in server.peers) == 1, "asked once"
        assert (reply.status, msgspec.json.decode(said)) == (429, error)
        assert reply.headers["x-request-id"] == "theirs"
        failure = read_failure("east", 429, reply.headers, said, own_name=True, now_unix_s=0.0)
        assert isinstance(failure, UpstreamRateLimited)
        assert failure.retry_after_s == 7

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_connection_that_ends_is_not_tried_again(self, stream: bool) -> None:
        async def hang_up(peer: Peer) -> None:
            await peer.receive()

        async with claude(hang_up) as (server, upstream):
            with pytest.raises(UpstreamConnectError):
                await upstream.send(request(stream=stream, body=body(stream=stream)))
            assert len(server.peers) == 1

    @pytest.mark.parametrize("stream", [False, True])
    async def test_redirects_are_not_followed(self, stream: bool) -> None:
        async with RawServer(answering(plain())) as elsewhere:
            location = b"location: http://127.0.0.1:%d/v1/messages" % elsewhere.port
            async with claude(answering(plain(b"", location, status=307))) as (_, upstream):
                reply = await upstream.send(request(stream=stream, body=body(stream=stream)))
                await reply.aclose()
            assert reply.status == 307
            assert not elsewhere.peers

    @pytest.mark.parametrize(
        "answer",
        [
            plain(b"<html>"),
            plain(b"[]"),
            plain(b"\x1f\x8b", b"content-encoding: gzip"),
            b"SSH-2.0-OpenSSH\r\n\r\n",
        ],
    )
    async def test_garbage_is_refused(self, answer: bytes) -> None:
        async with claude(answering(answer)) as (_, upstream):
            with pytest.raises(UpstreamInvalidResponse):
                await ask(upstream)

    async def test_members_that_it_would_not_understand_are_refused(self) -> None:
        async with claude(answering(plain())) as (server, upstream):
            status, answer = await ask(upstream, body(guided_json={}))
            assert not server.peers
        assert (status, answer["error"]["param"]) == (400, "guided_json")

    async def test_so_are_those_that_the_library_will_not_put_to_it(self) -> None:
        async with claude(answering(plain())) as (server, upstream):
            status, answer = await ask(upstream, body(logit_bias={"1": 2}))
            assert not server.peers
        assert status == 400
        assert "logit_bias" in answer["error"]["message"]
        assert "litellm" not in answer["error"]["message"].lower()

    @pytest.mark.parametrize("messages", [[5], [{"role": "user", "content": 5}], [{"role": "tool", "content": [[]]}]])
    async def test_a_request_that_cannot_be_put_is_the_callers(self, messages: list[Any]) -> None:
        async with claude(answering(plain())) as (server, upstream):
            status, _ = await ask(upstream, msgspec.json.encode({"model": "m", "messages": messages}))
            assert not server.peers
        assert status == 400


class TestBrokenStreams:
    @pytest.mark.parametrize("ending", [b"", LAST_CHUNK], ids=["cut", "ended early"])
    async def test_are_not_ended_by_the_library(self, ending: bytes) -> None:
        async with claude(answering(streaming(EVENTS[:4], ending), plain())) as (server, upstream):
            reply = await upstream.send(request(stream=True, body=STREAM))
            if not ending:
                await server.peers[0].received.wait()
                server.peers[0].close()
            events = await read_until_cut(reply)
            await reply.aclose()
        assert not any(b'"stop"' in event or event == DONE for event in events)

    async def test_an_error_inside_is_one(self) -> None:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        async with claude(answering(streaming([*EVENTS[:4], error]))) as (_, upstream):
            reply = await upstream.send(request(stream=True, body=STREAM))
            with pytest.raises(UpstreamError):
                await read_stream(reply)
            await reply.aclose()

    async def test_a_reader_who_leaves_closes_the_connection(self) -> None:
        async def stall(peer: Peer) -> None:
            await peer.receive()
            await peer.send(streaming(EVENTS[:4], b""))
            await peer.closed.wait()

        async with claude(stall) as (server, upstream):
            reply = await upstream.send(request(stream=True, body=STREAM))
            with pytest.raises(UpstreamTimeout):
                await read_patiently(reply, 0.1)
            await reply.aclose()
            async with asyncio.timeout(2):
                await server.peers[0].closed.wait()

    async def test_a_reader_that_stops_stops_the_provider(self) -> None:
        async def flood(peer: Peer) -> None:
            await peer.receive()
            await peer.send(streaming(EVENTS[:2], b""))
            text = {**EVENTS[2], "delta": {"type": "text_delta", "text": "x" * 50_000}}
            piece = chunk(b"event: content_block_delta\ndata: %b\n\n" % msgspec.json.encode(text))
            while True:
                await peer.send(piece)
                await asyncio.sleep(0)

        async with claude(flood) as (server, upstream):
            reply = await upstream.send(request(stream=True, body=STREAM))
            assert await reply.read(now_s() + 2)
            (peer,) = server.peers
            taken = -1
            while peer.accepted_bytes > taken:  # until it takes no more
                taken = peer.accepted_bytes
                await asyncio.sleep(0.1)
            assert taken < 64 << 20
            await reply.aclose()

    async def test_a_caller_who_leaves_before_the_head_closes_it_too(self) -> None:
        async def hang(peer: Peer) -> None:
            await peer.receive()
            await peer.closed.wait()

        async with claude(hang) as (server, upstream):
            sending = asyncio.ensure_future(upstream.send(request(stream=True, body=STREAM)))
            peer = await server.peer(0)
            await peer.received.wait()
            sending.cancel()
            await asyncio.wait({sending})
            assert sending.cancelled()
            async with asyncio.timeout(2):
                await peer.closed.wait()
