"""Tokens are counted alike wherever text is cut into them."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.mock.tokens import Passage, count, split

texts = st.text(max_size=60) | st.text("ab 가나, \n.😀_9", max_size=60)


@given(texts)
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(split(text)) == text
    assert all(split(text))


@given(texts, st.integers(0, 80))
def test_a_passage_has_as_many_tokens_as_it_says(text: str, length: int) -> None:
    passage = Passage(split(text), length)
    assert len(list(passage)) == length == count(str(passage))
    assert split(str(passage)) == list(passage)


@given(texts, st.integers(0, 80))
def test_a_passage_begins_with_its_own_text(text: str, length: int) -> None:
    own = split(text)
    assert list(islice(Passage(own, length), len(own))) == own[:length]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("hello, world", ["hello", ",", " world"]),
        ("안녕 세상!", ["안", "녕", " 세", "상", "!"]),
        ("a  b\n", ["a", " ", " b", "\n"]),
        ("GPT4는 snake_case", ["GPT4", "는", " snake_case"]),
    ],
)
def test_tokens_can_be_counted_by_hand(text: str, tokens: list[str]) -> None:
    assert split(text) == tokens
