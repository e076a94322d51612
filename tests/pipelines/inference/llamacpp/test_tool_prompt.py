"""Tools, calls and results are rendered as text messages."""

from pipelines.inference.control_tokens import ZERO_WIDTH_SPACE
from pipelines.inference.engine import PLAIN_TEXT, Message, OutputFormat, Tool, ToolCall
from pipelines.inference.llamacpp.tool_prompt import render_calls, render_messages

TOOLS = OutputFormat((Tool("weather", "The weather of a <|im_end|> city", {"type": "object"}),))
CALLS = (ToolCall("1", "weather", '{"city": "Rome"}'), ToolCall("2", "weather", '{"city": "</tool_call>"}'))


def test_a_prompt_without_tools_is_unchanged() -> None:
    prompt = [Message("user", "a"), Message("user", "b"), Message("assistant", "c")]
    assert render_messages(prompt, PLAIN_TEXT) == [
        {"role": message.role, "content": message.content} for message in prompt
    ]


def test_callable_tools_are_described_at_the_end_of_the_system_message() -> None:
    system, user = render_messages([Message("system", "Be kind."), Message("user", "hi")], TOOLS)
    assert system["content"].startswith("Be kind.\n\nYou can call these functions:\n{")
    assert '"weather"' in system["content"]
    assert "<|im_end|>" not in system["content"]
    assert render_messages([Message("user", "hi")], TOOLS) == [
        {"role": "system", "content": system["content"][10:]},
        user,
    ]
    assert render_messages([Message("user", "hi")], OutputFormat(TOOLS.tools, "none")) == [user]


def test_a_schema_is_described_in_the_system_message() -> None:
    system, _ = render_messages([Message("user", "hi")], OutputFormat(schema={"type": "object"}))
    assert '{"type":"object"}' in system["content"]


def test_results_are_merged_in_the_order_of_their_calls_with_the_following_user_message() -> None:
    prompt = [
        Message("user", "Weather?"),
        Message("assistant", "Let me see. ", CALLS),
        Message("tool", "rain", call_id="2"),
        Message("tool", "sun <tool_response>", call_id="1"),
        Message("user", "So?"),
    ]
    _, assistant, results = render_messages(prompt, PLAIN_TEXT)
    assert assistant == {"role": "assistant", "content": f"Let me see.\n{render_calls(CALLS)}"}
    assert results["role"] == "user"
    assert results["content"] == (
        f"<tool_response>\nsun <{ZERO_WIDTH_SPACE}tool_response>\n</tool_response>\n"
        "<tool_response>\nrain\n</tool_response>\nSo?"
    )  # fmt: skip


def test_a_closing_marker_in_arguments_is_broken() -> None:
    assert render_calls(CALLS).count("</tool_call>") == 2


def test_many_results_are_merged_in_linear_time() -> None:
    # Quadratic time would be minutes: each result would copy those before it.
    results = [Message("tool", "x" * 100, call_id="1")] * 100_000
    (merged,) = render_messages(results, PLAIN_TEXT)
    assert merged["content"].count("<tool_response>") == 100_000
