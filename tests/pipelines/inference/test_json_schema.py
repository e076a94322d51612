"""A JSON Schema that no grammar can enforce is rejected before the engine starts."""

from typing import Any

import pytest

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import OutputFormat, Tool
from pipelines.inference.json_schema import check_output_format, schema_error

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        (CITY, None),
        ({"not": {}, "uniqueItems": True, "oneOf": [{"type": "object"}]}, None),  # ignored
        ({"type": "foo"}, "Invalid type: foo"),
        ({"$ref": "#/$defs/no"}, "does not exist"),
        ({"type": "string", "pattern": "(?=a)b"}, "regex"),
        ({"type": "object", "properties": {f"p{n}": {} for n in range(500)}}, "more than 400"),
        ({"enum": ["x" * 99] * 2_000}, "bytes"),
    ],
)
def test_a_schema_that_no_grammar_can_enforce_is_rejected_with_its_error(
    schema: dict[str, Any], error: str | None
) -> None:
    message = schema_error(schema)
    assert (message is None) if error is None else error in (message or "")


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
