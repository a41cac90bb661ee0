"""Restores placeholders where a model's answer may hold them: text, reasoning and tool-call arguments.

For:      whole answers and the events of a stream. Every other value keeps its bytes.
Touches:  nothing. Only answers to requests in which something was masked come here.

In a stream, what is held back of a field is said in a later delta of the same field, at the latest in an event before
the one that carries the choice's `finish_reason`: clients may look at nothing else in that one.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from .restore import Restorer, StreamRestorer

Object = Mapping[str, msgspec.Raw]
Place = tuple[int, str, int]  # choice, field, tool call (-1: none)
Say = Callable[[Place, str, bool], str]  # what becomes of a piece of text; True: it is JSON itself

_TEXT_FIELDS: Final = ("content", "reasoning_content", "reasoning", "refusal", "text", "thinking")
_ARGUMENTS: Final = "arguments"
_NULL: Final = b"null"
_UNFINISHED: Final = (_NULL, b'""')  # servers whose language has no null write an empty reason

_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_string: Final = msgspec.json.Decoder(str).decode
_number: Final = msgspec.json.Decoder(int).decode
_encode: Final = msgspec.json.encode


class ReplyRestorer:
    """Of one answer. `says_json`: its content is JSON, because the caller asked for that."""

    __slots__ = ("_restorer", "_says_json", "_streams")

    def __init__(self, restorer: Restorer, *, says_json: bool) -> None:
        self._restorer = restorer
        self._says_json = says_json
        self._streams: dict[Place, StreamRestorer] = {}

    def whole(self, body: bytes) -> bytes:
        """A plain answer, known to be a JSON object."""
        document = _object(body)
        choices = _choices(document)
        if choices is None:
            return body
        rewritten = [_join(_choice(choice, _index(choice, at), self._say_whole)) for at, choice in enumerate(choices)]
        return _join({**document, "choices": _array(rewritten)})

    def events(self, data: bytes) -> list[bytes]:
        """What becomes of one event of a stream, known to be a JSON object: one, or two where a choice ends that has
        something held back, the text in the first, the end in the second."""
        document = _object(data)
        choices = _choices(document)
        if choices is None:
            return [data]
        texts, rewritten = [], []
        for at, choice in enumerate(choices):
            index = _index(choice, at)
            changed = _choice(choice, index, self._say_piece)
            if bytes(choice.get("finish_reason", _NULL)) not in _UNFINISHED and (rest := self._rest_of(index)):
                _add_rest(changed, rest)
                texts.append(_join({**changed, "finish_reason": _NULL}))
                changed = _without_text(choice)
            rewritten.append(_join(changed))
        event = _join({**document, "choices": _array(rewritten)})
        if not texts:
            return [event]
        document = {name: value for name, value in document.items() if name != "usage"}
        return [_join({**document, "choices": _array(texts)}), event]

    def _say_whole(self, place: Place, text: str, is_json: bool) -> str:
        return self._restorer.restore_text(text, in_json=is_json or (self._says_json and place[1] == "content"))

    def _say_piece(self, place: Place, text: str, is_json: bool) -> str:
        stream = self._streams.get(place)
        if stream is None:
            in_json = is_json or (self._says_json and place[1] == "content")
            stream = self._streams[place] = self._restorer.stream(in_json=in_json)
        return stream.feed(text)

    def _rest_of(self, choice: int) -> dict[Place, str]:
        """What is held back of a choice that ends now."""
        return {
            place: rest for place, stream in self._streams.items() if place[0] == choice and (rest := stream.flush())
        }


def _choices(document: Object) -> list[dict[str, msgspec.Raw]] | None:
    choices = document.get("choices")
    return None if choices is None or choices == msgspec.Raw(_NULL) else _objects(choices)


def _index(choice: Object, at: int) -> int:
    return _number(choice["index"]) if "index" in choice else at


def _holder(choice: Mapping[str, msgspec.Raw | bytes]) -> str | None:
    return next((name for name in ("delta", "message") if _is_object(choice.get(name))), None)


def _choice(choice: Object, index: int, say: Say) -> dict[str, msgspec.Raw | bytes]:
    changed: dict[str, msgspec.Raw | bytes] = dict(choice)
    holder = _holder(choice)
    if "text" in choice:
        changed["text"] = _said(choice["text"], (index, "text", -1), say)
    if holder is not None:
        changed[holder] = _join(_message(_object(choice[holder]), index, say))
    return changed


def _without_text(choice: Object) -> dict[str, msgspec.Raw | bytes]:
    """The end of a choice whose text has been said in the event before."""
    end: dict[str, msgspec.Raw | bytes] = dict(choice)
    for name, empty in (("text", b'""'), ("delta", b"{}"), ("message", b"{}"), ("logprobs", _NULL)):
        if name in end:
            end[name] = empty
    return end


def _message(message: Object, index: int, say: Say) -> dict[str, msgspec.Raw | bytes]:
    changed: dict[str, msgspec.Raw | bytes] = dict(message)
    for name in _TEXT_FIELDS:
        if name in message:
            changed[name] = _said(message[name], (index, name, -1), say)
    if _is_array(message.get("tool_calls")):
        calls = []
        for position, call in enumerate(_objects(message["tool_calls"])):
            tool = _number(call["index"]) if "index" in call else position
            calls.append(_call(call, (index, "tool_calls", tool), say))
        changed["tool_calls"] = _array(calls)
    if _is_object(message.get("function_call")):
        changed["function_call"] = _function(_object(message["function_call"]), (index, "function_call", -1), say)
    return changed


def _call(call: Object, place: Place, say: Say) -> bytes:
    if not _is_object(call.get("function")):
        return _join(call)
    return _join({**call, "function": _function(_object(call["function"]), place, say)})


def _function(function: Object, place: Place, say: Say) -> bytes:
    arguments = function.get(_ARGUMENTS)
    if arguments is None or not bytes(arguments).startswith(b'"'):
        return _join(function)
    return _join({**function, _ARGUMENTS: _encode(say(place, _string(arguments), True))})


def _said(value: msgspec.Raw, place: Place, say: Say) -> msgspec.Raw | bytes:
    """A string, or an array of parts with a text each."""
    raw = bytes(value)
    if raw.startswith(b'"'):
        return _encode(say(place, _string(value), False))
    if not raw.startswith(b"["):
        return value
    parts = []
    for position, part in enumerate(_elements(value)):
        fields = _object(part) if _is_object(part) else {}
        text = fields.get("text")
        if text is None or not bytes(text).startswith(b'"'):
            parts.append(bytes(part))
        else:
            parts.append(_join({**fields, "text": _encode(say((*place[:2], position), _string(text), False))}))
    return _array(parts)


def _add_rest(choice: dict[str, msgspec.Raw | bytes], rest: dict[Place, str]) -> None:
    """Append what was held back to its fields."""
    holder = _holder(choice)
    for (_, name, tool), held in rest.items():
        if name == "text":
            said = _string(choice["text"]) if "text" in choice else ""
            choice["text"] = _encode(said + held)
            continue
        delta: dict[str, msgspec.Raw | bytes] = dict(_object(bytes(choice[holder]))) if holder is not None else {}
        if name == "tool_calls":
            calls = (
                [bytes(call) for call in _elements(bytes(delta["tool_calls"]))] if _is_array(delta.get(name)) else []
            )
            calls.append(_encode({"index": tool, "function": {_ARGUMENTS: held}}))
            delta[name] = _array(calls)
        elif name == "function_call":
            delta[name] = _encode({_ARGUMENTS: held})
        else:
            given = bytes(delta.get(name, _NULL))
            delta[name] = _encode((_string(given) if given.startswith(b'"') else "") + held)
        holder = holder or "delta"
        choice[holder] = _join(delta)


def _is_object(value: msgspec.Raw | bytes | None) -> bool:
    return value is not None and bytes(value).startswith(b"{")


def _is_array(value: msgspec.Raw | bytes | None) -> bool:
    return value is not None and bytes(value).startswith(b"[")


def _array(elements: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(elements)


def _join(members: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (_encode(name), value) for name, value in members.items()])
