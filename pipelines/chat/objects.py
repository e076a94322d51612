"""A turn in the shapes of OpenAI's Responses API."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.turns.responses import Response, Status, Usage


def response_object(response: Response, status: Status | None = None) -> dict[str, Any]:
    """The `response` object; `status` where the row is about to change."""
    request = response.request
    return {
        "id": response.id,
        "object": "response",
        "created_at": int(response.created_at.timestamp()),
        "status": status or response.status,
        "background": request["background"],
        "conversation": {"id": response.conversation_id} if response.conversation_id else None,
        "error": _error(response),
        "incomplete_details": response.incomplete_details,
        "instructions": request["instructions"],
        "max_output_tokens": request["max_output_tokens"],
        "max_tool_calls": request.get("max_tool_calls"),
        "metadata": request["metadata"],
        "model": request["model"],
        "output": response.output,
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "previous_response_id": response.previous_id,
        "recalled": list(response.recalled),
        "prompt_cache_key": request.get("prompt_cache_key"),
        "safety_identifier": request.get("safety_identifier"),
        "seed": request.get("seed"),
        "service_tier": "default",
        "stop": request.get("stop") or [],
        "store": request.get("store", True),
        "temperature": request["temperature"],
        "text": request.get("text") or {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "top_p": request["top_p"],
        "truncation": request.get("truncation") or "auto",
        "usage": response.usage,
        "user": request["user"],
        "job_id": response.job_id,
    }


#: OpenAI's list of codes is closed. Ours that aren't on it are told as the nearest that is, and as the `reason`.
ERROR_CODES = {"context_length_exceeded": "invalid_prompt", "invalid_request": "invalid_prompt"}


def _error(response: Response) -> dict[str, Any] | None:
    if response.status != "failed" or not response.job_error:
        return None
    reason = response.job_error["code"]
    code = ERROR_CODES.get(reason, "server_error")
    return {"code": code, "message": response.job_error["message"], "reason": reason}


def output_message(response: Response) -> str:
    """The id of the message that a response answers with: the same for every attempt."""
    return "msg_" + response.id.removeprefix("resp_")


def message_item(item_id: str, text: str | None, status: str) -> dict[str, Any]:
    """An assistant's message; without a text it has no content yet."""
    content = [] if text is None else [text_part(text)]
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def call_item(response: Response, number: int, name: str, arguments: str) -> dict[str, Any]:
    """A response's call of a function, the first one's number being 0. Its ids are the same for every attempt."""
    place = f"{response.id.removeprefix('resp_')}_{number}"
    return {"id": f"fc_{place}", "type": "function_call", "call_id": f"call_{place}", "name": name,
            "arguments": arguments, "status": "completed"}  # fmt: skip


def text_part(text: str) -> dict[str, Any]:
    """A piece of content that is text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def usage_object(usage: Usage) -> dict[str, Any]:
    """The `usage` of a response."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def text_of(item: Mapping[str, Any]) -> str:
    """All text of a message item."""
    content: Sequence[Mapping[str, Any]] = item["content"]
    return "".join(part["text"] for part in content)
