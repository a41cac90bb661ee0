"""The log: one JSON object per line, or one line for people, whatever stands in it and whoever says it."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.observe.console import for_people
from nexus_gateway.observe.lines import LineWriter
from nexus_gateway.observe.logging import LineHandler, configure, release

ANYTHING = st.text(st.characters(codec=None), max_size=40)  # half characters too
VALUES = st.recursive(
    ANYTHING | st.integers() | st.floats() | st.none() | st.binary(max_size=5) | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANYTHING | st.integers(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.text("abcdef_", min_size=8, max_size=12)  # none that a log record has already


class Pipe:
    """A writer without its thread, and what it wrote."""

    def __init__(self, present: Callable[[bytes], bytes] | None = None) -> None:
        self._out, self.into = os.pipe()
        self.writer = LineWriter(self.into, present)

    def close(self) -> bytes:
        os.close(self.into)
        with os.fdopen(self._out, "rb") as out:
            return out.read()


def written(record: logging.LogRecord, present: Callable[[bytes], bytes] | None = None) -> bytes:
    pipe = Pipe(present)
    LineHandler(pipe.writer, "debug").handle(record)
    return pipe.close()


def record_of(message: Any, *arguments: Any, level: int = logging.INFO, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord("nexus_gateway.some", level, __file__, 1, message, arguments, more.pop("exc_info", None))
    record.__dict__.update(more)
    return record


@given(message=ANYTHING, argument=VALUES, more=st.dictionaries(NAMES, VALUES, max_size=3))
def test_every_record_is_one_json_object_on_one_line(message: str, argument: Any, more: dict[str, Any]) -> None:
    for record in (record_of(message, **more), record_of("said %s", argument, **more)):
        line = written(record)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert b"\r" not in line
        fields = json.loads(line)
        assert {"event", "level", "logger", "timestamp", *more} == set(fields)


@given(message=ANYTHING, more=st.dictionaries(NAMES, VALUES, max_size=3))
def test_a_line_for_people_does_nothing_to_their_terminal(message: str, more: dict[str, Any]) -> None:
    line = written(record_of(message, **more), for_people)
    assert line.endswith(b"\n")
    assert line[:-1].decode().isprintable()


def crash(text: str) -> Any:
    try:
        raise ValueError(text)
    except ValueError as exc:
        return type(exc), exc, exc.__traceback__


def test_a_stack_stays_on_its_line_and_people_see_it_below() -> None:
    record = record_of("request_crashed", exc_info=crash("a\n\x1b[31mb"), level=logging.ERROR)
    (line,) = written(record).splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: a\n\x1b[31mb")
    shown = written(record, for_people).decode().splitlines()
    assert "request_crashed" in shown[0]
    assert shown[-2:] == ["  ValueError: a", "  \\x1b[31mb"]


@pytest.mark.parametrize(("message", "arguments"), [("%d", ("text",)), ("%s %s", (1,)), ("%q", (1,)), ("%(x)s", ({},))])
def test_arguments_that_do_not_fit_their_message_are_a_line_all_the_same(message: str, arguments: Any) -> None:
    assert json.loads(written(record_of(message, *arguments)))["event"] == message


@contextmanager
def logging_to_a_pipe(level: str) -> Iterator[list[Any]]:
    """The log of this process; what it said stands in the list afterwards."""
    said: list[Any] = []
    pipe = Pipe()
    handler = configure(pipe.writer, level)
    try:
        yield said
    finally:
        release(handler)
        said += [json.loads(line) for line in pipe.close().splitlines()]


def test_the_server_the_loop_and_libraries_speak_in_the_same_form() -> None:
    with logging_to_a_pipe("info") as said:
        for name in ("uvicorn.error", "asyncio", "some.library"):
            logging.getLogger(name).warning("no form of its own", extra={"color_message": "\x1b[31m"})
    assert [(line["logger"], line["event"]) for line in said] == [
        ("uvicorn.error", "no form of its own"),
        ("asyncio", "no form of its own"),
        ("some.library", "no form of its own"),
    ]
    assert not any("color_message" in line for line in said)


def test_the_level_holds_for_all_but_what_operators_do() -> None:
    with logging_to_a_pipe("error") as said:
        for name in ("nexus_gateway.some", "uvicorn.error", "asyncio", "nexus_gateway.edge.admin"):
            logging.getLogger(name).warning("warned")
            logging.getLogger(name).error("failed")
    assert [(line["logger"], line["event"]) for line in said] == [
        ("nexus_gateway.some", "failed"),
        ("uvicorn.error", "failed"),
        ("asyncio", "failed"),
        ("nexus_gateway.edge.admin", "warned"),
        ("nexus_gateway.edge.admin", "failed"),
    ]


def test_lines_are_not_lost_before_the_writer_starts_nor_after_it_ends() -> None:
    pipe = Pipe()
    pipe.writer.put(1, lambda: b"before\n")
    pipe.writer.start()
    pipe.writer.put(1, lambda: b"while\n")
    pipe.writer.close()
    pipe.writer.put(1, lambda: b"after\n")
    assert pipe.close() == b"before\nwhile\nafter\n"
    assert not pipe.writer.dropped


def test_nobody_waits_for_a_reader_who_does_not_read() -> None:
    pipe = Pipe()
    os.set_blocking(pipe.into, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe.into, b"x" * 4096)
    os.set_blocking(pipe.into, True)
    pipe.writer.put(1, lambda: b"no room\n")
    assert pipe.writer.dropped == 1
    assert b"no room" not in pipe.close()
