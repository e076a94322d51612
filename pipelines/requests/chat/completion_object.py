"""Convert response objects to OpenAI's chat completion objects, and failed responses to errors."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from models.platform.errors import Conflict, InvalidRequest, JobFailed, RequestError, WaitTimedOut
from models.serving.served_models import ServedModels
from pipelines.chat.logprobs import with_bytes
from pipelines.chat.response_objects import reasoning_text
from pipelines.chat.service_tiers import ServedTier

FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "function_call"]

#: Types of items that a chat completion has as tool calls.
TOOL_CALLS = ("function_call", "custom_tool_call")


#: Between the texts of two generations of a turn.
MESSAGE_SEPARATOR = "\n\n"


class FunctionObject(TypedDict):
    """A called function and its arguments, a JSON object as a string."""

    name: str
    arguments: str


class ToolCallObject(TypedDict):
    """A tool call of the model."""

    id: str
    type: Literal["function"]
    function: FunctionObject


class CustomObject(TypedDict):
    """A called custom tool and its input."""

    name: str
    input: str


class CustomToolCallObject(TypedDict):
    """A call of a custom tool."""

    id: str
    type: Literal["custom"]
    custom: CustomObject


class MessageObject(TypedDict):
    """The answer of the model."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: NotRequired[str]
    refusal: None
    annotations: list[Any]
    tool_calls: NotRequired[list[ToolCallObject | CustomToolCallObject]]
    function_call: NotRequired[FunctionObject]


class LogprobsObject(TypedDict):
    """The log probabilities of the answer's tokens, if the request asks for them."""

    content: list[Any]
    refusal: None


class ChoiceObject(TypedDict):
    """A choice of a completion."""

    index: int
    message: MessageObject
    logprobs: LogprobsObject | None
    finish_reason: FinishReason


class PromptDetails(TypedDict):
    """A breakdown of the prompt's tokens."""

    cached_tokens: int
    audio_tokens: int


class CompletionDetails(TypedDict):
    """A breakdown of the answer's tokens."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class CompletionUsage(TypedDict):
    """The billed tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ChatCompletion(TypedDict):
    """A chat completion. `created` is in Unix seconds."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChoiceObject]
    usage: CompletionUsage
    service_tier: ServedTier
    system_fingerprint: str
    metadata: dict[str, str]


def completion_object(
    responses: Sequence[Mapping[str, Any]], models: ServedModels, *, calls_functions: bool = False
) -> ChatCompletion:
    """Convert ended responses with answers to the choices of a completion.

    With `calls_functions` a call is returned as `function_call`, the former name of tool calls.
    """
    first = responses[0]
    return {
        "id": completion_id(first["id"]),
        "object": "chat.completion",
        "created": first["created_at"],
        "model": first["model"],
        "choices": [
            {
                "index": index,
                "message": message_object(response, calls_functions=calls_functions),
                "logprobs": logprobs_object(_text_parts(response)),
                "finish_reason": finish_reason(response, calls_functions=calls_functions),
            }
            for index, response in enumerate(responses)
        ],
        "usage": sum_usage([response["usage"] for response in responses]),
        "service_tier": first["service_tier"],
        "system_fingerprint": system_fingerprint(models, first["model"]),
        "metadata": first["metadata"],
    }


def completion_id(response_id: str) -> str:
    """Convert the id of a response to the id of its completion."""
    return "chatcmpl-" + response_id.removeprefix("resp_")


def system_fingerprint(models: ServedModels, model: str) -> str:
    """Return a hash of a model's engine, name and context: if it changes, the same seed may produce another answer.

    An agent has that of the default model.
    """
    known = (models.find(model) or models.default).description
    configuration = f"{known.engine} {known.name} {known.context}"
    return "fp_" + hashlib.sha256(configuration.encode()).hexdigest()[:10]


def message_object(response: Mapping[str, Any], *, calls_functions: bool = False) -> MessageObject:
    """Convert the output of an ended response to a message."""
    text = text_of(response)
    calls = [item for item in response["output"] if item["type"] in TOOL_CALLS]
    message: MessageObject = {
        "role": "assistant", "content": text if text or not calls else None, "refusal": None, "annotations": []
    }  # fmt: skip
    if reasoning := "".join(reasoning_text(item) for item in response["output"] if item["type"] == "reasoning"):
        message["reasoning_content"] = reasoning
    if calls and calls_functions:
        message["function_call"] = function_object(calls[0])
    elif calls:
        message["tool_calls"] = [tool_call_object(item) for item in calls]
    return message


def logprobs_object(texts: Sequence[Mapping[str, Any]]) -> LogprobsObject | None:
    """Convert the log probabilities of parts or deltas of the text; None if there are none."""
    content = [with_bytes(entry) for text in texts for entry in text.get("logprobs") or ()]
    return {"content": content, "refusal": None} if content else None


def text_of(response: Mapping[str, Any]) -> str:
    """Return the text of a response's messages: one of each generation of the turn."""
    texts = ["".join(part["text"] for part in parts) for parts in _texts_by_message(response)]
    return MESSAGE_SEPARATOR.join(text for text in texts if text)


