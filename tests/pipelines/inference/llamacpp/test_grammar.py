"""An answer is admitted by the grammar exactly when it has the requested format."""

import pytest
from llguidance import LLMatcher, LLTokenizer

from pipelines.inference.engine import MAX_CALLS, OutputFormat, Tool, ToolCall
from pipelines.inference.llamacpp.grammar import calls_grammar, json_grammar
from pipelines.inference.llamacpp.tool_prompt import render_calls

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("weather", "", CITY), Tool('odd"name', "", {}))
ROME = render_calls([ToolCall("", "weather", '{"city": "Rome"}')])
ODD = render_calls([ToolCall("", 'odd"name', "{}")])


def holds(grammar: str, text: str) -> bool:
    """Whether the grammar admits a text, whole."""
    matcher, data = LLMatcher(LLTokenizer("byte"), grammar, log_level=0), list(text.encode())
    assert not matcher.get_error()
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("output_format", "text", "held"),
    [
        (OutputFormat(TOOLS), "", True),
        (OutputFormat(TOOLS), "a < b", True),
        (OutputFormat(TOOLS), f"a\n{ROME}\n{ODD}", True),
        (OutputFormat(TOOLS), f"{ROME} and", False),
        (OutputFormat(TOOLS), "a <tool_call>", False),
        (OutputFormat(TOOLS), "a </tool_response>", False),
        (OutputFormat(TOOLS), f"<tool_response> {ROME}", False),
        (OutputFormat(TOOLS), ROME.replace("city", "town"), False),
        (OutputFormat(TOOLS), ROME.replace('"}', '", "more": 1}'), False),
        (OutputFormat(TOOLS), "\n".join([ODD] * MAX_CALLS), True),
        (OutputFormat(TOOLS), "\n".join([ODD] * (MAX_CALLS + 1)), False),
        (OutputFormat(TOOLS, "required"), "a", False),
        (OutputFormat(TOOLS, "required"), ROME, True),
        (OutputFormat(TOOLS, "required", parallel=False), f"{ROME}\n{ODD}", False),
        (OutputFormat(TOOLS, ("function", "weather")), ODD, False),
        (OutputFormat(TOOLS, schema={}), '{"a": 1}', True),
        (OutputFormat(TOOLS, schema={}), "text", False),
        (OutputFormat(TOOLS, schema={}), ROME, True),
    ],
)
def test_an_answer_that_may_call_is_text_or_calls_as_its_form_says(
    output_format: OutputFormat, text: str, held: bool
) -> None:
    assert holds(calls_grammar(output_format, 0), text) is held


def test_more_calls_follow_those_that_were_made() -> None:
    assert holds(calls_grammar(OutputFormat(TOOLS), 1), "")
    assert holds(calls_grammar(OutputFormat(TOOLS), 1), f"\n{ROME}")
    assert not holds(calls_grammar(OutputFormat(TOOLS), MAX_CALLS - 1), f"\n{ROME}\n{ODD}")


def test_json_comes_on_one_line() -> None:
    assert holds(json_grammar({}), '{"a": [1, "x"]}')
    assert not holds(json_grammar({}), '{ "a": 1}')
    assert not holds(json_grammar(CITY), '{"town": "Rome"}')
