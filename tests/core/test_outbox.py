"""Held back or not, a peer gets the same bytes in the same order: only their moment is another."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from nexus_gateway.core.outbox import HELD_BYTES, Outbox, Outgoing

CONNECTIONS: Final = 35
SIZES: Final = (0, 1, 1, 1, 100, HELD_BYTES - 1, HELD_BYTES, HELD_BYTES + 1)


class Turns:
    """As much of a loop as an outbox needs. What is called for while a turn ends belongs to the next one."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], None]] = deque()
        self.failures: list[Exception] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def end(self) -> None:
        for _ in range(len(self.ready)):
            try:
                self.ready.popleft()()
            except Exception as exc:
                self.failures.append(exc)

    def end_all(self) -> None:
        while self.ready:
            self.end()


class Broken(Exception):
    """Raised by a transport that was broken."""


class Line:
    """A transport that keeps what its peer gets. Whoever writes behind the end made a mistake."""

    def __init__(self) -> None:
        self.got: list[Any] = []  # pieces of bytes, and how it ended
        self.unsent_bytes = 0
        self.is_broken = False
        self.when_written: Callable[[Line], None] = lambda line: None
        self._closing = False

    @property
    def bytes_got(self) -> bytes:
        return b"".join(piece for piece in self.got if isinstance(piece, bytes))

    @property
    def end(self) -> list[str]:
        return [piece for piece in self.got if isinstance(piece, str)]

    def write(self, data: bytes) -> None:
        assert not self.end, "nothing comes behind the end"
        assert data, "an empty write is for nobody"
        if self.is_broken:
            raise Broken
        self.got.append(data)
        self.when_written(self)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        for piece in filter(None, () if self._closing else pieces):
            self.write(piece)

    def write_eof(self) -> None:
        if not self._closing:
            self.got.append("eof")

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def lose(self) -> None:
        """The other side or the network ends it; nobody calls for that."""
        self._end("lost")

    def _end(self, how: str) -> None:
        if not self._closing:
            self._closing = True
            self.got.append(how)

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.got.append(f"limits {high} {low}")

    def pause_reading(self) -> None:
        self.got.append("paused")

    def resume_reading(self) -> None:
        self.got.append("resumed")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("::1", 5)}.get(name, default)


def world(connections: int) -> tuple[Turns, list[Line], list[Outgoing]]:
    turns = Turns()
    outbox = Outbox(turns.call_soon)
    lines = [Line() for _ in range(connections)]
    return turns, lines, [Outgoing(line, outbox) for line in lines]


steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["write"] * 6 + ["writelines", "writelines", "turn", "eof", "close", "abort", "lose"]),
        st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
    ),
    max_size=60,
)


@given(steps=steps)
@example(steps=[(0, "write", [1]), (0, "writelines", [1, 1]), (0, "write", [1]), (0, "eof", [1])])
@example(steps=[(0, "write", [1]), (0, "lose", [1]), (0, "write", [1]), (0, "turn", [1]), (0, "close", [1])])
def test_a_peer_gets_what_it_would_get_without_an_outbox(steps: list[tuple[int, str, list[int]]]) -> None:
    turns, lines, outgoing = world(3)
    plain = [Line() for _ in lines]
    held_when_cut: dict[int, int] = {}
    for number, (at, what, sizes) in enumerate(steps):
        written = [(b"<%d>" % number * size)[:size] for size in sizes]
        if what == "turn":
            turns.end()
            assert not any(one.is_holding for one in outgoing)
        elif what in ("write", "writelines", "eof") and "eof" in plain[at].end:
            continue  # nobody may
        elif what == "write":
            outgoing[at].write(written[0])
            plain[at].writelines(written[:1])  # which is content with nothing, and with an end
        elif what == "writelines":
            outgoing[at].writelines(written)
            plain[at].writelines(written)
        else:
            call = {"eof": "write_eof", "close": "close", "abort": "abort", "lose": "lose"}[what]
            if what in ("abort", "lose") and not plain[at].is_closing():
                held_when_cut[at] = outgoing[at].get_write_buffer_size()
                event(f"{what} {'with' if held_when_cut[at] else 'without'} something held")
            getattr(lines[at] if what == "lose" else outgoing[at], call)()
            getattr(plain[at], call)()
        assert all(one.get_write_buffer_size() <= HELD_BYTES for one in outgoing)
    turns.end_all()
    assert not turns.failures
    for at, (line, other) in enumerate(zip(lines, plain, strict=True)):
        missing_bytes = held_when_cut.get(at, 0)  # what a cut may take away, and nothing else does
        assert line.bytes_got == other.bytes_got[: len(other.bytes_got) - missing_bytes]
        assert line.end == other.end


@given(writers=st.lists(st.integers(0, CONNECTIONS - 1), min_size=1, max_size=100))
def test_a_turn_ends_once(writers: list[int]) -> None:
    turns, lines, outgoing = world(CONNECTIONS)
    for at in writers:
        outgoing[at].write(b"x")
    assert len(turns.ready) == 1
    turns.end()
    assert not turns.ready
    assert [line.got for line in lines] == [
        [b"x" * writers.count(at)] if at in writers else [] for at in range(CONNECTIONS)
    ]


