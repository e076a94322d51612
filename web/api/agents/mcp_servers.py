"""`/v1/mcp_servers`: register, list, read, change, delete and test the MCP servers of an account."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.agents import mcp_servers
from models.agents.mcp_servers import McpServer
from models.jobs import jobs
from models.platform.errors import JobFailed, Unavailable
from models.platform.operator_servers import RESERVED_LABELS
from pipelines.agents import registered_servers, tool_lists
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.registered_servers import ServerValues
from pipelines.agents.servers import of_account
from pipelines.requests.mcp_types import (
    MAX_NAMES,
    Authorization,
    McpToolName,
    RequireApproval,
    ServerHeaders,
    ServerLabel,
    ServerUrl,
)
from pipelines.requests.validation import RequestBody
from web.api.job_results import abandon_job, delete_ended_job, last_event
from web.api.request import Request
from web.http import bodies
from web.http.disconnects import DeferredResponse
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.http.timestamps import to_unix

#: Seconds that a test waits for its job, which asks the server for at most 20.
TIMEOUT = 30.0


def _check_label(label: str) -> str:
    if label in RESERVED_LABELS:
        raise PydanticCustomError("server_label", "is the label of tools of this platform")
    return label


Label = Annotated[ServerLabel, AfterValidator(_check_label)]
Description = Annotated[str, Field(max_length=4_096)]
ToolNames = Annotated[list[McpToolName], Field(max_length=MAX_NAMES)]


class CreateMcpServer(RequestBody):
    """The body of `POST /v1/mcp_servers`.

    `headers` and `authorization`, a token that is sent as `Authorization: Bearer …`, are encrypted and never returned.
    `trusts_annotations` says that the server's `readOnlyHint` and `idempotentHint` are true: such calls may be
    repeated.
    """

    label: Label
    url: ServerUrl
    description: Description = ""
    headers: ServerHeaders | None = None
    authorization: Authorization | None = None
    allowed_tools: ToolNames | None = None
    require_approval: RequireApproval = "always"
    trusts_annotations: bool = False


class UpdateMcpServer(RequestBody):
    """The body of `PATCH /v1/mcp_servers/{id}`. Omitted fields stay unchanged.

    `headers` and `authorization` replace all credentials together. A URL of another origin without them removes them.
    """

    label: Label | None = None
    url: ServerUrl | None = None
    description: Description | None = None
    headers: ServerHeaders | None = None
    authorization: Authorization | None = None
    allowed_tools: ToolNames | None = None
    require_approval: RequireApproval | None = None
    trusts_annotations: bool | None = None


class McpServerObject(TypedDict):
    """A registered MCP server, without its credentials. Times are in Unix seconds."""

    id: str
    object: Literal["mcp_server"]
    label: str
    url: str
    description: str
    has_credentials: bool
    allowed_tools: list[str] | None
    require_approval: Any
    trusts_annotations: bool
    created_at: int
    updated_at: int


class McpServerDeleted(TypedDict):
    """A deleted MCP server."""

    id: str
    object: Literal["mcp_server.deleted"]
    deleted: bool


class TestedTool(TypedDict):
    """A tool of a server. `changed`: its definition differs from the first one, so calls need an approval."""

    name: str
    description: str
    input_schema: Any
    annotations: Any
    changed: bool


class McpServerTest(TypedDict):
    """What a server has answered: its tools, or the error."""

    id: str
    object: Literal["mcp_server.test"]
    tools: list[TestedTool]
    error: Any


def create(request: Request) -> Response:
    """`POST /v1/mcp_servers`: register a server, whose tools all turns of the account may then name by its label."""
    body = bodies.parse(request.body, CreateMcpServer)
    platform, server_id = request.platform, request.new_id("mcps")
    server = registered_servers.create(
        platform.database, platform.settings, request.caller, _values(body), server_id, request.origin
    )
    return json_response(mcp_server_object(server), 201)


def list_servers(request: Request) -> Response:
    """`GET /v1/mcp_servers`: list the servers of the account, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = mcp_servers.page(connection, request.caller.account_id, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, mcp_server_object)


