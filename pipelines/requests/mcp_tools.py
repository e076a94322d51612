"""Check the tools of MCP servers in a request, and encrypt their credentials."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.platform.database import Database
from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from models.platform.texts import truncate
from pipelines.agents import credentials
from pipelines.agents.servers import unknown_labels
from pipelines.requests.mcp_types import McpReference, McpTool


def check_mcp_tools(tools: Sequence[Any]) -> None:
    """Raise InvalidRequest, naming the field, for tools whose fields contradict each other or other tools."""
    labels = {tool.name for tool in tools if getattr(tool, "type", None) == "namespace"}
    for number, tool in _mcp_tools(tools):
        if tool.fault is not None:
            raise _invalid(f"tools[{number}].{tool.fault[0]}", f"{tool.fault[1]}.")
        if tool.server_label in labels:
            message = f"'{tool.server_label}' is used by another tool. Labels must be unique."
            raise _invalid(f"tools[{number}].server_label", message)
        labels.add(tool.server_label)


def sealed_credentials(
    settings: Settings, tools: Sequence[Any], stored: Iterable[Mapping[str, Any]]
) -> Mapping[str, str]:
    """Return the encrypted headers and authorization of the stored servers that have any, by label."""
    labels = {tool["server_label"] for tool in stored if tool["type"] == "mcp"}
    return {
        tool.server_label: credentials.seal(settings, tool.headers or {}, tool.authorization)
        for _, tool in _mcp_tools(tools)
        if tool.server_label in labels and (tool.headers or tool.authorization)
    }


def check_server(reference: McpReference, stored: Iterable[Mapping[str, Any]], param: str) -> None:
    """Raise InvalidRequest for a reference to a server that is none of the stored tools."""
    if all(tool.get("server_label") != reference.server_label for tool in stored):
        message = f"'{reference.server_label}' is not the label of an MCP server in 'tools'."
        raise _invalid(f"{param}.server_label", message)


def check_registered(
    settings: Settings, database: Database, account_id: str, stored: Sequence[Mapping[str, Any]]
) -> None:
    """Raise InvalidRequest for the label of a server without a URL that nobody has registered. Blocks."""
    if all(tool["type"] != "mcp" for tool in stored):
        return
    with database.connection() as connection:
        unknown = unknown_labels(settings, connection, account_id, stored)
    if unknown:
        message = (
            f"Invalid value for 'tools': no MCP server '{truncate(unknown[0])}' is registered; give its 'server_url'."
        )
        raise InvalidRequest(message, param="tools", code="mcp_server_not_found")


def _mcp_tools(tools: Sequence[Any]) -> Iterator[tuple[int, McpTool]]:
    return ((number, tool) for number, tool in enumerate(tools) if isinstance(tool, McpTool))


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{param}': {message}", param=param)
