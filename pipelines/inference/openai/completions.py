"""Chat completions as OpenAI made them common: what is asked, and what is heard.

An endpoint streams JSON, a piece of text in each chunk, and tells only at the end how many tokens it has generated.
Until then a chunk counts as one token, which is what endpoints send; what was generated beside them, such as thoughts
that nobody is shown, is added at the end. So the journal carries what the endpoint bills.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    """What a host calls the most tokens of an answer: its inventors have renamed it, and others know the first name."""
    name, _, _ = host.partition(":")
    renamed = name.endswith((".openai.com", ".openai.azure.com"))
    return "max_completion_tokens" if renamed else "max_tokens"


def request_body(
    model: str, prompt: Sequence[Message], sampling: Sampling, output_format: OutputFormat, limit: str = "max_tokens"
) -> dict[str, Any]:
    """The request's JSON. What is None is left to the endpoint's default; `limit` is what `limit_of` tells."""
    asked = {
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
    return {name: value for name, value in asked.items() if value is not None}


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
    # Which one must be called is told by offering no other: llama-server doesn't know the object that names it.
    choice = "required" if output_format.must_call_tool else "auto"
    asked = {"tools": [{"type": "function", "function": _function(tool)} for tool in output_format.callable_tools],
             "tool_choice": choice}  # fmt: skip
    return asked if output_format.max_calls > 1 else {**asked, "parallel_tool_calls": False}


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
    """An answer as far as it has been heard.

    done  the endpoint says that nothing more comes
    """

    def __init__(self, output_format: OutputFormat) -> None:
        self.done = False
        self._form = output_format
        self._reason: Literal["stop", "length"] | None = None
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Mapping[str, Any] = {}
        self._told = 0

    def add(self, data: bytes) -> Token | None:
        """Hear a chunk; what text it has. Raises EngineError for what is no chunk."""
        if data == b"[DONE]":
            self.done = True
            return None
        try:
            text = self._add(orjson.loads(data))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise EngineError(f"the endpoint sent what is no chunk of a completion: {data[:200]!r}") from error
        if not text:
            return None
        self._told += 1
        self._text.append(text)
        return Token(text, 1)

    def finish(self, prompt_tokens: int) -> Iterator[EngineOutput]:
        """What is told at the end. `prompt_tokens` counts where the endpoint tells no usage. Raises EngineError."""
        if self._reason is None:
            raise EngineError("the endpoint's answer ended in its middle")
        calls = self._whole_calls()
        if self._reason == "stop":
            self._check(calls)
        beside = max(int(self._usage.get("completion_tokens") or 0) - self._told, len(calls))
        for place, (name, arguments) in enumerate(calls):
            yield GeneratedCall(name, arguments, beside - len(calls) + 1 if place == 0 else 1)
        if beside and not calls:
            yield Token("", beside)
        self._told += beside
        yield self._end(self._reason, prompt_tokens)

    def cancelled_finish(self, prompt_tokens: int) -> Finish:
        """The end where nobody wants more."""
        return self._end("cancelled", prompt_tokens if self._told else 0)

    def _end(self, reason: Literal["stop", "length", "cancelled"], prompt_tokens: int) -> Finish:
        read = int(self._usage.get("prompt_tokens") or prompt_tokens)
        details = self._usage.get("prompt_tokens_details") or {}
        return Finish(reason, read, min(int(details.get("cached_tokens") or 0), read), self._told)

    def _add(self, chunk: Mapping[str, Any]) -> str:
        if error := chunk.get("error"):
            raise EngineError(f"the endpoint failed in mid-answer: {str(error)[:300]}")
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
        """A call comes in parts: its name once, its arguments bit by bit."""
        call = self._calls.setdefault(int(part.get("index") or 0), {"name": "", "arguments": ""})
        function = part.get("function") or {}
        call["name"] = call["name"] or function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def _whole_calls(self) -> list[tuple[str, str]]:
        """The calls that may be told. One that the limit has cut is not; any other that is none is an EngineError."""
        names = {tool.name for tool in self._form.callable_tools}
        calls = [self._calls[index] for index in sorted(self._calls)][: self._form.max_calls]
        if calls and self._reason == "length" and not _is_json(calls[-1]["arguments"] or "{}"):
            calls.pop()
        whole = [(call["name"], call["arguments"] or "{}") for call in calls]
        if any(name not in names or not _is_json(arguments) for name, arguments in whole):
            raise EngineError("the model's call is none of a function that it has")
        return whole

    def _check(self, calls: Sequence[object]) -> None:
        """Not every endpoint holds its model to the form, and none says so."""
        if self._form.must_call_tool and not calls:
            raise EngineError("the model called no function, although it had to")
        if self._form.schema is not None and not calls and not _is_json("".join(self._text)):
            raise EngineError("the model's answer is not JSON, although it had to be")


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
