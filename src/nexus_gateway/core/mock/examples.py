"""The plainest value that fits a JSON schema.

For:      arguments of tool calls, and answers in a caller's `json_schema`.
Touches:  nothing; a reference is followed within the schema only. Knows the keywords that tools are described with: a
          `pattern`, a `multipleOf` or a `not` is beyond it.
Source:   JSON Schema 2020-12, Core and Validation.
"""

from collections.abc import Mapping
from typing import Any, Final

MAX_VALUES: Final = 1000  # of one example: definitions that name each other twice would grow without end
MAX_DEPTH: Final = 40
MAX_TEXT: Final = 10_000

_EXACT: Final = 2**53  # beyond it bounds are left alone: floats have gaps there
_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: Mapping[str, Any]) -> Any:
    """Required properties only. Where the bounds on size and depth are reached stands null."""
    return _Examples(schema).value(schema, 0)


class _Examples:
    """Values for the parts of one schema, `root`, within the bounds."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or self._left < 0 or depth > MAX_DEPTH:
            return None  # `true` allows anything
        for given in ("const", "default"):
            if given in schema:
                return schema[given]
        for given in ("enum", "examples"):
            if chosen := _first(schema, given):
                return chosen[0]
        if isinstance(schema.get("$ref"), str):
            return self.value(self._resolve(schema["$ref"]), depth + 1)
        for branches in ("anyOf", "oneOf"):
            if chosen := _first(schema, branches):
                return self.value(chosen[0], depth + 1)
        if isinstance(schema.get("allOf"), list):
            return self.value(self._merge(schema), depth + 1)
        return self._of_type(schema, depth)

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list) and kind:
            kind = kind[0]
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
        return _text(schema)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties"), schema.get("required")
        properties = properties if isinstance(properties, dict) else {}
        names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        return {name: self.value(properties.get(name), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems")
        length = min(least, self._left) if isinstance(least, int) else 0
        return [self.value(schema.get("items"), depth + 1) for _ in range(length)]

    def _resolve(self, reference: str) -> Any:
        place: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        return place

    def _merge(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """`allOf` as one schema: all properties and required names; of anything else the last word counts."""
        merged = {name: value for name, value in schema.items() if name != "allOf"}
        for part in schema["allOf"]:
            if isinstance(part, dict) and isinstance(part.get("$ref"), str):
                part = self._resolve(part["$ref"])
            for name, value in part.items() if isinstance(part, dict) else ():
                known = merged.get(name)
                if isinstance(known, dict) and isinstance(value, dict):
                    value = {**known, **value}
                elif isinstance(known, list) and isinstance(value, list):
                    value = [*known, *value]
                merged[name] = value
        return merged


def _first(schema: Mapping[str, Any], name: str) -> list[Any]:
    """The first of the listed values, in a list; empty where none is listed."""
    values = schema.get(name)
    return values[:1] if isinstance(values, list) else []


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    """1, or else a value next to or between the bounds, the first that is within them."""
    bounds = {name: schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")}
    known = {name: bound for name, bound in bounds.items() if isinstance(bound, (int, float)) and abs(bound) < _EXACT}

    def fits(value: float) -> bool:
        return (
            value >= known.get("minimum", value)
            and value <= known.get("maximum", value)
            and value > known.get("exclusiveMinimum", value - 1)
            and value < known.get("exclusiveMaximum", value + 1)
        )

    near = [bound + step for bound in known.values() for step in (0, 1, -1)]
    between = [sum(known.values()) / len(known)] if known else []
    for value in (1, *near, *between):
        if fits(value := value // 1 if whole else value):
            return int(value) if whole else value
    return 1


def _text(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(str(schema.get("format")), "example")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int):
        text = text.ljust(min(least, MAX_TEXT), "x")
    return text[:most] if isinstance(most, int) and most >= 0 else text
