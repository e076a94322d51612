"""The smallest JSON that satisfies a schema."""

from typing import Any

import pytest

from pipelines.inference.scripted.minimal_json import minimal_value

TREE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": ""}),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"type": ["null", "string"]}, None),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"enum": ["red", "green"]}, "red"),
        ({"anyOf": [{"const": 7}, {"type": "null"}]}, 7),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "number", "minimum": 2}}}, 2),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}], "required": ["b"]}, {"b": {}, "a": 1}),
    ],
)
def test_the_smallest_value_satisfies_the_schema(schema: dict[str, Any], value: Any) -> None:
    assert minimal_value(schema) == value


def test_a_schema_without_a_finite_value_is_rejected() -> None:
    with pytest.raises(RecursionError):
        minimal_value(TREE)


FAN = {"type": "object", "properties": {"a": {"$ref": "#/$defs/0"}}, "required": ["a"]}


def fan(to: str) -> dict[str, Any]:
    names = list("abcdefgh")
    return {"type": "object", "properties": {name: {"$ref": f"#/$defs/{to}"} for name in names}, "required": names}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**12},
        {**FAN, "$defs": {**{str(step): fan(str(step + 1)) for step in range(20)}, "20": {"type": "null"}}},
    ],
)
def test_a_schema_with_a_huge_smallest_value_is_rejected(schema: dict[str, Any]) -> None:
    with pytest.raises(RecursionError):
        minimal_value(schema)
