"""Reads of a request body what the gateway needs, and rewrites a member of it without touching the rest.

For:      one parse per request. What policy judged is what is forwarded: a body in which two readers could see
          different things (a repeated key, invalid UTF-8, NaN) is refused.
Touches:  nothing.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, get_type_hints

import msgspec

from .errors import MalformedRequest
from .model import Call, Members, Operation

T = TypeVar("T")

MAX_CHOICES: Final = 128  # what the API allows for `n`; more would only multiply one caller's share
MAX_MODEL_LENGTH: Final = 256
MAX_COUNT: Final = 10**12  # of tokens: more than any limit; a caller may write any number of digits

_ASK_FOR_USAGE: Final = b'{"stream_options":{"include_usage":true},'
_OUTPUT_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_NULL: Final = msgspec.Raw(b"null")
_ARRAY_BEGIN: Final = ord("[")

_encode: Final = msgspec.json.Encoder().encode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_flag: Final = msgspec.json.Decoder(bool | None).decode
_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text_or_array: Final = msgspec.json.Decoder(str | list[msgspec.Raw]).decode
_text_or_null: Final = msgspec.json.Decoder(str | None).decode
_options: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


class _Fields(msgspec.Struct, gc=False):
    """What the gateway reads of every request."""

    model: str
    stream: bool | None = None
    n: int | None = None
    user: str | None = None


class _OutputFields(_Fields, gc=False):
    """And what of those that are answered in tokens."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_FIELDS: Final[Mapping[Operation, type[_Fields]]] = {
    Operation.CHAT: _OutputFields,
    Operation.COMPLETIONS: _OutputFields,
    Operation.EMBEDDINGS: _Fields,
}
_readers: Final = {operation: msgspec.json.Decoder(fields).decode for operation, fields in _FIELDS.items()}
_KINDS: Final = {str: "a string", str | None: "a string", bool | None: "a boolean", int | None: "an integer"}


def parse_call(operation: Operation, body: bytes) -> Call:
    """Raises MalformedRequest, whose `param` names the field at fault."""
    members = read_members(body)
    try:
        fields = _readers[operation](body)
    except msgspec.DecodeError:
        raise _blame(operation, members) from None
    model = fields.model
    if not 0 < len(model) <= MAX_MODEL_LENGTH:
        raise MalformedRequest(f"'model' must be a string of 1 to {MAX_MODEL_LENGTH} characters.", param="model")
    stream = fields.stream is True
    if stream and operation is Operation.EMBEDDINGS:
        raise MalformedRequest("Embeddings cannot be streamed.", param="stream")
    choices = 1 if fields.n is None else fields.n
    if not 1 <= choices <= MAX_CHOICES:
        raise MalformedRequest(f"'n' must be between 1 and {MAX_CHOICES}.", param="n")
    if operation is Operation.CHAT:
        _require_array(members, "messages")
    elif operation is Operation.COMPLETIONS:
        choices *= _count_prompts(_read(members, "prompt", _text_or_array, "a string or an array"))
    else:
        _read(members, "input", _text_or_array, "a string or an array")
    output_limit = _output_limit(fields) if isinstance(fields, _OutputFields) else None
    include_usage = "stream_options" in members and _includes_usage(members)
    return Call(operation, model, stream, include_usage, choices, output_limit, body, members)


def _blame(operation: Operation, members: Members) -> MalformedRequest:
    """Which of the fields is missing or not of its kind."""
    if "model" not in members:
        return MalformedRequest("The request body lacks 'model'.", param="model")
    for name, kind in get_type_hints(_FIELDS[operation]).items():
        if name in members:
            try:
                msgspec.json.decode(members[name], type=kind)
            except msgspec.DecodeError:
                return MalformedRequest(f"{name!r} must be {_KINDS[kind]}.", param=name)
    raise AssertionError("one of the fields was at fault")


