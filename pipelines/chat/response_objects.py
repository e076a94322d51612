"""Build OpenAI's response object and its items, of which `pipelines.chat.response_types` has the types."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from models.jobs.route_costs import shown_route
from models.journal.shared_fields import without_fields
from models.turns.responses import Response, ResponseStatus, TokenUsage
from pipelines.chat.call_items import InputFilePart, InputTextPart, parts_text
from pipelines.chat.logprobs import with_bytes
from pipelines.chat.response_types import (
    IncompleteDetails,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputTextPart,
    ReasoningItem,
    RecalledMemory,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    RouteObject,
)
from pipelines.chat.service_tiers import ServedTier, served_tier


def response_object(response: Response, status: ResponseStatus | None = None) -> ResponseObject:
    """Build the `response` object; `status` overrides that of a row that is about to change.

    The casts are for columns of JSON, which the functions below have built.
    """
    request = response.request
    result: ResponseObject = {
        "id": response.id,
        "object": "response",
        "created_at": int(response.created_at.timestamp()),
        "completed_at": int(response.completed_at.timestamp()) if response.completed_at else None,
        "status": status or response.status,
        "background": request["background"],
        "conversation": {"id": response.conversation_id} if response.conversation_id else None,
        "error": _error(response),
        "frequency_penalty": effective_sampling(request, "frequency_penalty"),
        "incomplete_details": cast(IncompleteDetails | None, response.incomplete_details),
        "instructions": request["instructions"],
        "max_output_tokens": request["max_output_tokens"],
        "max_tool_calls": request.get("max_tool_calls"),
        "metadata": request["metadata"],
        "model": request["model"],
        "output": cast(list[OutputItem], response.output),
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "presence_penalty": effective_sampling(request, "presence_penalty"),
        "previous_response_id": response.previous_id,
        "reasoning": {"effort": None, "summary": None, **(request.get("reasoning") or {})},
        "recalled": cast(list[RecalledMemory], list(response.recalled)),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "safety_identifier": request.get("safety_identifier"),
        "seed": request.get("seed"),
        "service_tier": cast(ServedTier, response.served_tier or served_tier(request)),
        "stop": request.get("stop") or [],
        "store": request.get("store", True),
        "temperature": effective_sampling(request, "temperature"),
        "text": request.get("text") or {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "top_logprobs": request.get("top_logprobs") or 0,
        "top_p": effective_sampling(request, "top_p"),
        "truncation": request.get("truncation") or "auto",
        "usage": cast(ResponseUsage | None, response.usage),
        "user": request["user"],
        "job_id": response.job_id,
    }
    if response.route:
        result["sangha"] = {"route": route_object(response.route)}
    return result


def route_object(route: Mapping[str, Any]) -> RouteObject:
    """Build the public part of a job's route: not what the operator pays."""
    return cast(RouteObject, shown_route(route))


#: OpenAI's documented defaults, for turns of earlier versions, which did not store the engine's defaults.
DOCUMENTED_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def effective_sampling(request: Mapping[str, Any], name: str) -> float:
    """Return a sampling parameter of a request, or the default of the engine at the time of the request."""
    value = request.get(name)
    defaults: Mapping[str, float] = request.get("sampling_defaults") or DOCUMENTED_DEFAULTS
    return defaults[name] if value is None else float(value)


#: The argument of a turn's job with the places of the fields that only the first event of its journal has.
SHARED_ARGUMENT = "shared_fields"


def response_payload(
    response: Response, job_arguments: Mapping[str, Any], *, status: ResponseStatus | None = None, **fields: Any
) -> Mapping[str, Any]:
    """Build the payload of a worker's event: `fields` and the response, without what the first event of the job has."""
    payload = {**fields, "response": response_object(response, status)}
    return without_fields(payload, job_arguments.get(SHARED_ARGUMENT, {}))


#: OpenAI's list of error codes is closed. Codes that are not on it become the nearest one, and the `reason`.
ERROR_CODES = {
    "context_length_exceeded": "invalid_prompt",
    "invalid_request": "invalid_prompt",
    "unreadable_file": "invalid_prompt",
}


def _error(response: Response) -> ResponseError | None:
    if response.status != "failed" or not response.job_error:
        return None
    reason = response.job_error["code"]
    code = ERROR_CODES.get(reason, "server_error")
    return {"code": code, "message": response.job_error["message"], "reason": reason}


def id_suffix(response: Response, step: int = 0) -> str:
    """Return what follows the prefix in the ids of a step's items: the same for every attempt."""
    return response.id.removeprefix("resp_") + (f"s{step}" if step else "")


def reasoning_id(response: Response, step: int = 0) -> str:
    """Return the id of a step's reasoning."""
    return "rs_" + id_suffix(response, step)


def output_message_id(response: Response, step: int = 0) -> str:
    """Return the id of a step's message."""
    return "msg_" + id_suffix(response, step)


def message_item(
    item_id: str, text: str | None, status: ItemStatus, logprobs: Sequence[Mapping[str, Any]] = ()
) -> MessageItem:
    """Build an assistant's message; without a text it has no content yet."""
    content: list[InputTextPart | InputFilePart | OutputTextPart] = [] if text is None else [text_part(text, logprobs)]
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def reasoning_item(item_id: str, text: str | None, status: ItemStatus, *, as_summary: bool) -> ReasoningItem:
    """Build the reasoning before an answer; without a text it has no parts yet."""
    item: ReasoningItem = {"id": item_id, "type": "reasoning", "summary": [], "content": [], "status": status}
    if text is not None and as_summary:
        item["summary"].append({"type": "summary_text", "text": text})
    elif text is not None:
        item["content"].append({"type": "reasoning_text", "text": text})
    return item


def text_part(text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> OutputTextPart:
    """Build a piece of output text. `logprobs` are those of its deltas."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*map(with_bytes, logprobs)]}


def usage_object(usage: TokenUsage) -> ResponseUsage:
    """Build the `usage` of a response."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def reasoning_text(item: Mapping[str, Any]) -> str:
    """Join the texts of a reasoning item."""
    return "".join(part["text"] for part in [*(item.get("summary") or ()), *(item.get("content") or ())])


def item_text(item: Mapping[str, Any]) -> str:
    """Join the texts of a message item."""
    return parts_text(item["content"])


def public_item(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an item for the API: without the `name` of a message, which only prompts contain."""
    return {key: value for key, value in item.items() if key != "name"} if item["type"] == "message" else item
