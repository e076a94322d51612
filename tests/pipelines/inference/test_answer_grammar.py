"""An answer is admitted by the grammar exactly when it has the requested format."""

import pytest
from llguidance import LLMatcher, LLTokenizer

from pipelines.inference.answer_grammar import calls_grammar, json_grammar
from pipelines.inference.call_markup import BARE
from pipelines.inference.engine import MAX_CALLS, OutputFormat, Tool, ToolCall
from pipelines.inference.llamacpp.tool_prompt import render_calls

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("weather", "", CITY), Tool('odd"name', "", {}))
ROME = render_calls([ToolCall("", "weather", '{"city": "Rome"}')])
BARE_ROME = render_calls([ToolCall("", "weather", '{"city": "Rome"}')], BARE)
BARE_ODD = render_calls([ToolCall("", 'odd"name', "{}")], BARE)
ODD = render_calls([ToolCall("", 'odd"name', "{}")])


def admits(grammar: str, text: str) -> bool:
    """Return whether the grammar admits exactly this text."""
    matcher, data = LLMatcher(LLTokenizer("byte"), grammar, log_level=0), list(text.encode())
    assert not matcher.get_error()
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("output_format", "text", "admitted"),
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
def test_an_answer_is_text_or_calls_as_the_output_format_says(
    output_format: OutputFormat, text: str, admitted: bool
) -> None:
    assert admits(calls_grammar(output_format, 0), text) is admitted


@pytest.mark.parametrize(
    ("output_format", "text", "admitted"),
    [
        (OutputFormat(TOOLS), BARE_ROME, True),
        (OutputFormat(TOOLS), f"{BARE_ROME}{BARE_ROME}", False),
        (OutputFormat(TOOLS), f" {BARE_ROME}", False),
        (OutputFormat(TOOLS), BARE_ROME.replace("city", "town"), False),
        (OutputFormat(TOOLS), BARE_ROME.replace("weather", "other"), False),
        (OutputFormat(TOOLS), BARE_ROME.replace(": ", ":"), False),
        (OutputFormat(TOOLS), "a < b", True),
        (OutputFormat(TOOLS), '{"title": "a"}', True),
        (OutputFormat(TOOLS, "required"), BARE_ROME, True),
        (OutputFormat(TOOLS, "required"), "a", False),
        (OutputFormat(TOOLS, schema={}), '{"a": 1}', True),
        (OutputFormat(TOOLS, schema={}), BARE_ROME, True),
        (OutputFormat(TOOLS, schema=CITY), '{"city": "Rome"}', True),
        (OutputFormat(TOOLS, schema=CITY), BARE_ROME, True),
        (OutputFormat(TOOLS, schema=CITY), BARE_ROME.replace("city", "town"), False),
        (OutputFormat(TOOLS, schema=CITY), BARE_ODD, True),
        (OutputFormat(TOOLS, schema={}), "text", False),
    ],
)
def test_a_call_without_markers_is_the_whole_answer(output_format: OutputFormat, text: str, admitted: bool) -> None:
    assert admits(calls_grammar(output_format, 0, markup=BARE), text) is admitted


def test_further_calls_follow_those_already_made() -> None:
    assert admits(calls_grammar(OutputFormat(TOOLS), 1), "")
    assert admits(calls_grammar(OutputFormat(TOOLS), 1), f"\n{ROME}")
    assert not admits(calls_grammar(OutputFormat(TOOLS), MAX_CALLS - 1), f"\n{ROME}\n{ODD}")


def test_json_has_no_line_breaks() -> None:
    assert admits(json_grammar({}), '{"a": [1, "x"]}')
    assert not admits(json_grammar({}), '{ "a": 1}')
    assert not admits(json_grammar(CITY), '{"town": "Rome"}')