def read_members(body: bytes) -> Members:
    """The members of the JSON object that `body` is, each value as its own bytes."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as exc:
            raise MalformedRequest(f"The request body is not valid UTF-8 (at byte {exc.start}).") from exc
    try:
        members = _members(body)
        if not _fills(members, body.strip()):
            _refuse_repeated_keys(body)
    except msgspec.ValidationError as exc:
        raise MalformedRequest("The request body must be a JSON object.") from exc
    except msgspec.DecodeError as exc:
        raise MalformedRequest(f"The request body is not valid JSON: {exc}.") from exc
    except RecursionError as exc:
        raise MalformedRequest("The request body is nested too deeply.") from exc
    return members


def with_body(call: Call, body: bytes) -> Call:
    """The same call with a body that was made of its own: what was checked of that one is not checked again."""
    return msgspec.structs.replace(call, body=body, members=_members(body))


def read_user(call: Call) -> str | None:
    """The `user` that the caller named, if any."""
    return _text_or_null(call.members["user"]) if "user" in call.members else None


def with_output_limit(call: Call, limit: int) -> Call:
    """The same call, content with `limit` tokens for each choice, under the name or names that it used itself."""
    names = [name for name in _OUTPUT_LIMITS if name in call.members] or [_OUTPUT_LIMITS[0]]
    body = _join({**call.members, **dict.fromkeys(names, b"%d" % limit)})
    return with_body(msgspec.structs.replace(call, output_limit=limit), body)


def body_for(call: Call, *, model: str, ask_usage: bool) -> bytes:
    """The caller's body as one upstream gets it: asking for `model`, and if `ask_usage`, a stream for its usage.

    Values keep their bytes, whatever is rewritten beside them; with nothing to rewrite it is the caller's body itself.
    """
    rename = model != call.model
    ask_usage = ask_usage and not call.include_usage
    if not (rename or ask_usage):
        return call.body
    if not rename and "stream_options" not in call.members:
        return _ASK_FOR_USAGE + call.body[call.body.index(b"{") + 1 :]
    members: dict[str, msgspec.Raw | bytes] = dict(call.members)
    if rename:
        members["model"] = msgspec.json.encode(model)
    if ask_usage:
        given = call.members.get("stream_options", _NULL)
        options: Members = {} if given == _NULL else _members(given)
        members["stream_options"] = _join({**options, "include_usage": b"true"})
    return _join(members)


def _join(members: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (msgspec.json.encode(name), value) for name, value in members.items()])


def _fills(members: Members, body: bytes) -> bool:
    """Whether the members, written as the usual encoders do, are all that the body is: then no repeated key can hide.

    Without spaces the size tells, for there is no shorter way to write them. With a space behind every colon and comma
    the size alone does not: a short repeated member has room in as many spaces.
    """
    spaces = len(body) - len(_encode(members))
    return spaces == 0 or (spaces == 2 * len(members) - 1 and body == _spaced(members))


def _spaced(members: Members) -> bytes:
    return b'{"%b}' % b', "'.join([name.encode() + b'": ' + value for name, value in members.items()])


def _refuse_repeated_keys(body: bytes) -> None:
    """For a body in another layout. Its JSON is known to be valid; only the outermost names are compared."""
    names = json.loads(body, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
    for at, name in enumerate(names):
        if name in names[:at]:
            raise MalformedRequest(f"The request body holds the key {name[:64]!r} twice.", param=name[:64])


def _read(members: Members, name: str, decode: Callable[[msgspec.Raw], T], kind: str) -> T:
    raw = members.get(name)
    if raw is None:
        raise MalformedRequest(f"The request body lacks {name!r}.", param=name)
    try:
        return decode(raw)
    except msgspec.DecodeError as exc:
        raise MalformedRequest(f"{name!r} must be {kind}.", param=name) from exc


def _require_array(members: Members, name: str) -> None:
    """Its elements are the upstream's business; valid JSON they are already."""
    raw = members.get(name)
    if raw is None or memoryview(raw)[0] != _ARRAY_BEGIN:
        _read(members, name, _array, "an array")


def _output_limit(fields: _OutputFields) -> int | None:
    """The larger of both names, for a server may obey either. A negative one is how some ask for no limit at all."""
    limit, other = fields.max_tokens, fields.max_completion_tokens
    if limit is None or (other is not None and other > limit):
        limit = other
    return min(limit, MAX_COUNT) if limit is not None and limit >= 0 else None


def _count_prompts(prompt: str | list[msgspec.Raw]) -> int:
    """A list of strings or of token lists is a batch; a string or a list of token numbers is one prompt."""
    if isinstance(prompt, str) or not prompt or memoryview(prompt[0])[0] not in b'"[':
        return 1
    return len(prompt)


def _includes_usage(members: Members) -> bool:
    try:
        options = _options(members["stream_options"])
        if options is None:
            return False
        read_members(bytes(members["stream_options"]))  # refuses a repeated include_usage
        return bool(_flag(options.get("include_usage", _NULL)))
    except (msgspec.DecodeError, MalformedRequest) as exc:
        raise MalformedRequest("'stream_options' must be an object.", param="stream_options") from exc
