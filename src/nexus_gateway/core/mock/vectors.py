"""The mock model's embeddings: a text's direction is drawn from its digest, so that equal texts are near and no others.

For:      answers that a vector store can hold and a test can compare.
Touches:  nothing.
"""

import base64
import math
import struct
from hashlib import shake_256
from typing import Any, Final

import msgspec

from .requests import EMBEDDING, BadRequest, batch, read
from .tokens import count

DIMENSIONS: Final = 64
MAX_VALUES: Final = 1 << 20  # texts times dimensions: what one answer may cost

Vector = tuple[float, ...]


def embed(body: bytes) -> bytes:
    """The body of the answer. Raises BadRequest."""
    request = read(body, EMBEDDING)
    texts = batch(request.input, "input")
    dimensions = request.dimensions or DIMENSIONS
    if len(texts) * dimensions > MAX_VALUES:
        raise BadRequest(f"'dimensions' times the number of inputs must not be over {MAX_VALUES}.", "dimensions")
    write = _in_base64 if request.encoding_format == "base64" else _as_numbers
    vectors = [
        {"object": "embedding", "index": index, "embedding": write(direction(text, dimensions))}
        for index, text in enumerate(texts)
    ]
    tokens = sum(count(text) if isinstance(text, str) else len(text) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": vectors, "model": request.model, "usage": usage})


def direction(text: str | list[int], dimensions: int) -> Vector:
    """A vector of length 1. Its values are 32-bit floats, so that both encodings say the same."""
    seed = text.encode() if isinstance(text, str) else b"\0" + msgspec.json.encode(text)
    drawn = struct.unpack(f"<{dimensions}i", shake_256(seed).digest(4 * dimensions))
    length = math.hypot(*drawn) or 1.0
    return struct.unpack(f"<{dimensions}f", _packed([value / length for value in drawn]))


def _packed(vector: Any) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def _as_numbers(vector: Vector) -> Any:
    return vector


def _in_base64(vector: Vector) -> Any:
    return base64.b64encode(_packed(vector)).decode()
