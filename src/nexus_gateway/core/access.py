"""What one caller may use: the models it may name, and its limits.

For:      turning the rules of a key or a token into the principal that the pipeline carries.
Touches:  nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .model import Principal

TOKENS: Final = (
    "jwt"  # what callers with a token are called before their own id, and all together where they are counted
)


@dataclass(frozen=True, slots=True)
class CallerPolicy:
    """The rules for one key, for one token's subject, or for all tokens. None: unlimited, all models, for ever."""

    requests_per_minute: int | None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    clamps_output: bool = False
    name: str | None = None
    allowed_models: "ModelList | None" = None
    expires_at: float | None = None  # Unix time in seconds
    disabled: bool = False

    def principal(self, key_id: str) -> Principal:
        return Principal(
            key_id,
            self.requests_per_minute,
            self.tokens_per_minute,
            self.max_concurrency,
            self.clamps_output,
            self.name,
            self.allowed_models,
            label=self.name or (TOKENS if key_id.startswith(f"{TOKENS}:") else key_id),
        )

    def admits(self, now_unix_s: float) -> bool:
        return not self.disabled and (self.expires_at is None or now_unix_s < self.expires_at)


class ModelList:
    """Names of models, in which `*` stands for any text. Deciding takes time linear in the name, whatever the list."""

    __slots__ = ("_exact", "_patterns", "words")

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._exact = frozenset(word for word in self.words if "*" not in word)
        self._patterns = tuple(tuple(word.split("*")) for word in self.words if "*" in word)

    def allows(self, model: str) -> bool:
        return model in self._exact or any(_matches(pieces, model) for pieces in self._patterns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelList) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"ModelList({list(self.words)!r})"


def _matches(pieces: tuple[str, ...], text: str) -> bool:
    """Whether the pieces stand in the text one behind the other, the first at its start and the last at its end.

    The leftmost place is always good enough for a piece in between, so that nothing is tried twice.
    """
    first, *between, last = pieces
    end = len(text) - len(last)
    at = len(first)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in between:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