def read(request: Request) -> Response:
    """`GET /v1/mcp_servers/{id}`: read a server."""
    with request.platform.database.connection() as connection:
        server = registered_servers.find(connection, request.caller, request.path_params["server_id"])
    return json_response(mcp_server_object(server))


def update(request: Request) -> Response:
    """`PATCH /v1/mcp_servers/{id}`: change a server."""
    body, platform = bodies.parse(request.body, UpdateMcpServer), request.platform
    server = registered_servers.change(
        platform.database,
        platform.settings,
        request.caller,
        request.path_params["server_id"],
        _values(body),
        request.origin,
    )
    return json_response(mcp_server_object(server))


def delete(request: Request) -> Response:
    """`DELETE /v1/mcp_servers/{id}`: delete a server with its credentials."""
    server_id = request.path_params["server_id"]
    registered_servers.delete(request.platform.database, request.caller, server_id, request.origin)
    deleted: McpServerDeleted = {"id": server_id, "object": "mcp_server.deleted", "deleted": True}
    return json_response(deleted)


async def test(request: Request) -> DeferredResponse:
    """`POST /v1/mcp_servers/{id}/test`: ask a server for its tools, in a job, and return them or the error."""
    job_id, platform = request.new_id("job"), request.platform
    server = await run_in_thread(
        registered_servers.enqueue_test,
        platform.database,
        request.caller,
        request.path_params["server_id"],
        job_id,
        request.admission.limits,
    )
    platform.queue.nudge(request.caller.account_id)
    return DeferredResponse(partial(_tested, request, server, job_id), partial(abandon_job, request, job_id))


async def _tested(request: Request, server: McpServer, job_id: str) -> Response:
    last = await last_event(request, job_id, TIMEOUT)
    if not last:
        await abandon_job(request, job_id)
        raise Unavailable(f"No worker has listed the server's tools within {TIMEOUT:g} seconds.", retry_after=5)
    return await run_in_thread(_test_response, request, server, job_id)


def _test_response(request: Request, server: McpServer, job_id: str) -> Response:
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.own(request.caller))
        listed = tool_lists.read(connection, account_id, of_account(server, {}), expired=True)
    if job is None or job.result is None:
        raise JobFailed("The test failed because of an internal error, which was recorded for the operators.")
    delete_ended_job(request, job_id)
    error = job.result.get("error")
    tested: McpServerTest = {
        "id": server.id,
        "object": "mcp_server.test",
        "tools": [] if error else _tested_tools(listed or ()),
        "error": error,
    }
    return json_response(tested)


def _tested_tools(listed: Sequence[ListedTool]) -> list[TestedTool]:
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": tool.input_schema,
            "annotations": tool.annotations,
            "changed": tool.changed,
        }
        for tool in listed
    ]


def _values(body: CreateMcpServer | UpdateMcpServer) -> ServerValues:
    """Return the values that a body gives; null only removes what may be missing."""
    removable = {"headers", "authorization", "allowed_tools"}
    values = body.model_dump(mode="json", exclude_none=True)
    given = frozenset(name for name in body.model_fields_set if name in values or name in removable)
    return ServerValues(**values, given=given)


def mcp_server_object(server: McpServer) -> McpServerObject:
    """Convert a server to its API object."""
    return {
        "id": server.id,
        "object": "mcp_server",
        "label": server.label,
        "url": server.url,
        "description": server.description,
        "has_credentials": server.credentials is not None,
        "allowed_tools": server.allowed_tools,
        "require_approval": server.require_approval,
        "trusts_annotations": server.trusts_annotations,
        "created_at": to_unix(server.created_at) or 0,
        "updated_at": to_unix(server.updated_at) or 0,
    }
