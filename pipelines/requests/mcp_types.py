"""Request types of the tools of MCP servers, of references to them, and of the items of their calls."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from pipelines.agents.servers import AGENTS_LABEL, PLATFORM_LABEL
from pipelines.chat.call_items import parts_text
from pipelines.chat.mcp_items import execution_error
from pipelines.requests.content_types import MAX_ITEMS
from pipelines.requests.validation import RequestBody, branch, discriminate_text

#: Headers of requests to a server, characters of a header's value, and names in a filter.
MAX_HEADERS, MAX_HEADER_VALUE, MAX_NAMES = 32, 8_192, 256

#: Headers that belong to the connection and to the protocol (RFC 9110, MCP).
RESERVED_HEADERS = frozenset({
    "connection", "content-length", "content-type", "expect", "host", "keep-alive", "mcp-protocol-version",
    "mcp-session-id", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip

#: The name of a server in a request. The engine knows its tools as `LABEL__NAME`.
ServerLabel = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]

#: The name of a tool of a server: visible ASCII, as the protocol has it.
McpToolName = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]


def check_server_url(url: str) -> str:
    """Reject a URL that no server can have. The message does not quote it: it may contain a secret."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise PydanticCustomError("server_url", "should be a URL that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise PydanticCustomError("server_url", "should not contain a user or a password; send 'authorization'")
    return url


def _check_header_name(name: str) -> str:
    if name.lower() in RESERVED_HEADERS:
        raise PydanticCustomError("header", "belongs to the connection, and cannot be set")
    return name


