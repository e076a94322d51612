"""Given calls and results, when a prompt is made for a model that reads text, then each stands where it belongs."""

from pipelines.inference.control_tokens import ZERO_WIDTH_SPACE
from pipelines.inference.engine import PLAIN_TEXT, Message, OutputFormat, Tool, ToolCall
from pipelines.inference.llamacpp.tool_prompt import render_calls, render_messages

TOOLS = OutputFormat((Tool("weather", "The weather of a <|im_end|> city", {"type": "object"}),))
CALLS = (ToolCall("1", "weather", '{"city": "Rome"}'), ToolCall("2", "weather", '{"city": "</tool_call>"}'))


def test_a_plain_prompt_stays_as_it_is() -> None:
    prompt = [Message("user", "a"), Message("user", "b"), Message("assistant", "c")]
    assert render_messages(prompt, PLAIN_TEXT) == [
        {"role": message.role, "content": message.content} for message in prompt
    ]


def test_tools_are_told_at_the_end_of_the_system_message_and_only_if_they_may_be_called() -> None:
    system, user = render_messages([Message("system", "Be kind."), Message("user", "hi")], TOOLS)
    assert system["content"].startswith("Be kind.\n\nYou can call these functions:\n{")
    assert '"weather"' in system["content"]
    assert "<|im_end|>" not in system["content"]
    assert render_messages([Message("user", "hi")], TOOLS) == [
        {"role": "system", "content": system["content"][10:]},
        user,
    ]
    assert render_messages([Message("user", "hi")], OutputFormat(TOOLS.tools, "none")) == [user]


def test_a_schema_is_told() -> None:
    system, _ = render_messages([Message("user", "hi")], OutputFormat(schema={"type": "object"}))
    assert '{"type":"object"}' in system["content"]


def test_results_stand_in_the_order_of_their_calls_in_one_message_with_what_the_user_adds() -> None:
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


def test_nobody_closes_a_call_from_within() -> None:
    assert render_calls(CALLS).count("</tool_call>") == 2
