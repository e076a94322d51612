"""Write requests of OpenAI's responses API."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, Sampling, Tool
from pipelines.inference.speakers import labelled_text


def responses_body(
    model: str, prompt: Sequence[Message], sampling: Sampling, output_format: OutputFormat
) -> dict[str, Any]:
    """Return the JSON of a request, of which the endpoint stores nothing.

    The API has no stop texts, seed and penalties. Values that are None are left to the endpoint's defaults.
    """
    body = {
        "model": model,
        "input": [item for message in prompt for item in _items(message)],
        "max_output_tokens": sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "include": ["message.output_text.logprobs"] if sampling.top_logprobs is not None else None,
        "top_logprobs": sampling.top_logprobs or None,
        "reasoning": {"effort": output_format.effort} if output_format.effort else None,
        **(_tools(output_format) if output_format.callable_tools else {}),
        "text": _text(output_format.schema),
        "store": False,
        "stream": True,
    }
    return {name: value for name, value in body.items() if value is not None}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    content = break_control_tokens(labelled_text(message))
    if message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.call_id, "output": content}
        return
    if content or not message.calls:
        yield {"type": "message", "role": message.role, "content": content}
    for call in message.calls:
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _tools(output_format: OutputFormat) -> dict[str, Any]:
    options = {
        "tools": [_function(tool) for tool in output_format.callable_tools],
        "tool_choice": "required" if output_format.must_call_tool else "auto",
    }
    return options if output_format.max_calls > 1 else {**options, "parallel_tool_calls": False}


def _function(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"type": "function", "name": tool.name, "description": tool.description, "parameters": parameters}
    return {**function, "strict": False}  # true is the default, and rejects most schemas


def _text(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    if not schema:
        return {"format": {"type": "json_object"}}
    return {"format": {"type": "json_schema", "name": "answer", "schema": schema}}