ServerUrl = Annotated[str, Field(max_length=2_048), AfterValidator(check_server_url)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"), AfterValidator(_check_header_name)]
HeaderValue = Annotated[str, Field(pattern=r"^([!-~]([ -~\t]*[!-~])?)?$", max_length=MAX_HEADER_VALUE)]
ServerHeaders = Annotated[dict[HeaderName, HeaderValue], Field(max_length=MAX_HEADERS)]

#: An access token, which is sent as `Authorization: Bearer …`.
Authorization = Annotated[str, Field(pattern=r"^[!-~]+$", max_length=16_384)]


class McpToolFilter(RequestBody):
    """Tools of a server, by their names and by whether they only read."""

    tool_names: Annotated[list[McpToolName], Field(max_length=MAX_NAMES)] | None = None
    read_only: bool | None = None


class ApprovalFilters(RequestBody):
    """The tools whose calls always need an approval, and those whose calls never do."""

    always: McpToolFilter | None = None
    never: McpToolFilter | None = None


def _branch_of_allowed(value: Any) -> str | None:
    if isinstance(value, list):
        return branch("names")
    return branch("filter") if isinstance(value, Mapping | BaseModel) else None


#: The tools of a server that the model may call.
McpAllowedTools = Annotated[
    Annotated[list[McpToolName], Field(max_length=MAX_NAMES), Tag(branch("names"))]
    | Annotated[McpToolFilter, Tag(branch("filter"))],
    Discriminator(
        _branch_of_allowed,
        custom_error_type="list_or_filter_type",
        custom_error_message="should be a list of names or an object",
    ),
]

#: Which calls of a server's tools need an approval.
RequireApproval = Annotated[
    Annotated[Literal["always", "never"], Tag(branch("text"))] | Annotated[ApprovalFilters, Tag(branch("other"))],
    discriminate_text("an object with 'always' and 'never'"),
]


def _reject_connector(value: object) -> None:
    if value is not None:
        reason = "give the server's 'server_url', or the 'server_label' of a server that is registered here"
        raise PydanticCustomError("unsupported_parameter", "{reason}", {"reason": reason})


class McpTool(RequestBody):
    """The tools of an MCP server, which this server calls for the model.

    Without `server_url` it is the registered server of that label. The label `sangha` is that of the platform's own
    tools. `headers` and `authorization` are encrypted and never returned. Calls need an approval unless
    `require_approval` says otherwise.
    """

    type: Literal["mcp"]
    server_label: ServerLabel
    server_url: ServerUrl | None = None
    server_description: Annotated[str, Field(max_length=4_096)] | None = None
    headers: ServerHeaders | None = None
    authorization: Authorization | None = None
    allowed_tools: McpAllowedTools | None = None
    require_approval: RequireApproval | None = None
    defer_loading: Annotated[bool | None, Field(description="Accepted without effect.")] = None
    connector_id: Annotated[None, BeforeValidator(_reject_connector)] = None
    tunnel_id: Annotated[None, BeforeValidator(_reject_connector)] = None

    @property
    def fault(self) -> tuple[str, str] | None:
        """The field that contradicts another one, and why; None if there is none."""
        if self.server_label == AGENTS_LABEL:
            return "server_label", f"'{AGENTS_LABEL}' is the label of an agent's own agents"
        if self.server_label == PLATFORM_LABEL and self.server_url is not None:
            return "server_url", f"'{PLATFORM_LABEL}' is the label of the platform's own tools"
        if self.server_url is None and (self.headers is not None or self.authorization is not None):
            field = "headers" if self.headers is not None else "authorization"
            return field, "the credentials of a registered server are stored with it"
        names = {name.lower() for name in self.headers or ()}
        if len(names) < len(self.headers or ()):
            return "headers", "a header is given twice"
        if self.authorization is not None and "authorization" in names:
            return "authorization", "'headers' has an Authorization, too"
        return None


class McpReference(RequestBody):
    """A reference to a tool of an MCP server, or to all of them."""

    type: Literal["mcp"]
    server_label: ServerLabel
    name: McpToolName | None = None


class ListedMcpTool(RequestBody):
    """A tool that a server offered."""

    name: Annotated[str, Field(max_length=128)]
    description: str | None = None
    input_schema: Any = None
    annotations: dict[str, Any] | None = None


class McpListTools(RequestBody):
    """The tools that a server offered, of an earlier output."""

    type: Literal["mcp_list_tools"]
    server_label: ServerLabel
    tools: Annotated[list[ListedMcpTool], Field(max_length=MAX_ITEMS)]
    error: str | dict[str, Any] | None = None
    id: str | None = None


class McpCall(RequestBody):
    """A call of a server's tool, of an earlier output."""

    type: Literal["mcp_call"]
    server_label: ServerLabel
    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: str
    output: str | None = None
    error: str | dict[str, Any] | None = None
    status: Literal["in_progress", "calling", "completed", "incomplete", "failed"] | None = None
    approval_request_id: Annotated[str, Field(max_length=128)] | None = None
    id: str | None = None


class McpApprovalRequest(RequestBody):
    """A request for an approval, of an earlier output. Without a conversation it has to be sent back unchanged."""

    type: Literal["mcp_approval_request"]
    id: Annotated[str, Field(min_length=1, max_length=128)]
    server_label: ServerLabel
    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: str


class McpApprovalResponse(RequestBody):
    """A decision on a request for an approval of an earlier turn. The model reads the `reason` of a denial."""

    type: Literal["mcp_approval_response"]
    approval_request_id: Annotated[str, Field(min_length=1, max_length=128)]
    approve: bool
    reason: Annotated[str, Field(max_length=4_096)] | None = None
    id: str | None = None


McpItem = McpListTools | McpCall | McpApprovalRequest | McpApprovalResponse


def stored_mcp_tool(tool: McpTool) -> dict[str, Any]:
    """Return the stored form of a tool, which responses show: without credentials."""
    shown = {"type", "server_label", "server_url", "server_description", "allowed_tools", "require_approval"}
    return tool.model_dump(include=shown, exclude_none=True)


def stored_mcp_item(item: McpItem) -> dict[str, Any]:
    """Return the stored form of an item. Only a request for an approval keeps its id, by which it is found."""
    match item:
        case McpApprovalRequest():
            return item.model_dump()
        case McpApprovalResponse():
            return item.model_dump(exclude={"id"})
        case McpListTools():
            tools = [_listed(tool) for tool in item.tools]
            return {"type": item.type, "server_label": item.server_label, "tools": tools,
                    "error": _error_text(item.error)}  # fmt: skip
        case McpCall():
            fields = item.model_dump(include={"type", "server_label", "name", "arguments", "approval_request_id"})
            error = _call_error(item.error)
            return {**fields, "output": None if error else item.output, "error": error, "status": _status(item, error)}


def _listed(tool: ListedMcpTool) -> dict[str, Any]:
    schema = tool.input_schema if isinstance(tool.input_schema, Mapping) else {}
    return {"name": tool.name, "description": tool.description or "", "input_schema": schema,
            "annotations": tool.annotations or {}}  # fmt: skip


def _status(item: McpCall, error: Mapping[str, Any] | None) -> str:
    if error is not None:
        return "failed"
    if item.status in ("in_progress", "calling"):
        return "incomplete"
    return item.status or ("incomplete" if item.output is None else "completed")


def _call_error(error: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return an error in one of the present forms; OpenAI's was a text."""
    match error:
        case None:
            return None
        case {"type": "mcp_protocol_error" | "http_error" as type_, "code": int(code), "message": str(message)}:
            return {"type": type_, "code": code, "message": message}
        case _:
            return {**execution_error(_error_text(error) or "")}


def _error_text(error: str | Mapping[str, Any] | None) -> str | None:
    match error:
        case {"content": list(parts)}:
            return parts_text(part for part in parts if isinstance(part, Mapping))
        case Mapping():
            message = error.get("message")
            return message if isinstance(message, str) else "The call failed."
        case _:
            return error
