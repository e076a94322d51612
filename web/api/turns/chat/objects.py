"""A turn in the shapes of OpenAI's chat completions."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from models.platform.errors import Conflict, InvalidRequest, JobFailed, RequestError, WaitTimedOut
from models.platform.settings import Settings
from pipelines.inference.registry import model_name

FinishReason = Literal["stop", "length", "tool_calls"]


class FunctionObject(TypedDict):
    """A function and its arguments, a JSON object as text."""

    name: str
    arguments: str


class ToolCallObject(TypedDict):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: FunctionObject


class MessageObject(TypedDict):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    tool_calls: NotRequired[list[ToolCallObject]]


class ChoiceObject(TypedDict):
    """The one choice there is."""

    index: int
    message: MessageObject
    logprobs: None
    finish_reason: FinishReason


class PromptDetails(TypedDict):
    """Of which kind the tokens of a prompt were."""

    cached_tokens: int
    audio_tokens: int


class CompletionDetails(TypedDict):
    """Of which kind the tokens of an answer were."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageObject(TypedDict):
    """Tokens: what is billed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ChatCompletion(TypedDict):
    """The answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChoiceObject]
    usage: UsageObject
    service_tier: Literal["default"]
    system_fingerprint: str
    metadata: dict[str, str]


def completion_object(shown: Mapping[str, Any], settings: Settings) -> ChatCompletion:
    """The completion that an ended response is. Raises what became of one that has no answer."""
    if (error := turn_error(shown)) is not None:
        raise error
    return {
        "id": completion_id(shown["id"]),
        "object": "chat.completion",
        "created": shown["created_at"],
        "model": shown["model"],
        "choices": [{"index": 0, "message": message_object(shown), "logprobs": None, "finish_reason": finish_reason(shown)}],
        "usage": usage_object(shown["usage"]),
        "service_tier": "default",
        "system_fingerprint": system_fingerprint(settings),
        "metadata": shown["metadata"],
    }


def completion_id(response_id: str) -> str:
    """The id of a response, as a completion has it."""
    return "chatcmpl-" + response_id.removeprefix("resp_")


def system_fingerprint(settings: Settings) -> str:
    """Another one says that the same seed may give another answer."""
    setting = f"{settings.engine} {model_name(settings)} {settings.context}"
    return "fp_" + hashlib.sha256(setting.encode()).hexdigest()[:10]


def message_object(shown: Mapping[str, Any]) -> MessageObject:
    """What an ended response says."""
    parts = [part for item in shown["output"] if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    calls = [tool_call_object(item) for item in shown["output"] if item["type"] == "function_call"]
    said: MessageObject = {
        "role": "assistant", "content": text if text or not calls else None, "refusal": None, "annotations": []
    }  # fmt: skip
    if calls:
        said["tool_calls"] = calls
    return said


def tool_call_object(item: Mapping[str, Any]) -> ToolCallObject:
    """A `function_call` item."""
    function: FunctionObject = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def finish_reason(shown: Mapping[str, Any]) -> FinishReason:
    """Why the answer ended."""
    if shown["incomplete_details"]:
        return "length"
    return "tool_calls" if any(item["type"] == "function_call" for item in shown["output"]) else "stop"


def usage_object(usage: Mapping[str, Any]) -> UsageObject:
    """A response's usage in a completion's words."""
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {
            "cached_tokens": usage["input_tokens_details"]["cached_tokens"],
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def turn_error(shown: Mapping[str, Any]) -> RequestError | JobFailed | None:
    """The error that a response ended with; None where it has an answer."""
    response_id, status = shown["id"], shown["status"]
    if status in ("completed", "incomplete"):
        return None
    if status == "cancelled":
        return Conflict(f"The turn was cancelled: {response_id}.", code="cancelled")
    if status != "failed":
        return WaitTimedOut(
            f"The turn takes longer than a request may wait; it goes on: GET /v1/responses/{response_id}."
        )
    error = shown["error"] or {"message": "The turn failed.", "reason": "server_error"}
    if error["reason"] in ("context_length_exceeded", "invalid_request"):
        return InvalidRequest(error["message"], param="messages", code=error["reason"])
    return JobFailed(error["message"], code=error["reason"])
