"""The tools: their descriptions, and what a call does."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import CallToolResult, Tool, ToolAnnotations, ToolExecution
from pydantic import BaseModel

from models.platform.errors import InvalidRequest, NotAllowed
from pipelines.requests.validation import validate
from web.access.rights import Rights
from web.api.mcp import operations
from web.api.mcp.arguments import (
    AskArguments,
    JobsArguments,
    MemorySearchArguments,
    MemoryWriteArguments,
    schema_of,
)
from web.api.mcp.results import (
    Answer,
    FoundMemories,
    FoundMemory,
    JobsResult,
    WrittenMemory,
    answer_of,
    job_summary,
    output_schema,
    tool_result,
)
from web.api.request import Request

#: Runs a tool with its checked arguments.
Call = Callable[[Request, Any], Awaitable[CallToolResult]]


@dataclass(frozen=True, slots=True)
class SanghaTool:
    """A tool.

    arguments  the type of its arguments
    rights     what the caller needs for the least of its operations
    call       runs it; None for `ask`, which the server runs itself, as it reports progress
    """

    definition: Tool
    arguments: type[BaseModel]
    rights: Rights
    call: Call | None = None

    def may_be_used(self, request: Request) -> bool:
        """Return whether the caller has the rights."""
        try:
            self.rights.check(request.caller)
        except NotAllowed:
            return False
        return True

    def parse(self, arguments: Mapping[str, Any] | None) -> Any:
        """Check the arguments. Raises InvalidRequest."""
        return validate(self.arguments, dict(arguments or {}))


async def _search(request: Request, arguments: MemorySearchArguments) -> CallToolResult:
    body = arguments.model_dump(exclude_none=True)
    found = await operations.run(request, operations.SEARCH_MEMORIES, body)
    memories = [{name: hit[name] for name in FoundMemory.__annotations__} for hit in found["data"]]
    return tool_result({"memories": memories})


async def _write(request: Request, arguments: MemoryWriteArguments) -> CallToolResult:
    body = arguments.model_dump(exclude_none=True, exclude={"idempotency_key"})
    written = await operations.run(request, operations.CREATE_MEMORY, body, key=arguments.idempotency_key)
    if written["object"] == "job":
        return tool_result({"status": "pending", "memory_id": None, "job_id": written["id"]})
    (memory,) = written["data"] or ({"id": None},)  # deleted since the call that this one repeats
    return tool_result({"status": "written", "memory_id": memory["id"], "job_id": None})


async def _jobs(request: Request, arguments: JobsArguments) -> CallToolResult:
    if arguments.action == "list":
        query = arguments.model_dump(exclude_none=True, exclude={"action", "id"})
        page = await operations.run(request, operations.LIST_JOBS, query=query)
        return _jobs_result([job_summary(job) for job in page["data"]], has_more=page["has_more"])
    if arguments.id is None:
        raise InvalidRequest(f"Missing required parameter: 'id'. '{arguments.action}' needs it.", param="id")
    if arguments.id.startswith("resp_"):
        return await _response(request, arguments.action, arguments.id)
    route = operations.READ_JOB if arguments.action == "read" else operations.CANCEL_JOB
    return _jobs_result([job_summary(await operations.run(request, route, job_id=arguments.id))])


async def _response(request: Request, action: str, response_id: str) -> CallToolResult:
    route = operations.READ_RESPONSE if action == "read" else operations.CANCEL_RESPONSE
    response = await operations.run(request, route, response_id=response_id)
    job = await operations.run(request, operations.READ_JOB, job_id=response["job_id"])
    return _jobs_result([job_summary(job)], answer=answer_of(response))


def _jobs_result(jobs: list[Any], *, has_more: bool = False, answer: Answer | None = None) -> CallToolResult:
    return tool_result({"jobs": jobs, "has_more": has_more, **({} if answer is None else {"answer": answer})})


ASK = SanghaTool(
    Tool(
        name="ask",
        title="Ask a model or an agent",
        description="Ask a model, or with `agent/NAME` as the model an agent with tools of its own. The turn is "
        "durable: after a disconnect or a timeout it goes on, and the tool `jobs` reads its answer by the id of the "
        "response.",
        input_schema=schema_of(AskArguments),
        output_schema=output_schema(Answer),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
        ),
        execution=ToolExecution(task_support="optional"),
    ),
    AskArguments,
    Rights.INFERENCE,
)

TOOLS: Mapping[str, SanghaTool] = {
    tool.definition.name: tool
    for tool in (
        ASK,
        SanghaTool(
            Tool(
                name="memory_search",
                title="Search memories",
                description="Search the memories of the user: what was said in conversations, facts and insights.",
                input_schema=schema_of(MemorySearchArguments),
                output_schema=output_schema(FoundMemories),
                annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
            ),
            MemorySearchArguments,
            operations.SEARCH_MEMORIES.rights,
            _search,
        ),
        SanghaTool(
            Tool(
                name="memory_write",
                title="Write a memory",
                description="Remember a text, so that later searches and turns find it.",
                input_schema=schema_of(MemoryWriteArguments),
                output_schema=output_schema(WrittenMemory),
                annotations=ToolAnnotations(
                    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
                ),
            ),
            MemoryWriteArguments,
            operations.CREATE_MEMORY.rights,
            _write,
        ),
        SanghaTool(
            Tool(
                name="jobs",
                title="List, read and cancel jobs",
                description="List the jobs of the user, read a job or the answer of a turn, or cancel one.",
                input_schema=schema_of(JobsArguments),
                output_schema=output_schema(JobsResult),
                annotations=ToolAnnotations(
                    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
                ),
            ),
            JobsArguments,
            operations.LIST_JOBS.rights,
            _jobs,
        ),
    )
}
