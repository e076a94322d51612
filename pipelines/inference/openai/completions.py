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
    return "max_completion_tokens" if is_openai(host) else "max_tokens"


def cache_isolation(host: str, owner: str | None) -> dict[str, str]:
    """Return the field of a request that keeps an owner's prompts apart in the endpoint's cache.

    vLLM adds `cache_salt` to the hash of each block. OpenAI chooses the machine, and so the cache, by
    `prompt_cache_key`, which makes it unlikely that two owners meet. Without an owner the value is a new one.
    """
    salt = blake2b((owner or token_hex(16)).encode(), digest_size=16).hexdigest()
    return {"prompt_cache_key" if is_openai(host) else "cache_salt": salt}


def is_openai(host: str) -> bool:
    """Return whether a host is OpenAI's, which rejects fields of other endpoints."""
    return host.partition(":")[0].endswith((".openai.com", ".openai.azure.com"))


def request_body(
    model: str, prompt: Sequence[Message], sampling: Sampling, output_format: OutputFormat, host: str = ""
) -> dict[str, Any]:
    """Return the JSON of a request. Values that are None are left to the endpoint's defaults."""
    body = {
        "model": model,
        "messages": [_message(message, with_reasoning=not is_openai(host)) for message in prompt],
        max_tokens_field(host): sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": [text for text in sampling.stop if text] or None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "logprobs": True if sampling.top_logprobs is not None else None,
        "top_logprobs": sampling.top_logprobs or None,
        "reasoning_effort": output_format.effort,
        **({} if is_openai(host) else _further_parameters(sampling, output_format)),
        **(_tools(output_format) if output_format.callable_tools else {}),
        "response_format": _format(output_format.schema),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return {name: value for name, value in body.items() if value is not None}


def continuation(messages: Sequence[Mapping[str, Any]], answer: Message) -> dict[str, Any]:
    """Return the fields of a request that continues an answer, which is its last message.

    llama-server continues an assistant message at the end by itself. vLLM does so with these two options, of which it
    rejects the first without the second.
    """
    message = {"role": "assistant", "content": answer.content}
    reasoning = {"reasoning_content": answer.reasoning} if answer.reasoning else {}
    return {
        "messages": [*messages, {**message, **reasoning}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def _further_parameters(sampling: Sampling, output_format: OutputFormat) -> dict[str, Any]:
    """Return the parameters that OpenAI's API lacks, under their names in vLLM and llama-server."""
    return {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repetition_penalty": sampling.repetition_penalty,
        "repeat_penalty": sampling.repetition_penalty,  # llama-server's name
        "min_tokens": sampling.min_tokens or None,
        "ignore_eos": sampling.ignore_eos or None,
        "chat_template_kwargs": dict(output_format.template) or None,
    }


def _message(message: Message, *, with_reasoning: bool) -> dict[str, Any]:
    named = {"name": message.name} if message.name and FIELD_NAME.fullmatch(message.name) else {}
    content = break_control_tokens(message.content if named else labelled_text(message))
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": content}
    reasoning = {"reasoning_content": message.reasoning} if message.reasoning and with_reasoning else {}
    if not message.calls:
        return {"role": message.role, **named, "content": content, **reasoning}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"role": message.role, **named, "content": content or None, "tool_calls": calls, **reasoning}


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
