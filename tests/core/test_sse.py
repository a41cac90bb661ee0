"""Events come out alike, however the stream was cut and in whatever dialect it was written."""

import json
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.sse import MAX_EVENT_BYTES, EventSplitter, EventTooLong

documents = st.dictionaries(st.text(max_size=5), st.text(max_size=12) | st.integers(), max_size=3)
noise = st.sampled_from(["", ": keep-alive\n\n", "event: message\n", "id: 7\n", "retry: 10\n\n", ":\n", "\n"])
cuts = st.lists(st.integers(0, 400), max_size=12)


def write(events: list[dict[str, object]], noises: list[str], end: str, space: str, bom: bool) -> bytes:
    parts = []
    for number, event in enumerate(events):
        parts.append(noises[number % len(noises)] if noises else "")
        parts.append(f"data:{space}{json.dumps(event, ensure_ascii=False)}\n\n")
    text = "".join(parts).encode().replace(b"\n", end.encode())
    return (b"\xef\xbb\xbf" if bom else b"") + text


def read(stream: bytes, at: list[int]) -> list[bytes]:
    splitter = EventSplitter()
    edges = [0, *sorted(min(cut, len(stream)) for cut in at), len(stream)]
    found = [data for a, b in pairwise(edges) if b > a for data in splitter.feed(stream[a:b])]
    return found + splitter.finish()


@given(
    events=st.lists(documents, max_size=6),
    noises=st.lists(noise, max_size=3),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    space=st.sampled_from(["", " "]),
    bom=st.booleans(),
    at=cuts,
)
def test_every_dialect_and_every_cut_gives_the_same_events(
    events: list[dict[str, object]], noises: list[str], end: str, space: str, bom: bool, at: list[int]
) -> None:
    found = read(write(events, noises, end, space, bom), at)
    assert [json.loads(data) for data in found] == events
    assert not any(b"\n" in data or b"\r" in data for data in found)


@given(st.binary(max_size=200), cuts)
def test_any_bytes_cut_anywhere_give_what_the_whole_gives(stream: bytes, at: list[int]) -> None:
    assert read(stream, at) == read(stream, [])


def test_data_over_several_lines_is_one_event_in_one_line() -> None:
    assert read(b'data: {"a":\ndata: 1}\n\n', []) == [b'{"a": 1}']


@pytest.mark.parametrize(
    "stream", [b"data:\n\n", b"data: \n\n", b"\n\n\n", b": only a comment\n\n", b"event: ping\n\n"]
)
def test_what_holds_no_data_is_no_event(stream: bytes) -> None:
    assert read(stream, []) == []
    assert read(b"data: 1\n\n" + stream, [9]) == [b"1"]


lines = st.sampled_from(
    [b"data: 1", b"data: ", b"data:", b"data: [DONE]", b"data", b": x", b"event: y", b"data: 2\r", b""]
)


@given(st.lists(st.lists(lines, min_size=1, max_size=3).map(b"\n".join), max_size=6))
def test_pieces_that_end_where_events_do_give_what_the_whole_gives(blocks: list[bytes]) -> None:
    pieces = [block + b"\n\n" for block in blocks]
    assert read(b"".join(pieces), list(accumulate(map(len, pieces)))) == read(b"".join(pieces), [])


def test_an_end_without_an_empty_line_is_still_an_event() -> None:
    assert read(b"data: [DONE]", []) == [b"[DONE]"]
    assert read(b"data: 1\n\ndata: [DONE]\n", []) == [b"1", b"[DONE]"]


def test_an_event_over_the_limit_is_refused_before_it_is_whole() -> None:
    splitter = EventSplitter()
    taken = 0
    while taken + 65536 <= MAX_EVENT_BYTES:
        assert splitter.feed(b"x" * 65536) == []
        taken += 65536
    with pytest.raises(EventTooLong):
        splitter.feed(b"x" * 65537)
