"""Where in a request body the caller's text stands.

For:      the spans of the string values that are scanned, in one pass over the bytes, without decoding any.
Touches:  nothing. The body is known to be valid JSON (`core.body` has parsed it).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from nexus_gateway.core.model import Operation

from .linear import prefixer

_NOISE: Final = b" \t\r\n,:0123456789.+-Eaeflnrstu"  # between strings: all but brackets
_JOINTS: Final = frozenset((b":", b": ", b",", b", "))  # what stands between most strings: no bracket
_BLANKS: Final = b" \t\r\n"
_COLON: Final = ord(":")
_BACKSLASH: Final = ord("\\")
_QUOTE: Final = ord('"')
_STRING: Final = prefixer(r'(?s)(?:[^"\\]|\\.)*')
_OPENING: Final = b"[{"
_BREATH_BYTES: Final = 256 << 10  # how much is passed over at once


class Kind(Enum):
    """What a string is: text, or a tool call's arguments, which are JSON once more. NOTHING: a place to pause at."""

    NOTHING = 0
    TEXT = 1
    ARGUMENTS = 2


Token: TypeAlias = tuple[int, int, Kind]
"""A string value between its quotes: start, end, and what it is."""


@dataclass(frozen=True, slots=True)
class Node:
    """What is scanned of a value. Arrays are transparent: their elements are what the array is."""

    kind: Kind | None = None
    members: Mapping[bytes, "Node"] = field(default_factory=dict)
    every: "Node | None" = None  # what a member that is not named is


_TEXT: Final = Node(Kind.TEXT)
_CALL: Final = Node(members={b"arguments": Node(Kind.ARGUMENTS)})
_PART: Final = Node(Kind.TEXT, {b"text": _TEXT, b"refusal": _TEXT, b"thinking": _TEXT, b"reasoning": _TEXT})
_CONTENT: Final = Node(Kind.TEXT, {**_PART.members, b"content": _PART})
_MESSAGE: Final = Node(
    members={
        b"content": _CONTENT,
        b"name": _TEXT,
        b"refusal": _TEXT,
        b"reasoning": _CONTENT,
        b"thinking": _CONTENT,
        b"reasoning_content": _CONTENT,
        b"tool_calls": Node(members={b"function": _CALL, b"custom": Node(members={b"input": _TEXT})}),
        b"function_call": _CALL,
    }
)


def _anything() -> Node:
    node = Node(Kind.TEXT)
    object.__setattr__(node, "every", node)
    return node


_WHO: Final = {b"user": _TEXT, b"safety_identifier": _TEXT, b"prompt_cache_key": _TEXT, b"metadata": _anything()}
_BODIES: Final = {
    Operation.CHAT: Node(members={b"messages": _MESSAGE, b"prediction": _CONTENT, **_WHO}),
    Operation.COMPLETIONS: Node(members={b"prompt": _CONTENT, b"suffix": _TEXT, **_WHO}),
    Operation.EMBEDDINGS: Node(members={b"input": _CONTENT, b"messages": _MESSAGE, **_WHO}),
}


def scan(body: bytes, operation: Operation) -> Iterator[Token]:
    """The strings to look into, from left to right."""
    find, index = body.find, body.index
    stack: list[Node | None] = []
    value: Node | None = _BODIES[operation]
    holder: Node | None = None  # of the object or array that we are in: None when nothing in it is scanned
    at, size = 0, len(body)
    while at < size:
        quote = find(b'"', at, at + _BREATH_BYTES)
        between = body[at:quote] if quote >= 0 else body[at : at + _BREATH_BYTES]
        if between not in _JOINTS:
            for sign in between.translate(None, _NOISE):
                if sign in _OPENING:
                    stack.append(holder)
                    holder = value
                else:
                    value = holder = stack.pop()
        if quote < 0:
            at += len(between)
            if at < size:
                yield at, at, Kind.NOTHING
            continue
        at = quote + 1
        end = index(b'"', at)
        if body[end - 1] == _BACKSLASH:
            end = at
            while body[end] != _QUOTE:
                end = _string_end(body, end)
                yield end, end, Kind.NOTHING
        if holder is not None:
            follows = body[end + 1]
            if follows == _COLON or (follows in _BLANKS and _is_key(body, end + 2)):
                key = body[at:end]
                value = holder.members.get(_unescape(key) if b"\\" in key else key, holder.every)
            elif value is not None and value.kind is not None:
                yield at, end, value.kind
        at = end + 1


def _unescape(key: bytes) -> bytes:
    decoded: str = msgspec.json.decode(b'"' + key + b'"')
    return decoded.encode()


def _string_end(body: bytes, at: int) -> int:
    """The quote that closes the string, or some escape on the way to it."""
    end = _STRING(body, at, min(at + _BREATH_BYTES, len(body)))[0][1]
    if end == at:
        raise ValueError("a string without an end")
    return end


def _is_key(body: bytes, at: int) -> bool:
    """Whether a colon follows."""
    sign = body[at : at + 1]
    if sign == b":":
        return True
    while sign and sign in _BLANKS:
        at += 1
        sign = body[at : at + 1]
    return sign == b":"
