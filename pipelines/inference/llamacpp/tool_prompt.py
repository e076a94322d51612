"""Render tools, calls and their results as text for the model.

All models get the same markup (`pipelines.inference.call_markup`), described in the system message. llama.cpp could use
each template's own, but it neither enforces required calls nor the schema, and fails in the middle of an answer that
does not match; see docs/decisions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from pipelines.inference.call_markup import ARGUMENTS_KEY, CALL_CLOSE, CALL_OPEN, NAME_KEY, OBJECT_END
from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, Tool, ToolCall
from pipelines.inference.speakers import labelled_text

CALL_INSTRUCTIONS = f"""When a function helps, call it: answer with
{CALL_OPEN}{NAME_KEY}"the function's name"{ARGUMENTS_KEY}{{"argument": "value"}}{OBJECT_END}{CALL_CLOSE}
and nothing else. The result comes in <tool_response>. Otherwise answer in words."""

ANY_JSON = "Answer with a JSON object."


def render_messages(prompt: Sequence[Message], output_format: OutputFormat) -> list[dict[str, str]]:
    """Render the prompt as text messages, with the tools that may be called described in the system message."""
    messages = [
        {"role": role, "content": "\n".join(texts), **_reasoning(reasoning)}
        for role, texts, reasoning in _merged(_in_order(prompt))
    ]
    return _with_instructions(messages, output_format)


def _reasoning(text: str) -> dict[str, str]:
    """Return the field of a message with reasoning. Templates that do not support reasoning ignore it."""
    return {"reasoning_content": break_control_tokens(text)} if text else {}


def _merged(messages: Iterable[Message]) -> Iterable[tuple[str, list[str], str]]:
    """Yield the role, the texts and the reasoning of each rendered message.

    Some templates require users and assistants to alternate: a result and a following user message are merged.
    """
    role, texts, former, reasoning = "", list[str](), "", ""
    for message in messages:
        next_role, text = _role_and_text(message)
        if role == next_role == "user" and "tool" in (message.role, former):
            texts.append(text)
            continue
        if texts:
            yield role, texts, reasoning
        role, texts, former, reasoning = next_role, [text], message.role, message.reasoning
    if texts:
        yield role, texts, reasoning


def render_calls(calls: Iterable[ToolCall]) -> str:
    """Render calls as the model writes them."""
    return "\n".join(_render_call(call) for call in calls)


def _render_call(call: ToolCall) -> str:
    name, arguments = break_control_tokens(_json(call.name)), break_control_tokens(call.arguments)
    return f"{CALL_OPEN}{NAME_KEY}{name}{ARGUMENTS_KEY}{arguments}{OBJECT_END}{CALL_CLOSE}"


def _in_order(prompt: Sequence[Message]) -> Iterable[Message]:
    """Sort consecutive results by the order of their calls: as text they have no ids to be matched by."""
    positions = {
        call.id: position for position, call in enumerate(call for message in prompt for call in message.calls)
    }
    results: list[Message] = []
    for message in prompt:
        if message.role == "tool":
            results.append(message)
            continue
        yield from sorted(results, key=lambda result: positions.get(result.call_id or "", 0))
        results.clear()
        yield message
    yield from sorted(results, key=lambda result: positions.get(result.call_id or "", 0))


def _role_and_text(message: Message) -> tuple[str, str]:
    content = break_control_tokens(labelled_text(message))
    if message.role == "tool":
        return "user", f"<tool_response>\n{content}\n</tool_response>"
    if message.calls:
        return "assistant", "\n".join(part for part in (content.rstrip(), render_calls(message.calls)) if part)
    return message.role, content


def _with_instructions(messages: list[dict[str, str]], output_format: OutputFormat) -> list[dict[str, str]]:
    """Append the instructions for the output format to the system message."""
    instructions = "\n\n".join(
        [*_tool_instructions(output_format.callable_tools), *_schema_instructions(output_format.schema)]
    )
    if not instructions:
        return messages
    if messages and messages[0]["role"] == "system":
        first, *others = messages
        return [{"role": "system", "content": f"{first['content']}\n\n{instructions}"}, *others]
    return [{"role": "system", "content": instructions}, *messages]


def _tool_instructions(tools: Sequence[Tool]) -> Iterable[str]:
    if tools:
        lines = (
            _json({"name": tool.name, "description": tool.description, "parameters": tool.parameters}) for tool in tools
        )
        yield "\n".join(
            ["You can call these functions:", *(break_control_tokens(line) for line in lines), "", CALL_INSTRUCTIONS]
        )


def _schema_instructions(schema: Mapping[str, Any] | None) -> Iterable[str]:
    if schema is not None:
        yield break_control_tokens(
            f"Answer with JSON that this schema describes: {_json(schema)}" if schema else ANY_JSON
        )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
