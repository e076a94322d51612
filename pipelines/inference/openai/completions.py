"""Write requests of OpenAI's chat completions API, and read its streamed responses.

An endpoint streams chunks of JSON, each with a piece of text, and reports the number of generated tokens only at the
end. Until then each chunk counts as one token, which is what endpoints send; tokens beyond the text, such as hidden
reasoning, are added at the end. So the journal contains what the endpoint bills.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Literal

import orjson

from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import (
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
)


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
    content = break_control_tokens(message.content)
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": content}
    if not message.calls:
        return {"role": message.role, "content": content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"role": message.role, "content": content or None, "tool_calls": calls}


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


class CompletionReader:
    """Reads the chunks of one answer.

    done  the endpoint has sent its end marker
    """

    def __init__(self, output_format: OutputFormat) -> None:
        self.done = False
        self._output_format = output_format
        self._reason: Literal["stop", "length"] | None = None
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Mapping[str, Any] = {}
        self._yielded_tokens = 0

    def add(self, data: bytes) -> Token | None:
        """Read a chunk and return its text, if any. Raises EngineError for anything else than a chunk."""
        if data == b"[DONE]":
            self.done = True
            return None
        try:
            text = self._add(orjson.loads(data))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise EngineError(f"The endpoint sent an invalid chunk: {data[:200]!r}") from error
        if not text:
            return None
        self._yielded_tokens += 1
        self._text.append(text)
        return Token(text, 1)

    def finish(self, prompt_tokens: int) -> Iterator[EngineOutput]:
        """Yield the calls, the tokens beyond the text, and the end.

        `prompt_tokens` is the count where the endpoint reports no usage. Raises EngineError.
        """
        if self._reason is None:
            raise EngineError("The endpoint's answer ended without a finish reason")
        calls = self._complete_calls()
        if self._reason == "stop":
            self._check(calls)
        extra_tokens = max(int(self._usage.get("completion_tokens") or 0) - self._yielded_tokens, len(calls))
        for position, (name, arguments) in enumerate(calls):
            yield GeneratedCall(name, arguments, extra_tokens - len(calls) + 1 if position == 0 else 1)
        if extra_tokens and not calls:
            yield Token("", extra_tokens)
        self._yielded_tokens += extra_tokens
        yield self._end(self._reason, prompt_tokens)

    def cancelled_finish(self, prompt_tokens: int) -> Finish:
        """Return the end of a cancelled generation."""
        return self._end("cancelled", prompt_tokens if self._yielded_tokens else 0)

    def _end(self, reason: Literal["stop", "length", "cancelled"], prompt_tokens: int) -> Finish:
        prompt_tokens_read = int(self._usage.get("prompt_tokens") or prompt_tokens)
        details = self._usage.get("prompt_tokens_details") or {}
        return Finish(
            reason,
            prompt_tokens_read,
            min(int(details.get("cached_tokens") or 0), prompt_tokens_read),
            self._yielded_tokens,
        )

    def _add(self, chunk: Mapping[str, Any]) -> str:
        if error := chunk.get("error"):
            raise EngineError(f"The endpoint failed during the answer: {str(error)[:300]}")
        self._usage = chunk.get("usage") or self._usage
        text = ""
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                self._add_call(call)
            if reason := choice.get("finish_reason"):
                self._reason = "length" if reason == "length" else "stop"
        return text

    def _add_call(self, part: Mapping[str, Any]) -> None:
        """Add a part of a call: its name arrives once, its arguments piece by piece."""
        call = self._calls.setdefault(int(part.get("index") or 0), {"name": "", "arguments": ""})
        function = part.get("function") or {}
        call["name"] = call["name"] or function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def _complete_calls(self) -> list[tuple[str, str]]:
        """Return the complete calls. Drops one that the token limit cut off. Raises EngineError for invalid ones."""
        names = {tool.name for tool in self._output_format.callable_tools}
        calls = [self._calls[index] for index in sorted(self._calls)][: self._output_format.max_calls]
        if calls and self._reason == "length" and not _is_json(calls[-1]["arguments"] or "{}"):
            calls.pop()
        complete = [(call["name"], call["arguments"] or "{}") for call in calls]
        if any(name not in names or not _is_json(arguments) for name, arguments in complete):
            raise EngineError("The model called an unknown function, or with arguments that are not JSON")
        return complete

    def _check(self, calls: Sequence[object]) -> None:
        """Check the complete answer: not every endpoint enforces the output format, and none reports a violation."""
        if self._output_format.must_call_tool and not calls:
            raise EngineError("The model called no function, although a call was required")
        if self._output_format.schema is not None and not calls and not _is_json("".join(self._text)):
            raise EngineError("The model's answer is not JSON, although JSON was required")


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
