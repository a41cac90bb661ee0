"""Reading single values: text from a variable or a URL, or what YAML made of it.

For:      one rule for numbers, switches and lists, wherever they stand.
Touches:  nothing. A parser takes a raw value and returns a typed one, or raises BadValue.
"""

import json
import math
import re
from collections.abc import Callable, Collection
from typing import Final, TypeVar

from .problems import did_you_mean, shown

T = TypeVar("T")
Parser = Callable[[object], T]

_DIGITS: Final = re.compile(r"\+?[0-9]{1,18}")  # 18 digits fit a machine word
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE: Final = re.compile(r"[+-]?\.?(inf|infinity|nan)", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # a token of RFC 9110, 5.6.2
_VISIBLE: Final = re.compile(r"[!-~]+")
_ON: Final = frozenset({"true", "on", "yes", "1"})
_OFF: Final = frozenset({"false", "off", "no", "0"})


class BadValue(ValueError):
    """A value is refused. Both texts are sentences and never repeat a secret."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def number(
    remedy: str, *, most: float, least: float = -math.inf, above: float = -math.inf, at: str = ""
) -> Parser[float]:
    """A parser of finite numbers from `least` (or strictly above `above`) to `most`."""

    def parse(value: object) -> float:
        found = _finite(value, remedy)
        if found < least or found <= above or found > most:
            raise BadValue(f"{shown(value)} is out of range{at}.", remedy)
        return found

    return parse


def _finite(value: object, remedy: str) -> float:
    if isinstance(value, str):
        value = value.strip()
        if _NOT_FINITE.fullmatch(value):
            raise BadValue(f"{shown(value)} is not a finite number.", remedy)
        if not _DECIMAL.fullmatch(value):
            raise BadValue(f"{shown(value)} is not a number.", remedy)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise BadValue(f"{_kind(value)} is not a number.", remedy)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise BadValue("The number is not finite.", remedy)
    return found


def whole(remedy: str, *, least: int, most: int) -> Parser[int]:
    """A parser of whole numbers from `least` to `most`."""

    def parse(value: object) -> int:
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            what = shown(value) if isinstance(value, str | float) else _kind(value)
            raise BadValue(f"{what} is not a whole number.", remedy)
        if not least <= value <= most:
            raise BadValue("The number is out of range.", remedy)
        return value

    return parse


def either(word: str, parse: Parser[T]) -> Parser[T | None]:
    """A parser that reads `word` as None. YAML reads a bare `off` as false: it counts as the word."""

    def parse_word(value: object) -> T | None:
        if (isinstance(value, str) and value.strip().lower() == word) or (word == "off" and value is False):
            return None
        return parse(value)

    return parse_word


def switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in _ON or word in _OFF:
        return word in _ON
    raise BadValue(
        f"{shown(value) if isinstance(value, str | int) else _kind(value)} is not a switch.", "Write true or false."
    )


def text(value: object) -> str:
    """Text to print and compare: no control characters, no broken encoding."""
    found = _string(value).strip()
    if not found:
        raise BadValue("The value is empty.", "Give a value, or leave it out.")
    if not found.isprintable():
        raise BadValue("The value holds characters that cannot be printed.", "Remove them.")
    return found


def secret(value: object) -> str:
    """Text that is never repeated. May have several lines, as a PEM key does."""
    found = _string(value)
    if not found.strip():
        raise BadValue("The value is empty.", "Give a value, or leave it out.")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise BadValue("The value is not valid UTF-8.", "Store it as UTF-8.") from None
    return found


def visible(value: object) -> str:
    """A secret that travels in a header: visible ASCII, no spaces."""
    found = _string(value).strip()
    if not found:
        raise BadValue("The key is empty.", "Give a key, or leave it out.")
    if not _VISIBLE.fullmatch(found):
        raise BadValue(
            "A key holds a space, a control character or a letter outside ASCII.", "Use visible ASCII characters only."
        )
    return found


def words(value: object) -> tuple[str, ...]:
    """Words from `a,b,c` or a list; empty ones are dropped. Refusals repeat none of them."""
    if isinstance(value, list):
        found = [_string(word).strip() for word in value]
        if any("," in word for word in found):
            raise BadValue("A word of the list holds a comma.", "Write one word per line of the list.")
    else:
        found = [word.strip() for word in _string(value).split(",")]
    return tuple(word for word in found if word)


def header_name(value: object) -> str:
    """A header's name, in lower case."""
    name = text(value)
    if not _HEADER_NAME.fullmatch(name):
        raise BadValue(f"{shown(name)} is not the name of a header.", "Use letters, digits and hyphens.")
    return name.lower()


def address(value: object) -> tuple[str, int]:
    """Host and port to listen on, from `host:port` or `[v6]:port`."""
    host, separator, port = text(value).rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # a bare IPv6 address: nobody knows where it ends
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise BadValue(f"{shown(str(value))} is not an address.", "Write 127.0.0.1:9100, or [::1]:9100.")
    return host, int(port)


def one_of(known: Collection[str], *, upper: bool = False) -> Parser[str]:
    """A parser of a word from a closed set, in any case."""

    def parse(value: object) -> str:
        word = text(value)
        word = word.upper() if upper else word.lower()
        if word not in known:
            raise BadValue(f"{shown(word)} is unknown.", did_you_mean(word, known))
        return word

    return parse


def json_object(value: object) -> dict[str, object]:
    """An object, from JSON text or as YAML has it. A key that stands twice is refused."""
    if isinstance(value, str):
        value = _decode(value)
    if not isinstance(value, dict):
        raise BadValue(f"{_kind(value)} is not an object.", 'Write names and values: {"name": …}.')
    if not all(isinstance(key, str) for key in value):
        raise BadValue("A name is not text.", "Put quotes round it.")
    return value


def _decode(source: str) -> object:
    if not source.strip():
        raise BadValue("The value is empty.", "Give JSON, or leave it out.")
    try:
        return json.loads(source, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:  # its message repeats nothing of the text
        place = f"line {exc.lineno}, column {exc.colno}"
        raise BadValue(f"The JSON is broken at {place}: {exc.msg}.", "Correct it there.") from None
    except BadValue:
        raise
    except (ValueError, RecursionError):
        raise BadValue("The JSON holds a number too long or levels too deep.", "Shorten it.") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise BadValue("A name stands twice in one JSON object.", "Keep one of them.")
    return members


def _no_constant(constant: str) -> object:
    raise BadValue(f"The JSON holds {constant}, which is not finite.", "Give a number.")


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise BadValue("There is no value.", "Give a value, or leave it out.")
    raise BadValue(f"{_kind(value)} is not text.", "Put quotes round a value that is meant as text.")


def _kind(value: object) -> str:
    """How a value of the wrong type is called. The value itself might be a secret in the wrong place."""
    names = {bool: "A switch", int: "A number", float: "A number", list: "A list", dict: "A mapping", str: "Text"}
    return names.get(type(value), "Nothing" if value is None else "A date or another special value")
