"""The MCP servers whose tools a turn may call: of its request, its account, the operator, and the platform itself.

The annotations of a tool are untrusted hints (decision 60). `readOnlyHint` and `idempotentHint` count for a
server of the operator, for one that its account trusts, and where the request filters by `read_only`: then its author
relies on them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from models.agents import mcp_servers
from models.agents.mcp_servers import McpServer
from models.platform.database import Connection
from models.platform.operator_servers import OperatorServer
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents import platform_tool_definitions
from pipelines.agents.credentials import digest_of
from pipelines.agents.listed_tool import ListedTool

__all__ = ["AGENTS_LABEL", "PLATFORM_LABEL", "ListedTool", "ServerReference", "references"]

#: The label of the tools that the platform itself has, and that of the agents which a turn may delegate to.
PLATFORM_LABEL, AGENTS_LABEL = "sangha", "agents"

ServerSource = Literal["request", "account", "operator", "platform"]

#: The approval of operators' servers, as OpenAI's API has it.
OPERATOR_APPROVALS: Mapping[str, Any] = {
    "always": "always",
    "never": "never",
    "writes": {"never": {"read_only": True}},
}


@dataclass(frozen=True, slots=True)
class ServerReference:
    """A server that a turn may call.

    url               None for the platform's tools, and for a program that the operator has configured
    credentials       sealed, see `pipelines.agents.credentials`
    allowed_tools     names, or `{"tool_names", "read_only"}` as in OpenAI's API; None: all
    require_approval  "always", "never", OpenAI's filters, or a list of these, each of which holds
    own_approval      what a registered server requires, whatever requests and agents say
    key               of its cached tool list: a digest of its address and credentials
    trusted           whether its annotations count
    server_tools      the names that its registration allows; None: all
    tools             what it offers, where that needs no question: the platform's own tools
    name              its name in `SANGHA_MCP_SERVERS`
    pin_key           of its pins: a digest of its address. New credentials do not make its tools new.
    """

    label: str
    source: ServerSource
    url: str | None
    credentials: str | None = field(default=None, repr=False)
    allowed_tools: Any = None
    require_approval: Any = "always"
    own_approval: Any = None
    key: str = ""
    trusted: bool = False
    server_tools: frozenset[str] | None = None
    tools: Sequence[ListedTool] | None = None
    name: str = ""
    pin_key: str = ""


def references(
    settings: Settings, connection: Connection, response: Response, tools: Sequence[Mapping[str, Any]]
) -> list[ServerReference]:
    """Return the servers of a turn's tools. A label that nothing is known of is left out.

    Of two tools with one label the first counts, which is the agent's: a request must not send an agent's credentials
    to another address.
    """
    labels = {tool["server_label"]: tool for tool in reversed(tools) if tool["type"] == "mcp"}
    asked = [tool for tool in tools if labels.get(tool.get("server_label", "")) is tool]
    asked = [tool for tool in asked if tool["server_label"] != AGENTS_LABEL]
    names = [_registered_name(tool) for tool in asked if not tool.get("server_url")]
    registered = mcp_servers.named(connection, response.account_id, names) if names else []
    sealed = response.request.get("mcp_credentials") or {}
    found = [_reference(settings, tool, registered, sealed.get(tool["server_label"])) for tool in asked]
    return [reference for reference in found if reference is not None]


def unknown_labels(
    settings: Settings, connection: Connection, account_id: str, tools: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the labels of tools without a URL that nobody has registered."""
    known = {PLATFORM_LABEL, *(server.name for server in settings.mcp_servers)}
    names = [tool["server_label"] for tool in tools if tool["type"] == "mcp" and not tool.get("server_url")]
    names = [name for name in names if name not in known]
    if not names:
        return []
    registered = mcp_servers.named(connection, account_id, names)
    known |= {name for server in registered for name in (server.label, server.id)}
    return [name for name in names if name not in known]


def _registered_name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("connector_id") or tool["server_label"])


def _reference(
    settings: Settings, tool: Mapping[str, Any], registered: Sequence[McpServer], credentials: str | None
) -> ServerReference | None:
    if tool.get("server_url"):
        return _of_request(tool, credentials)
    name = _registered_name(tool)
    if name == PLATFORM_LABEL:
        return _platform(settings, tool)
    for server in registered:
        if name in (server.label, server.id):
            return of_account(server, tool)
    return next((_of_operator(server, tool) for server in settings.mcp_servers if server.name == name), None)


def _of_request(tool: Mapping[str, Any], credentials: str | None) -> ServerReference:
    url, allowed = tool["server_url"], tool.get("allowed_tools")
    approval = tool.get("require_approval") or "always"
    return ServerReference(
        label=tool["server_label"],
        source="request",
        url=url,
        credentials=credentials,
        allowed_tools=allowed,
        require_approval=approval,
        key=_digest(url, digest_of(credentials)),
        trusted=filters_by_read_only(allowed) or filters_by_read_only(approval),
        pin_key=_digest(url),
    )


def of_account(server: McpServer, tool: Mapping[str, Any]) -> ServerReference:
    """Return the reference to a server of the account, as a tool of a request names it; `{}` names all of it."""
    credentials = server.credentials.decode() if server.credentials is not None else None
    return ServerReference(
        label=tool.get("server_label") or server.label,
        source="account",
        url=server.url,
        credentials=credentials,
        allowed_tools=tool.get("allowed_tools"),
        require_approval=_combined(server.require_approval, tool.get("require_approval")),
        own_approval=server.require_approval,
        key=_digest(server.url, digest_of(credentials)),
        trusted=server.trusts_annotations,
        server_tools=None if server.allowed_tools is None else frozenset(server.allowed_tools),
        pin_key=_digest(server.url),
    )


def _of_operator(server: OperatorServer, tool: Mapping[str, Any]) -> ServerReference:
    address = server.url or f"operator {server.name} {server.command}"
    return ServerReference(
        label=tool["server_label"],
        source="operator",
        url=server.url or None,
        allowed_tools=tool.get("allowed_tools"),
        require_approval=_combined(OPERATOR_APPROVALS[server.approval], tool.get("require_approval")),
        own_approval=OPERATOR_APPROVALS[server.approval],
        key=_digest(address, "operator"),
        trusted=True,
        server_tools=frozenset(server.allow) or None,
        name=server.name,
        pin_key=_digest(address),
    )


def _platform(settings: Settings, tool: Mapping[str, Any]) -> ServerReference:
    return ServerReference(
        label=tool["server_label"],
        source="platform",
        url=None,
        allowed_tools=tool.get("allowed_tools"),
        require_approval=tool.get("require_approval") or "never",
        trusted=True,
        tools=platform_tool_definitions.tools(settings),
    )


def _combined(own: Any, asked: Any) -> Any:
    """Return the approval that applies: a request may ask for more approvals than the server's own, not for fewer."""
    return own if asked is None else [own, asked]


def filters_by_read_only(value: Any) -> bool:
    """Return whether `allowed_tools` or `require_approval` has a filter by `read_only`."""
    if not isinstance(value, Mapping):
        return False
    filters = (value, value.get("always"), value.get("never"))
    return any(isinstance(each, Mapping) and each.get("read_only") is not None for each in filters)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
