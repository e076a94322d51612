"""Write requests of OpenAI's chat completions API."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any

from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, Sampling, Tool
from pipelines.inference.speakers import FIELD_NAME, labelled_text


def max_tokens_field(host: str) -> str:
    """Return the name of the token limit in a request: OpenAI renamed it, and other endpoints expect the old name."""
    return "max_completion_tokens" if _is_openai(host) else "max_tokens"


def cache_isolation(host: str, owner: str | None) -> dict[str, str]:
    """Return the field of a request that keeps an owner's prompts apart in the endpoint's cache.

    vLLM adds `cache_salt` to the hash of each block. OpenAI chooses the machine, and so the cache, by
    `prompt_cache_key`, which makes it unlikely that two owners meet. Without an owner the value is a new one.
    """
    salt = blake2b((owner or token_hex(16)).encode(), digest_size=16).hexdigest()
    return {"prompt_cache_key" if _is_openai(host) else "cache_salt": salt}


def _is_openai(host: str) -> bool:
    return host.partition(":")[0].endswith((".openai.com", ".openai.azure.com"))


def request_body(
    model: str, prompt: Sequence[Message], sampling: Sampling, output_format: OutputFormat, limit: str = "max_tokens"
) -> dict[str, Any]:
    """Return the JSON of a request. Values that are None are left to the endpoint's defaults.

    `limit` is the name of the field for `max_output_tokens`, see `max_tokens_field`.
    """
    body = {
        "model": model,
        "messages": [_message(message) for message in prompt],
        limit: sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": [text for text in sampling.stop if text] or None,
        **(_tools(output_format) if output_format.callable_tools else {}),
        "response_format": _format(output_format.schema),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return {name: value for name, value in body.items() if value is not None}


def _message(message: Message) -> dict[str, Any]:
    named = {"name": message.name} if message.name and FIELD_NAME.fullmatch(message.name) else {}
    content = break_control_tokens(message.content if named else labelled_text(message))
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": content}
    if not message.calls:
        return {"role": message.role, **named, "content": content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"role": message.role, **named, "content": content or None, "tool_calls": calls}


def _tools(output_format: OutputFormat) -> dict[str, Any]:
    # A named function is required by offering only that one: llama-server rejects the object that names it.
    choice = "required" if output_format.must_call_tool else "auto"
    options = {"tools": [{"type": "function", "function": _function(tool)} for tool in output_format.callable_tools],
             "tool_choice": choice}  # fmt: skip
    return options if output_format.max_calls > 1 else {**options, "parallel_tool_calls": False}


def _function(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def _format(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
