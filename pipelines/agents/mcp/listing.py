"""List the tools of a server, in bounds."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson
from mcp import MCPError
from mcp_types import METHOD_NOT_FOUND, ListToolsResult, PaginatedRequestParams, Tool

from pipelines.agents.mcp.connection import Connection
from pipelines.agents.mcp.outcomes import DEFAULT_TTL, MAX_TTL, MIN_TTL, ServerFault, ServerTools
from pipelines.agents.mcp.values import OPEN_OBJECT, clean_object, clean_text

#: Tools of a server, pages of its list, bytes of one definition and of all of them.
MAX_TOOLS, MAX_PAGES, MAX_DEFINITION, MAX_LIST = 128, 32, 65_536, 1 << 20

#: Names that tools may have (SEP-986). A tool with another is left out: the name is part of a function's.
NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")


async def list_tools(connection: Connection) -> ServerTools:
    """List the tools of a server that is connected. Raises MCPError, and ServerFault for a list without end."""
    pages = [page async for page in _pages(connection)]
    listed = [tool for page in pages for tool in page.tools]
    tools = list(_bounded(listed))
    ttl = min((page.ttl_ms / 1000 for page in pages if "ttl_ms" in page.model_fields_set), default=DEFAULT_TTL)
    return ServerTools(connection.version, tools, min(max(ttl, MIN_TTL), MAX_TTL), len(listed) - len(tools))


async def _pages(connection: Connection) -> AsyncIterator[ListToolsResult]:
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await _page(connection, cursor)
        yield page
        if not (cursor := page.next_cursor):
            return
    raise ServerFault("mcp_protocol_error", f"The server's list of tools has more than {MAX_PAGES} pages.")


async def _page(connection: Connection, cursor: str | None) -> ListToolsResult:
    parameters = PaginatedRequestParams(cursor=cursor) if cursor else None
    try:
        return await connection.client.session.list_tools(params=parameters)
    except MCPError as error:
        if error.code == METHOD_NOT_FOUND and cursor is None:  # a server of prompts or resources only
            return ListToolsResult(tools=[])
        raise


def _bounded(listed: list[Tool]) -> Iterator[dict[str, Any]]:
    """Yield the definitions of the first tools that may be stored; no two have the same name."""
    names: set[str] = set()
    left = MAX_LIST
    for tool in listed:
        if len(names) == MAX_TOOLS or tool.name in names or not NAME.fullmatch(tool.name) or _needs_task(tool):
            continue
        definition = _definition(tool)
        size = len(orjson.dumps(definition))
        if size > MAX_DEFINITION or size > left:
            continue
        names.add(tool.name)
        left -= size
        yield definition


def _needs_task(tool: Tool) -> bool:
    """Return whether a tool is called as a task of the revision 2025-11-25 only, which the SDK does not support."""
    return tool.execution is not None and tool.execution.task_support == "required"


def _definition(tool: Tool) -> dict[str, Any]:
    """Return what is stored of a tool, with the digest of what a person approves."""
    annotations = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {}
    definition = {
        "name": tool.name,
        "description": clean_text(tool.description or tool.title or ""),
        "input_schema": clean_object(tool.input_schema) or OPEN_OBJECT,
        "annotations": clean_object(annotations) or {},
    }
    return {**definition, "digest": definition_digest(definition)}


def definition_digest(definition: Mapping[str, Any]) -> str:
    """Return the digest of a tool's name, description, schema and annotations."""
    return hashlib.sha256(orjson.dumps(dict(definition), option=orjson.OPT_SORT_KEYS)).hexdigest()
