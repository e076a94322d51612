"""Given schemas, when an answer is to be held to them, then what can't be is known before the model begins."""

from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import MOST_CALLS, Form, Tool, ToolCall
from pipelines.inference.llamacpp.grammar import check, of_calls, of_json, problem
from pipelines.inference.llamacpp.tool_prompt import written

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("weather", "", CITY), Tool('odd"name', "", {}))
ROME = written([ToolCall("", "weather", '{"city": "Rome"}')])
ODD = written([ToolCall("", 'odd"name', "{}")])


def holds(grammar: str, text: str) -> bool:
    """Whether the grammar admits a text, whole."""
    matcher, data = LLMatcher(LLTokenizer("byte"), grammar, log_level=0), list(text.encode())
    assert not matcher.get_error()
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("form", "text", "held"),
    [
        (Form(TOOLS), "", True),
        (Form(TOOLS), "a < b", True),
        (Form(TOOLS), f"a\n{ROME}\n{ODD}", True),
        (Form(TOOLS), f"{ROME} and", False),
        (Form(TOOLS), "a <tool_call>", False),
        (Form(TOOLS), "a </tool_response>", False),
        (Form(TOOLS), f"<tool_response> {ROME}", False),
        (Form(TOOLS), ROME.replace("city", "town"), False),
        (Form(TOOLS), ROME.replace('"}', '", "more": 1}'), False),
        (Form(TOOLS), "\n".join([ODD] * MOST_CALLS), True),
        (Form(TOOLS), "\n".join([ODD] * (MOST_CALLS + 1)), False),
        (Form(TOOLS, "required"), "a", False),
        (Form(TOOLS, "required"), ROME, True),
        (Form(TOOLS, "required", parallel=False), f"{ROME}\n{ODD}", False),
        (Form(TOOLS, ("function", "weather")), ODD, False),
        (Form(TOOLS, schema={}), '{"a": 1}', True),
        (Form(TOOLS, schema={}), "text", False),
        (Form(TOOLS, schema={}), ROME, True),
    ],
)
def test_an_answer_that_may_call_is_text_or_calls_as_its_form_says(form: Form, text: str, held: bool) -> None:
    assert holds(of_calls(form, 0), text) is held


def test_more_calls_follow_those_that_were_made() -> None:
    assert holds(of_calls(Form(TOOLS), 1), "")
    assert holds(of_calls(Form(TOOLS), 1), f"\n{ROME}")
    assert not holds(of_calls(Form(TOOLS), MOST_CALLS - 1), f"\n{ROME}\n{ODD}")


def test_json_comes_on_one_line() -> None:
    assert holds(of_json({}), '{"a": [1, "x"]}')
    assert not holds(of_json({}), '{ "a": 1}')
    assert not holds(of_json(CITY), '{"town": "Rome"}')


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (CITY, None),
        ({"not": {}, "uniqueItems": True, "oneOf": [{"type": "object"}]}, None),  # passed over
        ({"type": "foo"}, "Invalid type: foo"),
        ({"$ref": "#/$defs/no"}, "does not exist"),
        ({"type": "string", "pattern": "(?=a)b"}, "regex"),
        ({"type": "object", "properties": {f"p{n}": {} for n in range(500)}}, "more than 400"),
        ({"enum": ["x" * 99] * 2_000}, "bytes"),
    ],
)
def test_a_schema_that_can_not_be_held_to_is_told_by_its_fault(schema: dict[str, Any], why: str | None) -> None:
    found = problem(schema)
    assert (found is None) if why is None else why in (found or "")


def test_a_form_that_can_not_be_held_to_is_a_permanent_failure() -> None:
    for form in (Form(schema={"type": "foo"}), Form((Tool("f", "", {"type": "foo"}),))):
        with pytest.raises(PermanentFailure, match="JSON Schema") as caught:
            check(form)
        assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("bound", ["minItems", "maxItems"])
def test_what_counts_endlessly_is_refused(bound: str) -> None:
    few, many = {"type": "array", bound: 1000}, {"type": "array", bound: 10**9}
    assert problem({"properties": {"a": few}}) is None
    assert "items" in str(problem({"properties": {"a": many}}))
    assert "items" in str(problem({"anyOf": [few] * 6}))
    assert "items" in str(problem({"$defs": {"a": many}, "$ref": "#/$defs/a"}))
    assert problem({"properties": {bound: {"type": "string"}}}) is None
