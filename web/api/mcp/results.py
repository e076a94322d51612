"""What the tools return: structured content with a schema, and the same for people and models as text."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired

import orjson
from mcp_types import CallToolResult, TextContent
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from web.http.errors import error_response

#: Metadata of results and errors.
ERROR = "sangha/error"


class AnswerUsage(TypedDict):
    """The tokens of a turn."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Answer(TypedDict):
    """A turn and its answer so far."""

    response_id: str
    job_id: str
    status: str
    model: str
    text: str
    conversation_id: str | None
    incomplete_reason: str | None
    usage: AnswerUsage | None


class FoundMemory(TypedDict):
    """A memory that matches a search; the best has the highest score."""

    id: str
    kind: str
    text: str
    speaker: str
    occurred_at: str
    conversation_id: str | None
    score: float


class FoundMemories(TypedDict):
    """The memories that match a search, the best first."""

    memories: list[FoundMemory]


class WrittenMemory(TypedDict):
    """A written memory; `pending`: it is written by a job that has not ended."""

    status: Literal["written", "pending"]
    memory_id: str | None
    job_id: str | None


class JobSummary(TypedDict):
    """A job."""

    id: str
    kind: str
    state: str
    cancel_requested: bool
    created_at: int
    finished_at: int | None
    error: dict[str, Any] | None


class JobsResult(TypedDict):
    """The jobs of a list, or one job; with the id of a response its answer."""

    jobs: list[JobSummary]
    has_more: bool
    answer: NotRequired[Answer]


def output_schema(result: Any) -> dict[str, Any]:
    """Return the JSON Schema of a tool's structured content."""
    return TypeAdapter(result).json_schema()


def tool_result(content: Mapping[str, Any], text: str | None = None, *, is_error: bool = False) -> CallToolResult:
    """Return structured content, and a text: by default the content as JSON."""
    shown = orjson.dumps(content).decode() if text is None else text
    return CallToolResult(
        content=[TextContent(type="text", text=shown)], structured_content=dict(content), is_error=is_error
    )


def error_result(error: Exception, request_id: str) -> CallToolResult:
    """Return an error as the result of a tool, which the model reads. An unexpected error is logged."""
    response = error_response(error, request_id)
    details = orjson.loads(bytes(response.body))["error"]
    meta = {"_meta": {ERROR: {**details, "status": response.status_code}}}
    content = {"content": [{"type": "text", "text": details["message"]}], "isError": True}
    return CallToolResult.model_validate(content | meta)


def answer_of(response: Mapping[str, Any]) -> Answer:
    """Return the answer of a response object."""
    usage = response["usage"]
    return {
        "response_id": response["id"],
        "job_id": response["job_id"],
        "status": response["status"],
        "model": response["model"],
        "text": "".join(_texts(response["output"])),
        "conversation_id": (response["conversation"] or {}).get("id"),
        "incomplete_reason": (response["incomplete_details"] or {}).get("reason"),
        "usage": None if usage is None else {name: usage[name] for name in AnswerUsage.__annotations__},  # type: ignore[typeddict-item]
    }


def answer_result(response: Mapping[str, Any]) -> CallToolResult:
    """Return an answer; a turn that failed or was cancelled is an error, and one that runs on says so."""
    answer = answer_of(response)
    failed = answer["status"] in ("failed", "cancelled")
    return tool_result(answer, _answer_text(answer, response), is_error=failed)


def _answer_text(answer: Answer, response: Mapping[str, Any]) -> str:
    match answer["status"]:
        case "completed" | "incomplete" if answer["text"]:
            return answer["text"]
        case "completed" | "incomplete":
            return f"The turn ended without a text. {_waiting_calls(response)}".strip()
        case "failed":
            return f"The turn failed: {(response['error'] or {}).get('message', 'the reason is not known')}"
        case "cancelled":
            return "The turn was cancelled."
        case _:
            return (
                "The turn is still running. Read its answer later: call the tool `jobs` with the action `read` and "
                f"the id {answer['response_id']}."
            )


def _waiting_calls(response: Mapping[str, Any]) -> str:
    """Name the calls that the caller of the API would have to run or approve."""
    types = {"function_call": "It calls the function", "mcp_approval_request": "It asks for approval of the tool"}
    return " ".join(f"{types[item['type']]} {item['name']}." for item in response["output"] if item["type"] in types)


def _texts(output: Sequence[Mapping[str, Any]]) -> list[str]:
    messages = (item for item in output if item["type"] == "message")
    return [part["text"] for item in messages for part in item["content"] if part["type"] == "output_text"]


def job_summary(job: Mapping[str, Any]) -> JobSummary:
    """Return what the tool shows of a job object."""
    return {name: job[name] for name in JobSummary.__annotations__}  # type: ignore[return-value]
