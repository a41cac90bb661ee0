"""What every upstream promises, whatever its kind: each check states a clause of `nexus_gateway.upstreams.base`.

A suite inherits `UpstreamContract` and brings the fixture `kind`, with the names of kinds for parameters. What a check
`shows` of a kind goes into the table of docs/upstreams.md.
"""

import asyncio
from typing import Any, Final

import msgspec
import pytest

from nexus_gateway.config.runtime import MockSpec
from nexus_gateway.core.answers import read_failure
from nexus_gateway.core.errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from nexus_gateway.core.model import Operation

from .calls import (
    CLOCK_S,
    HANGING,
    HEAD_S,
    LIMIT_BYTES,
    NEVER_S,
    SHORT_S,
    STALLING,
    STATES,
    STREAM,
    State,
    all_of,
    begun,
    cancel,
    chat,
    choices,
    finish_reasons,
    joined,
    now_s,
    read_until_cut,
    said,
    streamed,
    whole,
)
from .kinds import FORWARDED, NAME, OWN_KEY, REQUEST_ID, Bench, Kind
from .outcomes import shows

WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

MEANINGS: Final[dict[int, type[UpstreamError]]] = {
    302: UpstreamInvalidResponse,
    400: UpstreamRejected,
    401: UpstreamAuthError,
    403: UpstreamAuthError,
    404: UpstreamRejected,
    408: UpstreamUnavailable,
    413: UpstreamRejected,
    422: UpstreamRejected,
    429: UpstreamRateLimited,
    500: UpstreamUnavailable,
    503: UpstreamUnavailable,
    599: UpstreamUnavailable,
}

in_each_state: Final = pytest.mark.parametrize(
    ("bring", "behaviour"), STATES, ids=[bring.__name__ for bring, _ in STATES]
)


