"""Auditors read masked text, as much as there is room for, and never a part of an identifier."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.audit_bodies import MAX_EVENTS_BYTES, MAX_TOLD_BYTES, Kept, Room
from nexus_gateway.core.errors import MaskingFailed
from nexus_gateway.core.model import Told
from nexus_gateway.core.sse import DONE

from .pii.samples import MASKER, SAMPLES, WORDS, Sample

VALUES = ("kim@example.com", "010-1234-5678", "900101-1234567", "4111 1111 1111 1111")
TEXT = f"안녕 {VALUES[0]}, {VALUES[1]}; 주민번호 {VALUES[2]} 카드 {VALUES[3]}. bye"


def kept(room: Room | None = None, *, says_vectors: bool = False) -> Kept:
    return Kept(room or Room(), MASKER.mask_excerpt, says_vectors=says_vectors)


def events(*choices: dict[str, Any]) -> list[bytes]:
    return [b"data: %b\n\n" % json.dumps({"id": "x", "choices": [choice]}).encode() for choice in choices]


def answer_of(pieces: list[bytes], room: Room | None = None) -> Told:
    bodies = kept(room)
    for piece in pieces:
        bodies.take_piece(piece)
    _, answer = bodies.tell("k")
    assert answer is not None
    return answer


def told(body: bytes) -> Told:
    bodies = kept()
    bodies.take_prompt(body)
    prompt, answer = bodies.tell("k")
    assert answer is None
    assert prompt is not None
    return prompt


@given(before=WORDS, sample=SAMPLES, after=WORDS)
def test_a_prompt_is_told_with_placeholders(before: str, sample: Sample, after: str) -> None:
    text = f"{before} {sample.label}{sample.text}은 {after}"
    body = json.dumps({"metadata": {"a": text}}, ensure_ascii=False).encode()
    prompt = told(body)
    name = f"[{sample.type}_"
    assert (prompt.bytes, prompt.lacks) == (len(body), None)
    assert prompt.text is not None
    assert sample.text not in prompt.text
    assert json.loads(prompt.text)["metadata"]["a"].startswith(f"{before} {sample.label}{name}")


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=40), together=st.integers(1, 5))
def test_an_identifier_that_was_streamed_in_pieces_is_masked_whole(cuts: list[int], together: int) -> None:
    edges = [0, *sorted(cuts), len(TEXT)]
    stream = [
        event
        for start, end in pairwise(edges)
        for event in events(
            {"index": 0, "delta": {"role": "assistant", "content": TEXT[start:end]}, "finish_reason": None},
            {"index": 1, "delta": {"tool_calls": [_call(TEXT[start:end])]}, "logprobs": {"content": [TEXT[start:end]]}},
            {"index": 2, "text": TEXT[start:end]},
        )
    ]
    stream += [*events({"index": 0, "delta": {}, "finish_reason": "stop"}), b"data: %b\n\n" % DONE]
    answer = answer_of([b"".join(stream[at : at + together]) for at in range(0, len(stream), together)])
    assert answer.bytes == sum(map(len, stream))
    assert answer.text is not None
    document = json.loads(answer.text)
    expected = MASKER.mask_text(TEXT, "k").text
    assert not any(value in expected for value in VALUES)
    assert document == {
        "id": "x",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": expected}, "finish_reason": "stop"},
            {"index": 1, "delta": {"tool_calls": [_call(expected)]}},
            {"index": 2, "text": expected},
        ],
    }


def _call(arguments: str) -> dict[str, Any]:
    return {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_token_by_token_an_answer_is_not_told_a_second_time() -> None:
    tokens = [{"token": part, "bytes": list(part.encode())} for part in ("010-", "1234-", "5678")]
    body = json.dumps({"choices": [{"message": {"content": TEXT}, "logprobs": {"content": tokens}}]}).encode()
    bodies = kept()
    bodies.take_answer(body)
    _, answer = bodies.tell("k")
    assert answer is not None
    assert json.loads(answer.text or "") == {"choices": [{"message": {"content": MASKER.mask_text(TEXT, "k").text}}]}


@given(before=st.integers(0, 1200), after=st.integers(0, 1200), value=st.sampled_from(VALUES))
def test_a_long_text_is_cut_beside_an_identifier_not_within(before: int, after: int, value: str) -> None:
    filler = "가 " * ((MAX_TOLD_BYTES - before) // 4)
    prompt = told(f"{filler} 주민번호 {value}, {'x ' * after}".encode())
    assert prompt.text is not None
    shown = prompt.text[len(filler) :]
    assert not _digits_of(value, shown)
    assert prompt.lacks in (None, "rest")
    assert len(prompt.text.encode()) <= MAX_TOLD_BYTES + 40


def _digits_of(value: str, shown: str) -> bool:
    """Whether more of it than its first characters is to be seen."""
    return value[:6] in shown


@given(room_bytes=st.integers(0, 30_000), value=st.sampled_from(VALUES), size=st.integers(1, 3))
def test_where_the_room_ends_in_a_stream_no_half_identifier_is_told(room_bytes: int, value: str, size: int) -> None:
    text = f"{'문장 ' * 20} 주민번호 {value}, " * 4
    stream = events(*({"index": 0, "delta": {"content": text[at : at + size]}} for at in range(0, len(text), size)))
    room = Room(room_bytes)
    answer = answer_of(stream, room)
    assert room.left_bytes == room_bytes
    is_whole = sum(map(len, stream)) <= room_bytes
    assert answer.lacks in ((None,) if is_whole else ("rest", "overload"))
    assert not _digits_of(value, answer.text or "")


def test_a_stream_without_end_is_kept_up_to_a_bound() -> None:
    room = Room()
    bodies = kept(room)
    (event,) = events({"index": 0, "delta": {"content": "word " * 1000}})
    before = room.left_bytes
    for _ in range(2 * MAX_EVENTS_BYTES // len(event)):
        bodies.take_piece(event)
    assert before - room.left_bytes <= MAX_EVENTS_BYTES
    _, answer = bodies.tell("k")
    assert room.left_bytes == before
    assert answer is not None
    assert answer.bytes > MAX_EVENTS_BYTES
    assert (answer.lacks, len(answer.text or "")) == ("rest", MAX_TOLD_BYTES)


def test_images_and_files_are_told_by_their_size() -> None:
    data = "QUJDREVG" * 5000
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data}},
        {"type": "text", "text": VALUES[0]},
    ]
    prompt = told(json.dumps({"content": parts}).replace("/png", "\\/png").encode())
    assert prompt.lacks is None
    shown = json.loads(prompt.text or "")["content"]
    assert shown[0]["image_url"]["url"] == "data:image/png;base64,(40000 bytes)"
    assert shown[1]["input_audio"]["data"] == "(40000 bytes)"
    assert shown[2]["text"].startswith("[EMAIL_")


@pytest.mark.parametrize(
    ("body", "lacks"),
    [
        (b'{"x":"\xff\xfe kim@example.com"}', "binary"),
        (VALUES[0].encode("utf-16"), "binary"),
        (b"", None),
        (b'{"broken', None),
        (b"\x000\x001\x000\x00-\x001", None),
    ],
)
def test_any_bytes_may_be_a_prompt(body: bytes, lacks: str | None) -> None:
    assert told(body).lacks == lacks
    assert (told(body).text is None) == (lacks is not None)


@given(body=st.one_of(st.binary(max_size=80), st.text(max_size=60).map(str.encode)))
def test_any_bytes_may_be_an_answer(body: bytes) -> None:
    bodies = kept()
    bodies.take_answer(body)
    assert bodies.tell("k")[1] is not None
    answer_of([b"data: %b\n\n" % body])


def test_what_cannot_be_masked_is_not_told() -> None:
    def fail(_raw: bytes, _limit: int, _key: str) -> tuple[str, bool]:
        raise MaskingFailed("no")

    bodies = Kept(Room(), fail, says_vectors=False)
    bodies.take_prompt(b"{}")
    bodies.take_answer(b"{}")
    assert bodies.tell("k") == (Told(2, lacks="masking_failed"), Told(2, lacks="masking_failed"))


def test_vectors_are_not_kept() -> None:
    room = Room()
    before = room.left_bytes
    bodies = kept(room, says_vectors=True)
    bodies.take_answer(b'{"data":[{"embedding":[0.1]}]}')
    assert room.left_bytes == before
    assert bodies.tell("k") == (None, Told(30, lacks="vectors"))


def test_without_room_the_record_says_so_and_room_comes_back_once() -> None:
    room = Room(10)
    first, second = kept(room), kept(room)
    first.take_prompt(b"12345678")
    second.take_prompt(b"12345678")
    assert second.tell("k")[0] == Told(8, lacks="overload")
    first.free()
    first.free()
    assert room.left_bytes == 10
    assert first.tell("k")[0] == Told(8, lacks="overload")