def test_what_is_written_in_a_turn_goes_out_together_and_in_the_order_of_the_first_writes() -> None:
    turns, lines, outgoing = world(3)
    order: list[Line] = []
    for line in lines:
        line.when_written = order.append
    for at, piece in ((1, b"a"), (0, b"b"), (1, b"c"), (2, b"d"), (0, b"e")):
        outgoing[at].write(piece)
    assert [line.got for line in lines] == [[], [], []]
    assert [one.is_holding for one in outgoing] == [True] * 3
    assert len(turns.ready) == 1
    turns.end()
    assert [line.got for line in lines] == [[b"be"], [b"ac"], [b"d"]]
    assert order == [lines[1], lines[0], lines[2]]
    assert not turns.ready


def test_who_is_woken_alone_has_it_sent_in_the_same_turn_and_all_others_at_the_end() -> None:
    turns = Turns()
    outbox = Outbox(turns.call_soon)
    lines = [Line(), Line()]
    woken, other = (Outgoing(line, outbox) for line in lines)
    turns.ready.append(lambda: woken.write(b"woken"))
    outbox.expect()
    turns.ready.append(lambda: other.write(b"behind"))
    turns.end()
    assert [line.got for line in lines] == [[b"woken"], []]
    turns.end()
    assert [line.got for line in lines] == [[b"woken"], [b"behind"]]
    assert not turns.ready


@given(writes=st.lists(st.booleans(), min_size=2, max_size=9), late=st.booleans())
def test_those_who_are_woken_together_have_it_sent_together(writes: list[bool], late: bool) -> None:
    turns = Turns()
    outbox = Outbox(turns.call_soon)
    lines = [Line() for _ in writes]
    for line, does_write in zip(lines, writes, strict=True):
        one = Outgoing(line, outbox)
        turns.ready.append(lambda one=one, does_write=does_write: one.write(b"x") if does_write else None)  # type: ignore[misc]
        outbox.expect()
    if late:  # one more is woken while the turn is under way
        turns.ready.appendleft(outbox.expect)
    turns.end()
    assert not any(line.got for line in lines)
    turns.end()
    assert [bool(line.got) for line in lines] == writes
    turns.end_all()
    assert [len(line.got) for line in lines] == [int(does_write) for does_write in writes]


@pytest.mark.parametrize("first", [b"", b"first"])
def test_a_large_write_goes_at_once_behind_what_is_held(first: bytes) -> None:
    turns, lines, outgoing = world(1)
    outgoing[0].write(first)
    outgoing[0].write(b"x" * (HELD_BYTES + 1))
    assert lines[0].got == [first + b"x" * (HELD_BYTES + 1)]
    outgoing[0].write(b"next")
    assert outgoing[0].is_holding
    turns.end_all()
    assert lines[0].got[1:] == [b"next"]


@given(
    broken=st.sets(st.integers(0, CONNECTIONS - 2)),
    unsent=st.lists(st.integers(0, 9), min_size=1, max_size=CONNECTIONS - 1),
)
def test_a_transport_that_fails_is_told_to_the_loop_and_holds_up_nobody(broken: set[int], unsent: list[int]) -> None:
    turns, lines, outgoing = world(len(unsent))
    for at, (line, one) in enumerate(zip(lines, outgoing, strict=True)):
        line.is_broken = at in broken
        one.write(b"%d" % at)
    turns.end_all()
    failing = [at for at in range(len(lines)) if at in broken]
    assert [type(failure) for failure in turns.failures] == [Broken] * len(failing)
    assert all(line.got == [b"%d" % at] for at, line in enumerate(lines) if at not in broken)
    assert not any(one.is_holding for one in outgoing), "nothing is sent twice"


def test_what_is_held_counts_as_unsent() -> None:
    turns, lines, outgoing = world(1)
    lines[0].unsent_bytes = 7
    outgoing[0].write(b"abc")
    assert outgoing[0].get_write_buffer_size() == 10
    turns.end()
    assert outgoing[0].get_write_buffer_size() == 7
    outgoing[0].write(b"abc")
    outgoing[0].abort()
    assert outgoing[0].get_write_buffer_size() == 7


def test_the_rest_is_the_transports_own() -> None:
    _, lines, outgoing = world(1)
    outgoing[0].set_write_buffer_limits(high=5, low=3)
    outgoing[0].pause_reading()
    outgoing[0].resume_reading()
    assert lines[0].got == ["limits 5 3", "paused", "resumed"]
    assert outgoing[0].get_extra_info("peername") == ("::1", 5)
    assert outgoing[0].get_extra_info("none", 4) == 4
    assert not outgoing[0].is_closing()
    lines[0].lose()
    assert outgoing[0].is_closing()
