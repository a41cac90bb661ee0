"""Which models a caller may name, and until when it may call."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.access import CallerPolicy, ModelList

LETTERS = st.text("ab/", max_size=6)
PATTERNS = st.text("ab/*", min_size=1, max_size=6)


@given(words=st.lists(PATTERNS, max_size=4), model=LETTERS)
def test_a_star_stands_for_any_text(words: list[str], model: str) -> None:
    expected = any(re.fullmatch(".*".join(map(re.escape, word.split("*"))), model, re.DOTALL) for word in words)
    assert ModelList(words).allows(model) is expected


@pytest.mark.parametrize("model", ["chat.1", "CHAT-1", "xchat-1", "chat-"])
def test_nothing_but_the_star_is_special(model: str) -> None:
    assert ModelList(["chat-1", "[c]hat-2", "chat?3", "cha."]).allows(model) is False


def test_a_long_name_takes_no_long_time() -> None:
    hostile = ModelList(["*a*b" * 8 + "*x*"])
    began_s = time.perf_counter()
    assert not hostile.allows("ab" * 500_000)
    assert time.perf_counter() - began_s < 0.5


def test_equal_lists_are_equal() -> None:
    assert ModelList(["a", "b*", "a"]) == ModelList(["a", "b*"])
    assert len({ModelList(["a"]), ModelList(["a"]), ModelList(["b"])}) == 2
    assert "b*" in repr(ModelList(["b*"]))


@given(expires_at=st.none() | st.floats(0, 100), disabled=st.booleans(), now=st.floats(0, 100))
def test_a_policy_admits_until_it_expires(expires_at: float | None, disabled: bool, now: float) -> None:
    admits = CallerPolicy(1, expires_at=expires_at, disabled=disabled).admits(now)
    assert admits is (not disabled and (expires_at is None or now < expires_at))
