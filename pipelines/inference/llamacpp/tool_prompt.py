"""Render tools, calls and their results for the model: through its chat template, or as text.

A template that renders tools in a form that we know gets calls and results as fields of messages, and the tools as a
variable. Other models get the common markup, described in the system message. Never llama.cpp's own parameter `tools`:
with it, required calls and schemas are not enforced, and an answer that does not match fails in its middle; see
docs/decisions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from pipelines.inference.call_markup import COMMON, OBJECT_END, CallMarkup
from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, Tool, ToolCall
from pipelines.inference.llamacpp.tool_template import TEXT_ONLY, ToolTemplate
from pipelines.inference.speakers import labelled_text

OPEN, CLOSE = COMMON.open, COMMON.close

CALL_INSTRUCTIONS = f"""When a function helps, call it: answer with
{OPEN}{COMMON.name_key}"the function's name"{COMMON.arguments_key}{{"argument": "value"}}{OBJECT_END}{CLOSE}
and nothing else. The result comes in <tool_response>. Otherwise answer in words."""

ANY_JSON = "Answer with a JSON object."


def render_messages(
    prompt: Sequence[Message], output_format: OutputFormat, template: ToolTemplate = TEXT_ONLY
) -> list[dict[str, Any]]:
    """Render the prompt as messages. Without a template for them, the callable tools are in the system message."""
    if template.renders:
        messages = _with_first_user([message for each in _in_order(prompt) for message in _fields(each, template)])
        return _with_instructions(messages, output_format, ())
    messages = [
        {"role": role, "content": "\n".join(texts), **_reasoning(reasoning)}
        for role, texts, reasoning in _merged(_in_order(prompt))
    ]
    return _with_instructions(messages, output_format, output_format.callable_tools)


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


def render_calls(calls: Iterable[ToolCall], markup: CallMarkup = COMMON) -> str:
    """Render calls as the model writes them."""
    return "\n".join(_render_call(call, markup) for call in calls)


def _render_call(call: ToolCall, markup: CallMarkup) -> str:
    name, arguments = break_control_tokens(_json(call.name)), break_control_tokens(call.arguments)
    return f"{markup.open}{markup.name_key}{name}{markup.arguments_key}{arguments}{OBJECT_END}{markup.close}"


def _fields(message: Message, template: ToolTemplate) -> Iterable[dict[str, Any]]:
    """Yield the message for a template that renders calls and results.

    A form with one call in an answer gets several as one message each, and text before them as another.
    """
    content, reasoning = break_control_tokens(labelled_text(message)), _reasoning(message.reasoning)
    calls = [_call_field(call) for call in message.calls]
    if message.role == "tool":
        yield {"role": "tool", "tool_call_id": message.call_id or "", "content": content}
    elif not calls:
        yield {"role": message.role, "content": content, **reasoning}
    elif not template.markup.starts_answer:
        yield {"role": "assistant", "content": content.rstrip(), "tool_calls": calls, **reasoning}
    else:
        if content:
            yield {"role": "assistant", "content": content, **reasoning}
        yield from ({"role": "assistant", "content": "", "tool_calls": [call]} for call in calls)


def _call_field(call: ToolCall) -> dict[str, Any]:
    arguments = break_control_tokens(call.arguments)
    function = {"name": break_control_tokens(call.name), "arguments": _object_text(arguments)}
    return {"type": "function", "id": call.id, "function": function}


def _object_text(arguments: str) -> str:
    """Return arguments that templates can read: clients may send back others than a JSON object."""
    try:
        return arguments if isinstance(orjson.loads(arguments), dict) else _json({"arguments": arguments})
    except orjson.JSONDecodeError:
        return _json({"arguments": arguments})


def _with_first_user(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Begin with a user message after the system's: some templates write the tools into it."""
    number = int(bool(messages) and messages[0]["role"] == "system")
    if messages[number : number + 1] and messages[number]["role"] == "user":
        return messages
    return [*messages[:number], {"role": "user", "content": ""}, *messages[number:]]


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


def _with_instructions(
    messages: list[dict[str, Any]], output_format: OutputFormat, described: Sequence[Tool]
) -> list[dict[str, Any]]:
    """Append the instructions for the output format to the system message."""
    instructions = "\n\n".join([*_tool_instructions(described), *_schema_instructions(output_format.schema)])
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
