"""Embeddings depend on the text alone, and say the same in both encodings."""

import base64
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from nexus_gateway.core.model import Operation

from .asking import plain

inputs = st.lists(st.text(max_size=10), min_size=1, max_size=4) | st.lists(
    st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4
)
dimensions = st.integers(1, 200)


def vectors(given: Any, size: int | None = None) -> list[Any]:
    """The embedding of each input, in its order."""
    body = {"model": "m", "input": given, "dimensions": size}
    answer = CreateEmbeddingResponse.model_validate_json(plain(Operation.EMBEDDINGS, body))
    assert answer.model == "m"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


@given(inputs, dimensions)
def test_every_vector_has_length_one_and_the_size_asked_for(texts: list[Any], size: int) -> None:
    for vector in vectors(texts, size):
        assert len(vector) == size
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


@given(inputs, dimensions)
def test_both_encodings_hold_the_same_numbers(texts: list[Any], size: int) -> None:
    body = {"model": "m", "input": texts, "dimensions": size, "encoding_format": "base64"}
    packed = [item["embedding"] for item in msgspec.json.decode(plain(Operation.EMBEDDINGS, body))["data"]]
    assert [list(struct.unpack(f"<{size}f", base64.b64decode(one))) for one in packed] == vectors(texts, size)


@given(inputs)
def test_a_batch_holds_what_each_would_have_alone(texts: list[Any]) -> None:
    assert vectors(texts) == [vectors(text if isinstance(text, str) else [text])[0] for text in texts]


@given(inputs)
def test_other_texts_point_elsewhere(texts: list[Any]) -> None:
    found = vectors(texts)
    assert all((one == other) == (texts[a] == texts[b]) for a, one in enumerate(found) for b, other in enumerate(found))


def test_one_list_of_numbers_is_one_text() -> None:
    assert vectors([1, 2, 3]) == vectors([[1, 2, 3]])
    assert vectors([1, 2, 3]) not in (vectors("1 2 3"), vectors("[1,2,3]"))
