"""A JSON Schema that no grammar can enforce is rejected before the engine starts."""

from typing import Any

import pytest

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import OutputFormat, Tool
from pipelines.inference.json_schema import NamedSchema, check_output_format, enforced_schema, first_schema_error


def schema_error(schema: dict[str, Any], *, strict: bool = False) -> str | None:
    found = first_schema_error([NamedSchema("text", schema, strict)])
    return found and found[1]


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        (CITY, None),
        ({"not": {}, "uniqueItems": True, "oneOf": [{"type": "object"}]}, None),  # ignored
        ({"type": "foo"}, "Invalid type: foo"),
        ({"$ref": "#/$defs/no"}, "does not exist"),
        ({"type": "string", "pattern": "(?=a)b"}, None),  # ignored
        ({"type": "object", "patternProperties": {"(?=a)b": {}}}, None),  # ignored
        ({"type": "integer", "multipleOf": 1_000_003}, "remainders"),
        ({"type": "number", "multipleOf": 0.01}, None),
        ({"type": "object", "properties": {"score": {}}, "patternProperties": {"^score$": {}}}, "'^score$'"),
        ({"type": "object", "properties": {"score": {}}, "patternProperties": {"^x-": {}}}, None),
        ({"type": "object", "properties": {f"p{n}": {} for n in range(500)}}, "more than 400"),
        ({"enum": ["x" * 99] * 2_000}, "bytes"),
    ],
)
def test_a_schema_that_no_grammar_can_enforce_is_rejected_with_its_error(
    schema: dict[str, Any], error: str | None
) -> None:
    message = schema_error(schema)
    assert (message is None) if error is None else error in (message or "")


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        ([{"type": "string"}, {"type": "integer"}], None),
        ([{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}], "use 'anyOf'"),
    ],
)
def test_choices_that_may_be_valid_together_are_rejected_if_strict(choices: list[Any], error: str | None) -> None:
    message = schema_error({"oneOf": choices}, strict=True)

    assert (message is None) if error is None else error in (message or "")
    assert schema_error({"oneOf": choices}) is None


def test_an_output_format_that_no_grammar_can_enforce_is_a_permanent_failure() -> None:
    for output_format in (OutputFormat(schema={"type": "foo"}), OutputFormat((Tool("f", "", {"type": "foo"}),))):
        with pytest.raises(PermanentFailure, match="JSON Schema") as caught:
            check_output_format(output_format)
        assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("bound", ["minItems", "maxItems"])
def test_a_schema_that_counts_too_many_items_is_rejected(bound: str) -> None:
    few, many = {"type": "array", bound: 1000}, {"type": "array", bound: 10**9}
    assert schema_error({"properties": {"a": few}}) is None
    assert "items" in str(schema_error({"properties": {"a": many}}))
    assert "items" in str(schema_error({"anyOf": [few] * 6}))
    assert "items" in str(schema_error({"$defs": {"a": many}, "$ref": "#/$defs/a"}))
    assert schema_error({"properties": {bound: {"type": "string"}}}) is None


#: A schema that only an endless value satisfies: each object contains another.
ENDLESS = {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}}


@pytest.mark.parametrize(
    ("schema", "is_finite"),
    [
        ({"$ref": "#/$defs/A", "$defs": ENDLESS}, False),
        ({"type": "object", "properties": {"t": {"$ref": "#/$defs/A"}}, "required": ["t"], "$defs": ENDLESS}, False),
        ({"type": "object", "properties": {"t": {"$ref": "#/$defs/A"}}, "$defs": ENDLESS}, True),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}], "$defs": ENDLESS}, True),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, False),
        ({"type": "array", "items": {"$ref": "#"}}, True),
    ],
)
def test_a_schema_that_only_an_endless_value_satisfies_is_rejected(schema: dict[str, Any], is_finite: bool) -> None:
    assert ("no finite value" in str(schema_error(schema))) is not is_finite


@pytest.mark.parametrize("pattern", [r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", r"(?<=a)b", r"(a)\1", r"\bfoo", r"foo\Z"])
def test_a_pattern_that_no_grammar_can_enforce_is_ignored_unless_strict(pattern: str) -> None:
    # Given the schema of a decimal that pydantic writes, and values that look like the keyword
    price = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern, "maxLength": 9}]}
    schema = {"type": "object", "properties": {"price": price, "pattern": {"const": {"pattern": pattern}}}}
    # Then without strict only the pattern is left out
    assert schema_error(schema) is None
    enforced = enforced_schema(schema)["properties"]
    assert enforced["price"]["anyOf"][1] == {"type": "string", "maxLength": 9}
    assert enforced["pattern"] == {"const": {"pattern": pattern}}
    # And with strict the error names property and pattern
    error = str(schema_error(schema, strict=True))
    assert "'price'" in error
    assert pattern in error