def _text_parts(response: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for parts in _texts_by_message(response) for part in parts]


def _texts_by_message(response: Mapping[str, Any]) -> list[list[Mapping[str, Any]]]:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return [[part for part in message["content"] if part["type"] == "output_text"] for message in messages]


def tool_call_object(item: Mapping[str, Any]) -> ToolCallObject | CustomToolCallObject:
    """Convert the item of a call to a tool call."""
    if item["type"] == "custom_tool_call":
        return {"id": item["call_id"], "type": "custom", "custom": {"name": item["name"], "input": item["input"]}}
    return {"id": item["call_id"], "type": "function", "function": function_object(item)}


def function_object(item: Mapping[str, Any]) -> FunctionObject:
    """Convert a `function_call` item to a called function."""
    return {"name": item["name"], "arguments": item["arguments"]}


def finish_reason(response: Mapping[str, Any], *, calls_functions: bool = False) -> FinishReason:
    """Return why generation ended."""
    if details := response["incomplete_details"]:
        return "content_filter" if details["reason"] == "content_filter" else "length"
    if all(item["type"] not in TOOL_CALLS for item in response["output"]):
        return "stop"
    return "function_call" if calls_functions else "tool_calls"


def sum_usage(usages: Sequence[Mapping[str, Any]]) -> CompletionUsage:
    """Convert the usage of responses to that of a completion. Each choice is billed with its prompt."""
    return {
        "prompt_tokens": sum(usage["input_tokens"] for usage in usages),
        "completion_tokens": sum(usage["output_tokens"] for usage in usages),
        "total_tokens": sum(usage["total_tokens"] for usage in usages),
        "prompt_tokens_details": {
            "cached_tokens": sum(usage["input_tokens_details"]["cached_tokens"] for usage in usages),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(usage["output_tokens_details"]["reasoning_tokens"] for usage in usages),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def turn_error(response: Mapping[str, Any]) -> RequestError | JobFailed | None:
    """Return the error of a response that has no answer, or None."""
    response_id, status = response["id"], response["status"]
    if status in ("completed", "incomplete"):
        return None
    if status == "cancelled":
        return Conflict(f"The response {response_id} was cancelled.", code="cancelled")
    if status != "failed":
        return WaitTimedOut(
            f"The response was not completed in time; it continues. Read it at GET /v1/responses/{response_id}."
        )
    error = response["error"] or {"message": "The response failed.", "reason": "server_error"}
    if error["reason"] in ("context_length_exceeded", "invalid_request", "unreadable_file"):
        return InvalidRequest(error["message"], param="messages", code=error["reason"])
    return JobFailed(error["message"], code=error["reason"])
