"""An example fits its schema, and no schema makes it endless."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.mock.examples import MAX_VALUES, example
from nexus_gateway.core.mock.model import respond
from nexus_gateway.core.model import Operation

small = st.integers(-20, 20)
names = st.sampled_from(["city", "unit", "가격", "a/b"])


def ordered(low: str, high: str, kind: str) -> Any:
    return st.tuples(small, st.integers(2, 9)).map(lambda span: {"type": kind, low: span[0], high: span[0] + span[1]})


leaves = st.one_of(
    st.just({"type": "string"}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, {"enum": ["a", 1]}]),
    small.map(lambda value: {"const": value}),
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
        lambda span: {"type": "string", "minLength": span[0], "maxLength": span[0] + span[1]}
    ),
    *(
        ordered(low, high, kind)
        for kind in ("integer", "number")
        for low in ("minimum", "exclusiveMinimum")
        for high in ("maximum", "exclusiveMaximum")
    ),
    st.builds(lambda low: {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + 0.5}, small),
)


def objects(inner: Any) -> Any:
    return st.dictionaries(names, inner, max_size=3).flatmap(
        lambda properties: st.builds(
            lambda required: {"type": "object", "properties": properties, "required": required},
            st.lists(st.sampled_from(sorted(properties)), unique=True) if properties else st.just([]),
        )
    )


def extend(inner: Any) -> Any:
    return st.one_of(
        objects(inner),
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.lists(inner, min_size=1, max_size=2).map(lambda branches: {"anyOf": branches}),
        st.lists(objects(inner), min_size=1, max_size=2).map(lambda all_of: {"allOf": all_of}),
        inner.map(lambda schema: {"$ref": "#/$defs/it~1s", "$defs": {"it/s": schema}}),
    )


schemas = st.recursive(leaves, extend, max_leaves=6)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Plain validation, written from the other side: every keyword is a condition."""
    if "$ref" in schema:
        return fits(value, schema["$defs"]["it/s"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if "anyOf" in schema:
        return any(fits(value, branch) for branch in schema["anyOf"])
    if "allOf" in schema:
        return all(set(part["required"]) <= value.keys() for part in schema["allOf"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = {str: "string", bool: "boolean", type(None): "null", int: "integer", float: "number"}.get(type(value))
    if isinstance(value, dict):
        known = all(fits(part, schema["properties"][name]) for name, part in value.items())
        return "object" in kinds and known and set(schema["required"]) <= value.keys()
    if isinstance(value, list):
        return "array" in kinds and len(value) >= schema["minItems"] and all(fits(i, schema["items"]) for i in value)
    if isinstance(value, str):
        return "string" in kinds and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)
    if kind in ("integer", "number"):
        return (kind in kinds or "number" in kinds) and (
            schema.get("minimum", -99) <= value <= schema.get("maximum", 99)
            and schema.get("exclusiveMinimum", -99) < value < schema.get("exclusiveMaximum", 99)
        )
    return kind in kinds


def rooted(schema: dict[str, Any]) -> bool:
    """References are resolved at the root: only a schema whose definitions lie there is one."""
    return "$ref" not in str(schema) or ("$ref" in schema and "$ref" not in str(schema["$defs"]))


@given(schemas.filter(rooted))
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    value = example(schema)
    assert fits(value, schema), value


keywords = st.sampled_from(
    ["type", "properties", "required", "items", "minItems", "anyOf", "allOf", "$ref", "enum", "minimum", "minLength"]
)
junk = st.recursive(
    st.none() | small | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(keywords, junk, max_size=4))
def test_what_is_no_schema_has_an_example_too(schema: dict[str, Any]) -> None:
    msgspec.json.encode(example(schema))


def test_definitions_that_refer_to_each_other_end() -> None:
    twice = {"type": "object", "properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}, "required": ["l", "r"]}
    assert msgspec.json.encode(example(twice)).count(b"{") <= MAX_VALUES
    assert example({"$ref": "#"}) is None
    assert len(example({"type": "array", "minItems": 10**12})) <= MAX_VALUES
    assert len(example({"type": "string", "minLength": 10**12})) < 10**6


def test_a_schema_that_can_be_read_but_not_written_is_refused() -> None:
    """Its definitions lie side by side, their example is as deep as all of them together."""
    links = [b'"%d":{"properties":{"a":{"$ref":"#/$defs/%d"}},"required":["a"]}' % (at, at + 1) for at in range(16)]
    statuses = set()
    for levels in range(100, 1000, 3):
        last = b'"16":{"const":%b}' % (b"[" * levels + b"]" * levels)
        schema = b'{"$ref":"#/$defs/0","$defs":{%b}}' % b",".join([*links, last])
        tool = b'{"type":"function","function":{"name":"f","parameters":%b}}' % schema
        response = respond(Operation.CHAT, b'{"model":"m","messages":[{"role":"user"}],"tools":[%b]}' % tool)
        statuses.add(response.status)
    assert statuses == {200, 400}