class UpstreamContract:
    pytestmark = pytest.mark.anyio

    # ---- answers

    async def test_is_known_by_its_configured_name(self, kind: Kind) -> None:
        async with kind() as bench:
            assert bench.upstream.name == NAME
            assert bench.upstream.traits.stream_usage

    @shows("plain")
    async def test_a_plain_chat_is_one_document(self, kind: Kind) -> None:
        async with kind() as bench:
            answer = await whole(bench, chat("안녕 hello"))
        assert ("안녕 hello" if bench.echoes else "") in said(answer["choices"][0]["message"])
        assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0

    @shows("verbatim")
    async def test_a_body_arrives_as_it_was_written(self, kind: Kind) -> None:
        body = (
            b'{ "model":"m","messages":[{"role":"user","content":"\\u0068i"}] ,"n":null,"f":1.50,'
            b'"big":123456789012345678901234567890,"extra_body":{"top_k":40}}'
        )
        async with kind() as bench:
            if bench.rewrites:
                pytest.skip("the library writes requests anew")
            reply = await bench.send_bytes(body)
            assert reply.status == 200
            await reply.aclose()
            if bench.seen is not None:
                assert [seen.body for seen in bench.seen()] == [body]

    @shows("stream")
    async def test_a_streamed_chat_says_what_the_plain_one_says(self, kind: Kind) -> None:
        async with kind() as bench:
            plain = await whole(bench, chat("안녕 hello"))
            chunks = await streamed(bench, chat("안녕 hello"))
        if bench.echoes:
            assert joined(chunks) == plain["choices"][0]["message"]["content"]
        assert joined(chunks)
        assert {finish_reasons(chunks)[0], plain["choices"][0]["finish_reason"]} <= {"stop", "length"}
        assert len({chunk["id"] for chunk in chunks}) == 1

    @shows("usage")
    async def test_usage_comes_in_a_stream_that_asks_for_it(self, kind: Kind) -> None:
        async with kind() as bench:
            plain = await whole(bench, chat())
            *chunks, last = await streamed(bench, chat(stream_options={"include_usage": True}))
        assert last["choices"] == []
        assert last["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
        assert last["usage"]["completion_tokens"] > 0
        assert not any(chunk.get("usage") for chunk in chunks)
        if bench.echoes:
            assert last["usage"] == plain["usage"]

    @shows("choices")
    async def test_each_choice_of_several_ends_for_itself(self, kind: Kind) -> None:
        async with kind() as bench:
            plain = await whole(bench, chat(n=3))
            chunks = await streamed(bench, chat(n=3))
        assert sorted(choice["index"] for choice in plain["choices"]) == [0, 1, 2]
        assert sorted(finish_reasons(chunks)) == [0, 1, 2]
        for choice in plain["choices"]:
            text = joined(chunks, choice["index"])
            assert text == choice["message"]["content"] if bench.echoes else text

    @shows("completions")
    async def test_completions_plain_and_streamed(self, kind: Kind) -> None:
        body = {"model": "m", "prompt": "once upon a time"}
        async with kind() as bench:
            plain = await whole(bench, body, Operation.COMPLETIONS)
            chunks = await streamed(bench, body, Operation.COMPLETIONS)
        text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
        assert text == plain["choices"][0]["text"] if bench.echoes else text

    @shows("embeddings")
    async def test_embeddings(self, kind: Kind) -> None:
        async with kind() as bench:
            answer = await whole(bench, {"model": "m", "input": ["one", "둘"]}, Operation.EMBEDDINGS)
        one, other = (item["embedding"] for item in answer["data"])
        assert len(one) == len(other) > 1
        assert all(isinstance(number, float) for number in one)
        assert one != other

    @shows("tools")
    async def test_tool_calls_plain_and_streamed(self, kind: Kind) -> None:
        async with kind() as bench:
            question = chat("What is the weather in Seoul? Use the tool.", tools=[WEATHER])
            plain = await whole(bench, question)
            chunks = await streamed(bench, question)
        (call,) = plain["choices"][0]["message"]["tool_calls"]
        parts = [part for choice in choices(chunks) for part in choice["delta"].get("tool_calls") or ()]
        arguments = "".join(part["function"].get("arguments") or "" for part in parts)
        assert parts[0]["function"]["name"] == call["function"]["name"] == "get_weather"
        assert all(isinstance(msgspec.json.decode(text), dict) for text in (arguments, call["function"]["arguments"]))
        if bench.echoes:
            assert arguments == call["function"]["arguments"]
        assert finish_reasons(chunks)[0] == plain["choices"][0]["finish_reason"] == "tool_calls"

    @shows("plain")
    async def test_a_large_request_and_a_large_answer_pass(self, kind: Kind) -> None:
        text = "word " * 100_000
        async with kind() as bench:
            if not bench.echoes:
                pytest.skip("an engine takes as much as it takes")
            answer = await whole(bench, chat(text))
        assert text in answer["choices"][0]["message"]["content"]

    @shows("errors")
    @pytest.mark.parametrize("status", MEANINGS)
    @pytest.mark.parametrize("body", [chat(), STREAM], ids=["plain", "stream"])
    async def test_any_status_is_returned_with_its_body(self, kind: Kind, status: int, body: dict[str, Any]) -> None:
        async with kind(MockSpec(status=status)) as bench:
            reply = await bench.send(body)
            assert reply.status == status
            body_of_it = await reply.read_all(LIMIT_BYTES)
            await reply.aclose()
        assert (b'"error"' in body_of_it) is (status >= 400)
        failure = read_failure(NAME, status, reply.headers, body_of_it, own_name=True, now_unix_s=0.0)
        assert type(failure) is MEANINGS[status]
        if isinstance(failure, UpstreamRateLimited):
            assert failure.retry_after_s == 1.0

    @shows("errors")
    async def test_a_refused_request_is_answered_not_raised(self, kind: Kind) -> None:
        async with kind() as bench:
            reply = await bench.send({"model": "m", "messages": [] if bench.echoes else "none"})
            body = await reply.read_all(LIMIT_BYTES)
            await reply.aclose()
        failure = read_failure(NAME, reply.status, reply.headers, body, own_name=True, now_unix_s=0.0)
        assert isinstance(failure, UpstreamRejected)
        assert failure.message
        if bench.echoes:
            assert (failure.status, failure.param) == (400, "messages")

    @shows("errors")
    async def test_the_head_holds_what_the_gateway_looks_at(self, kind: Kind) -> None:
        async with kind(MockSpec(status=429)) as bench:
            reply = await bench.send(chat())
            await reply.aclose()
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["retry-after"] == "1"
        assert reply.headers["openai-processing-ms"] == "0"
        assert reply.headers["x-request-id"] == f"mock-{REQUEST_ID}"  # which is how we know that ours went there
        assert all(name == name.lower() for name in reply.headers)

    # ---- time

    @shows("timeout")
    @pytest.mark.parametrize("body", [chat(), STREAM], ids=["plain", "stream"])
    async def test_no_head_by_the_deadline_is_a_timeout(self, kind: Kind, body: dict[str, Any]) -> None:
        async with kind(HANGING) as bench:
            began_s = now_s()
            with pytest.raises(UpstreamTimeout) as raised:
                await bench.send(body, within_s=SHORT_S)
            assert SHORT_S - CLOCK_S <= now_s() - began_s < NEVER_S / 2
            await bench.model.reach(0)
        assert raised.value.upstream == NAME

    @shows("timeout")
    async def test_a_deadline_that_has_passed_is_a_timeout_at_once(self, kind: Kind) -> None:
        async with kind() as bench:
            with pytest.raises(UpstreamTimeout):
                await bench.send(chat(), within_s=-1.0)

    @shows("timeout")
    async def test_a_stream_may_go_on_after_the_deadline_of_its_head(self, kind: Kind) -> None:
        async with kind(MockSpec(tokens=10, chunk_delay_s=HEAD_S / 8)) as bench:
            began_s = now_s()
            await streamed(bench, chat(), within_s=HEAD_S)
            assert now_s() - began_s > HEAD_S

    @shows("timeout")
    async def test_silence_until_the_deadline_of_a_read_is_a_timeout(self, kind: Kind) -> None:
        async with kind(STALLING) as bench:
            reply = await begun(bench)
            began_s = now_s()
            with pytest.raises(UpstreamTimeout):
                await reply.read(began_s + SHORT_S)
            assert SHORT_S - CLOCK_S <= now_s() - began_s < NEVER_S / 2
            await reply.aclose()

    @shows("timeout")
    async def test_what_is_not_complete_by_the_deadline_is_a_timeout(self, kind: Kind) -> None:
        async with kind(STALLING) as bench:
            reply = await bench.send(STREAM, within_s=HEAD_S)
            with pytest.raises(UpstreamTimeout):
                await reply.read_all(LIMIT_BYTES)
            await reply.aclose()

    # ---- giving up

    @shows("cancel")
    @pytest.mark.parametrize("body", [chat(), STREAM], ids=["plain", "stream"])
    async def test_cancelled_while_it_waits_for_the_head(self, kind: Kind, body: dict[str, Any]) -> None:
        async with kind(HANGING) as bench:
            await cancel(bench.send(body), bench)
            await bench.model.reach(0)

    @shows("cancel")
    async def test_cancelled_while_it_reads(self, kind: Kind) -> None:
        async with kind(STALLING) as bench:
            reply = await begun(bench)
            await cancel(reply.read(now_s() + 5), bench)
            await reply.aclose()
            await bench.model.reach(0)

    @shows("cancel")
    async def test_cancelled_while_it_reads_all(self, kind: Kind) -> None:
        async with kind(STALLING) as bench:
            reply = await bench.send(STREAM)
            await cancel(reply.read_all(LIMIT_BYTES), bench)
            await reply.aclose()
            await bench.model.reach(0)

    @shows("cancel")
    @in_each_state
    async def test_closing_frees_the_far_side_in_every_state(
        self, kind: Kind, bring: State, behaviour: MockSpec
    ) -> None:
        async with kind(behaviour) as bench:
            reply = await bring(bench)
            await reply.aclose()
            await bench.model.reach(0)

    @shows("cancel")
    @in_each_state
    async def test_closing_again_does_nothing_in_any_state(self, kind: Kind, bring: State, behaviour: MockSpec) -> None:
        async with kind(behaviour) as bench:
            reply = await bring(bench)
            other = await bench.send(STREAM)
            for _ in range(3):
                await reply.aclose()
            assert await other.read(now_s() + 5), "nobody else is closed by it"
            await other.aclose()

    @shows("cancel")
    @in_each_state
    async def test_the_next_request_finds_the_upstream_as_before(
        self, kind: Kind, bring: State, behaviour: MockSpec
    ) -> None:
        async with kind(behaviour) as bench:
            for _ in range(2):
                await (await bring(bench)).aclose()
                answer = await whole(bench, chat("as before"))
                assert ("as before" if bench.echoes else "") in said(answer["choices"][0]["message"])

    @shows("cancel")
    async def test_closing_the_upstream_cuts_what_is_under_way(self, kind: Kind) -> None:
        async with kind(STALLING) as bench, asyncio.timeout(NEVER_S / 2):
            reply = await begun(bench)
            reading = asyncio.ensure_future(reply.read(now_s() + NEVER_S))
            await asyncio.sleep(0)
            await bench.upstream.aclose()
            with pytest.raises(UpstreamError):
                await reading
            await reply.aclose()

    @shows("cancel")
    async def test_closing_the_upstream_ends_the_wait_for_a_head(self, kind: Kind) -> None:
        async with kind(HANGING) as bench, asyncio.timeout(NEVER_S / 2):
            sending = asyncio.ensure_future(bench.send(chat(), within_s=NEVER_S))
            await bench.model.reach(1)
            await bench.upstream.aclose()
            with pytest.raises(UpstreamError):
                await sending
            with pytest.raises(UpstreamError):
                await bench.send(chat())

    # ---- broken answers

    @shows("broken")
    @pytest.mark.parametrize("events", [0, 1, 3])
    async def test_a_stream_that_breaks_is_truncated_after_what_came(self, kind: Kind, events: int) -> None:
        async with kind(MockSpec(fail_after=events)) as bench:
            reply = await bench.send(STREAM)
            assert len(await read_until_cut(reply)) == events
            await reply.aclose()

    @shows("broken")
    async def test_reading_all_of_a_stream_that_breaks_is_truncated(self, kind: Kind) -> None:
        async with kind(MockSpec(fail_after=2)) as bench:
            reply = await bench.send(STREAM)
            with pytest.raises(UpstreamTruncated) as raised:
                await reply.read_all(LIMIT_BYTES)
            await reply.aclose()
        assert raised.value.upstream == NAME

    @shows("oversized")
    @pytest.mark.parametrize("body", [chat(), STREAM], ids=["plain", "stream"])
    async def test_an_answer_of_just_the_limit_passes_and_one_over_it_does_not(
        self, kind: Kind, body: dict[str, Any]
    ) -> None:
        async with kind() as bench:
            if not bench.echoes:
                pytest.skip("an engine says it in other words the next time")
            first = await bench.send(body)
            size = len(await first.read_all(LIMIT_BYTES))
            second = await bench.send(body)
            assert len(await second.read_all(size)) == size
            third = await bench.send(body)
            with pytest.raises(UpstreamInvalidResponse) as raised:
                await third.read_all(size - 1)
            for reply in (first, second, third):
                await reply.aclose()
        assert raised.value.upstream == NAME

    @shows("oversized")
    async def test_over_the_limit_of_the_gateway_too_and_the_next_is_not(self, kind: Kind) -> None:
        async with kind(limit_bytes=50_000) as bench:
            if not bench.echoes:
                pytest.skip("an engine takes as much as it takes")
            for _ in range(2):
                with pytest.raises(UpstreamInvalidResponse):
                    await all_of(bench, chat("word " * 20_000), 50_000)
                assert await all_of(bench, chat("word"), 50_000)

    @shows("garbage")
    @pytest.mark.parametrize("body", [chat(), STREAM], ids=["plain", "stream"])
    async def test_what_is_not_of_the_protocol_is_refused_and_the_next_answer_is_not(
        self, kind: Kind, body: dict[str, Any]
    ) -> None:
        async with kind() as bench:
            if bench.wire is None:
                pytest.skip(
                    "nothing between it and the gateway can be garbled" if bench.echoes else "an engine is sane"
                )
            for _ in range(2):
                bench.wire.is_garbling = True
                with pytest.raises(UpstreamInvalidResponse) as raised:
                    await bench.send(body)
                bench.wire.is_garbling = False
                assert await all_of(bench, body, LIMIT_BYTES)
        assert raised.value.upstream == NAME

    @shows("stream")
    @pytest.mark.parametrize("cut_bytes", [1, 7, 64])
    async def test_pieces_cut_anywhere_are_the_same_stream(self, kind: Kind, cut_bytes: int) -> None:
        async with kind(cut_bytes=cut_bytes) as bench:
            answer = await whole(bench, chat("한국어 and 😀"))
            chunks = await streamed(bench, chat("한국어 and 😀"))
        assert joined(chunks) == answer["choices"][0]["message"]["content"]

    # ---- each to their own

    @shows("crossed")
    async def test_answers_under_way_at_once_are_never_crossed(self, kind: Kind) -> None:
        async def plain(bench: Bench, tag: str) -> bool:
            answer = await whole(bench, chat(tag), request_id=tag)
            return str(answer["choices"][0]["message"]["content"]).endswith(f" {tag}")

        async def stream(bench: Bench, tag: str) -> bool:
            chunks = await streamed(bench, chat(tag), request_id=tag)
            return joined(chunks).endswith(f" {tag}")

        async def leave(bench: Bench, tag: str) -> bool:
            reply = await bench.send(chat(tag, stream=True), request_id=tag)
            await reply.read(now_s() + 5)
            await reply.aclose()
            return True

        async with kind() as bench:
            if not bench.echoes:
                pytest.skip("an engine does not repeat what it was asked")
            for turn in range(4):
                calls = [(plain, stream, leave)[at % 3](bench, f"tag{turn}x{at}") for at in range(48)]
                assert all(await asyncio.gather(*calls))

    # ---- what may be known

    @shows("private")
    async def test_only_what_is_allowed_travels(self, kind: Kind) -> None:
        secrets = {
            name: f"secret-{name}"
            for name in ("authorization", "x-api-key", "api-key", "cookie", "proxy-authorization")
        }
        passed = {
            "user-agent": "agent/1",
            "openai-beta": "assistants=v2",
            "traceparent": "00-1-2-01",
            FORWARDED: "blue",
        }
        given = {**secrets, **passed, "x-other": "secret-other", "connection": "x-team", "host": "secret.example"}
        headers = [(name.encode(), value.encode()) for name, value in given.items()]
        async with kind() as bench:
            await whole(bench, chat(), headers=headers)
            if bench.seen is None:
                return  # nobody looks, or there is nothing for them to travel on
            (seen,) = bench.seen()
        assert {name: passed[name] for name in bench.travelling}.items() <= seen.headers.items()
        assert seen.headers.get("authorization") == (f"Bearer {OWN_KEY}" if bench.has_key else None)
        assert seen.headers["x-request-id"] == REQUEST_ID
        assert not any("secret" in value for value in seen.headers.values())
        assert seen.query == b""

    @shows("private")
    async def test_bodies_are_never_logged(self, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(0)
        async with kind(MockSpec(fail_after=20)) as bench:
            await whole(bench, chat("swordfish"))
            reply = await bench.send(chat("swordfish " * 30, stream=True))
            assert await read_until_cut(reply)
            await reply.aclose()
        assert "swordfish" not in caplog.text
