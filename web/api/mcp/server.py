"""The MCP server of one HTTP request: the SDK's low-level server, with handlers that know the request's caller.

Each request is served by itself, so any web process can serve the next one. Of the revisions with a handshake the SDK
serves `initialize` without keeping anything.
"""

from importlib.metadata import version
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    ServerCapabilities,
    ServerTasksCapability,
    ServerTasksRequestsCapability,
    TasksCallCapability,
    TasksCancelCapability,
    TasksToolsCapability,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from web.api.mcp import ask, tasks
from web.api.mcp.results import answer_result, error_result
from web.api.mcp.tasks import TaskParams
from web.api.mcp.tools import ASK, TOOLS
from web.api.request import Request
from web.http.threads import run_in_thread

#: Milliseconds for which a client may keep the list of tools: it changes with the rights of the key, and upgrades.
LIST_TTL = 300_000

INSTRUCTIONS = (
    "Sangha runs durable turns of models and agents. `ask` starts one and returns its answer; a turn goes on when its "
    "client disconnects. `jobs` reads the answer later. `memory_search` and `memory_write` use the user's memories."
)

Context = ServerRequestContext[Any, Any]


class SanghaServer(Server[Any]):
    """The server of one request."""

    def __init__(self, request: Request) -> None:
        super().__init__(
            "sangha",
            version=version("sangha"),
            title="Sangha",
            instructions=INSTRUCTIONS,
            cache_hints={
                "tools/list": CacheHint(LIST_TTL, "private"),
                "server/discover": CacheHint(LIST_TTL, "private"),
            },
            get_tool_input_schema=_input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )
        self._request = request
        self.extensions = {tasks.EXTENSION: {}}
        self.middleware = [self._core_tasks]
        self.add_request_handler("tasks/get", TaskParams, self._get_task)
        self.add_request_handler("tasks/result", TaskParams, self._task_result)
        self.add_request_handler("tasks/update", TaskParams, self._update_task)
        self.add_request_handler("tasks/cancel", TaskParams, self._cancel_task)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> ServerCapabilities:
        """Return the capabilities: tasks are an extension, or of the revisions before it a part of the core."""
        is_modern = protocol_version in MODERN_PROTOCOL_VERSIONS
        capabilities = super().get_capabilities(
            notification_options,
            experimental_capabilities,
            self.extensions if is_modern else {},
            protocol_version=protocol_version,
        )
        return capabilities if is_modern else capabilities.model_copy(update={"tasks": CORE_TASKS, "extensions": None})

    async def _list_tools(self, ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """List the tools for which the caller has the rights."""
        usable = [tool.definition for tool in TOOLS.values() if tool.may_be_used(self._request)]
        return ListToolsResult(tools=usable)

    async def _call_tool(self, ctx: Context, params: CallToolRequestParams) -> Any:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name[:100]}")
        try:
            arguments = tool.parse(params.arguments)
            if tool.call is None:
                return await self._ask(ctx, params, arguments)
            return await tool.call(self._request, arguments)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - every error of a tool is a result that the model reads
            return error_result(error, self._request.request_id)

    async def _ask(
        self, ctx: Context, params: CallToolRequestParams, arguments: Any
    ) -> CallToolResult | dict[str, Any]:
        """Return the answer, or a task: at once in revision 2025-11-25, after some seconds in that of 2026-07-28."""
        is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        wants_task = params.task is not None and not is_modern
        if wants_task:
            tasks.check_rights(self._request)
        started = await ask.start_ask(self._request, arguments)
        job_id = started.turn.response.job_id
        await run_in_thread(ask.remember_request, self._request, ctx.request_id, job_id)
        if wants_task:
            return {"task": tasks.core_task(await started.read())}

        async def report(number: float, message: str) -> None:
            await ctx.session.report_progress(number, message=message)

        if is_modern and tasks.may_poll(self._request, ctx.session.client_capabilities):
            response = await ask.wait(started, report, ask.TASK_AFTER)
            if response is None:
                return {"resultType": "task", **tasks.task(await started.read())}
        else:
            response = await ask.wait(started, report)
        return answer_result(response or await started.read())

    async def _core_tasks(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Return a task of revision 2025-11-25, which the SDK does not accept as the result of a call."""
        is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        parameters = ctx.params or {}
        if is_modern or ctx.method != "tools/call" or parameters.get("task") is None:
            return await call_next(ctx)
        params = CallToolRequestParams.model_validate(parameters, by_name=False)
        if params.name != ASK.definition.name:
            raise MCPError(INVALID_PARAMS, f"The tool {params.name[:100]} cannot run as a task.")
        result: HandlerResult = await self._call_tool(ctx, params)
        return result

    async def _get_task(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return tasks.core_task(await tasks.read(self._request, params.task_id))
        tasks.require_tasks(ctx.session.client_capabilities)
        return tasks.detailed_task(await tasks.read(self._request, params.task_id))

    async def _cancel_task(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return tasks.core_task(await tasks.cancel(self._request, params.task_id))
        tasks.require_tasks(ctx.session.client_capabilities)
        await tasks.cancel(self._request, params.task_id)
        return {}

    async def _update_task(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """Acknowledge input, which no task asks for."""
        tasks.require_tasks(ctx.session.client_capabilities)
        await tasks.read(self._request, params.task_id)
        return {}

    async def _task_result(self, ctx: Context, params: TaskParams) -> CallToolResult:
        """Wait for the end of a task of revision 2025-11-25 and return its result."""
        response = await tasks.read(self._request, params.task_id)
        if response["status"] not in tasks.ENDED:
            await tasks.wait(self._request, response["job_id"])
            response = await tasks.read(self._request, params.task_id)
        result = answer_result(response)
        return result.model_copy(update={"meta": {tasks.RELATED_TASK: {"taskId": params.task_id}}})


CORE_TASKS = ServerTasksCapability(
    cancel=TasksCancelCapability(),
    requests=ServerTasksRequestsCapability(tools=TasksToolsCapability(call=TasksCallCapability())),
)


def _input_schema(name: str) -> dict[str, Any] | None:
    tool = TOOLS.get(name)
    return None if tool is None else tool.definition.input_schema
