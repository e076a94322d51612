"""Detect whether a model's chat template renders tools, and in which form its calls are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from pipelines.inference.call_markup import BARE, COMMON, OBJECT_END, CallMarkup
from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import OutputFormat, Tool
from pipelines.inference.llamacpp.loopback import LoopbackClient

TOOL = Tool("probe", "Tool 29", {"type": "object", "properties": {"word": {"type": "string"}}})
ARGUMENTS, RESULT = '{"word": "w31"}', "Result 37"

CALL = {"type": "function", "id": "call00001", "function": {"name": TOOL.name, "arguments": ARGUMENTS}}
MESSAGES: Sequence[Mapping[str, Any]] = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": CALL["id"], "name": TOOL.name, "content": RESULT},
)


@dataclass(frozen=True, slots=True)
class ToolTemplate:
    """What the chat template does with tools.

    markup   of calls
    renders  whether the template renders tools, calls and results; otherwise they are text in messages
    """

    markup: CallMarkup = COMMON
    renders: bool = False

    def limited(self, output_format: OutputFormat) -> OutputFormat:
        """Return the output format with at most as many calls as the markup admits."""
        return replace(output_format, parallel=False) if self.markup.starts_answer else output_format

    def parameters(self, output_format: OutputFormat) -> dict[str, Any]:
        """Return the parameters that llama.cpp passes to the chat template."""
        parameters: dict[str, Any] = {}
        if output_format.effort is not None:
            parameters["reasoning_effort"] = output_format.effort
        variables = dict(output_format.template)
        if self.renders and output_format.callable_tools:
            # Not llama.cpp's own parameter `tools`, with which it would parse and constrain the answer itself.
            variables["tools"] = [_function(tool) for tool in output_format.callable_tools]
        if variables:
            parameters["chat_template_kwargs"] = variables
        return parameters


#: Tools as text in the system message: for templates that do not render them, or in a form that is not known.
TEXT_ONLY = ToolTemplate()


def tool_template(loopback: LoopbackClient) -> ToolTemplate:
    """Return what the model's template does with tools."""
    variables = {"chat_template_kwargs": {"tools": [_function(TOOL)]}}
    prompt = _prompt(loopback, {"messages": MESSAGES, **variables})
    if TOOL.description not in prompt or RESULT not in prompt:
        return TEXT_ONLY
    if _example(COMMON) in prompt:
        return ToolTemplate(COMMON, renders=True)
    before = _prompt(loopback, {"messages": MESSAGES[:1], **variables})
    if before and prompt.startswith(before + _example(BARE)):
        return ToolTemplate(BARE, renders=True)
    return TEXT_ONLY


def _example(markup: CallMarkup) -> str:
    name = orjson.dumps(TOOL.name).decode()
    call = f"{markup.name_key}{name}{markup.arguments_key}{ARGUMENTS}{OBJECT_END}"
    return f"{markup.open}{call}{markup.close}"


def _prompt(loopback: LoopbackClient, body: Mapping[str, Any]) -> str:
    return str(loopback.request("POST", "/apply-template", body).get("prompt", ""))


def _function(tool: Tool) -> dict[str, Any]:
    """Return a tool in OpenAI's form. Its texts cannot write control tokens."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    safe: dict[str, Any] = orjson.loads(break_control_tokens(orjson.dumps(function).decode()))
    return {"type": "function", "function": safe}
