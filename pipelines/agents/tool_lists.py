"""The lists of tools that servers have answered, as they are cached for the turns of an account.

`tool.list` asks a server. The first definition of each tool is pinned: one that differs later needs an approval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.agents import tool_lists, tool_pins
from models.agents.tool_lists import ToolList
from models.jobs.attempt_context import Attempt, Outcome, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents import turn_servers
from pipelines.agents.event_loop import Stopped
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.mcp.outcomes import ServerFault, ServerTools
from pipelines.agents.schema_limits import open_refused_schemas
from pipelines.agents.servers import ServerReference

#: A schema for which every object is valid.
OPEN_OBJECT: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}

#: Seconds that a server has to list its tools.
LIST_TIMEOUT = 20.0


def read(
    connection: Connection, account_id: str, server: ServerReference, *, expired: bool = False
) -> Sequence[ListedTool] | None:
    """Return the tools that a server offers, as far as `allowed_tools` allows them. None: `tool.list` has to ask it.

    expired  also of a list that has expired: a turn keeps the one that it began with
    """
    if server.tools is not None:
        return [tool for tool in server.tools if _allowed(tool, server)]
    cached = tool_lists.read(connection, account_id, server.key, expired=expired)
    if cached is None:
        return None
    pins = tool_pins.read(connection, account_id, server.pin_key)
    return [tool for tool in _listed_tools(cached, server, pins) if _allowed(tool, server)]


def find(connection: Connection, account_id: str, server: ServerReference, name: str) -> ListedTool | None:
    """Return a tool of a server's last list, also of one that has expired; None if it is not allowed or not there."""
    if server.tools is not None:
        listed: Sequence[ListedTool] = server.tools
    else:
        cached = tool_lists.read(connection, account_id, server.key, expired=True)
        listed = list(_listed_tools(cached, server, {})) if cached else []
    return next((tool for tool in listed if tool.name == name and _allowed(tool, server)), None)


def list_job(response: Response, server: ServerReference, agent: Mapping[str, Any] | None = None) -> NewJob:
    """Return the job that asks a server for its tools: a child of the turn, which `agent` may have taken over."""
    return NewJob(
        "tool.list",
        response.account_id,
        arguments={
            "response_id": response.id,
            "server_label": server.label,
            **({"agent": dict(agent)} if agent else {}),
        },
        unique_key=f"tool_list:{response.id}:{server.key}",
    )


def repin(connection: Connection, account_id: str, server: ServerReference, name: str) -> None:
    """Pin the present definition of a tool, which a person has approved."""
    if (tool := find(connection, account_id, server, name)) is not None and tool.digest:
        tool_pins.repin(connection, account_id, server.pin_key, name, tool.digest)


def run(settings: Settings, attempt: Attempt) -> Outcome:
    """Ask a server for its tools, and cache them. Errors of the server are results."""
    with attempt.database.connection() as connection:
        server = turn_servers.server_of_job(settings, connection, attempt)
    if server is None:
        return plain_ending(
            attempt, "completed", result={"error": ServerFault("refused", turn_servers.NO_SERVER).error}
        )
    try:
        return _stored(attempt, server, _list(settings, attempt, server))
    except ServerFault as fault:
        return plain_ending(attempt, "completed", result={"error": fault.error})


def _list(settings: Settings, attempt: Attempt, server: ServerReference) -> ServerTools:
    """Return the tools that a server lists. Raises ServerFault, and the reason to stop."""
    from pipelines.agents.mcp import client  # loads the SDK

    try:
        return client.list_tools(settings, server, timeout=LIST_TIMEOUT, should_stop=attempt.should_stop)
    except Stopped:
        attempt.check()
        raise


def _stored(attempt: Attempt, server: ServerReference, listed: ServerTools) -> Ending:
    """Return the ending that stores a list, with the pins of tools that are new."""
    tools = ToolList(listed.version, open_refused_schemas(listed.tools))
    result = {"error": None, "tools": len(listed.tools), "left_out": listed.left_out}
    ending = plain_ending(attempt, "completed", result=result)
    account_id = attempt.job.account_id

    def record(connection: Connection) -> None:
        tool_lists.store(connection, account_id, server.key, tools, listed.ttl)
        digests = {tool["name"]: tool["digest"] for tool in tools.tools}
        tool_pins.pin_new(connection, account_id, server.pin_key, digests)

    return replace(ending, record=record)


def _listed_tools(cached: ToolList, server: ServerReference, pins: Mapping[str, str]) -> Iterator[ListedTool]:
    for tool in cached.tools:
        hints, pinned = tool["annotations"], pins.get(tool["name"], tool["digest"])
        read_only = server.trusted and hints.get("readOnlyHint") is True
        yield ListedTool(
            name=tool["name"],
            description=tool["description"],
            input_schema=OPEN_OBJECT if tool.get("open") else tool["input_schema"],
            annotations=hints,
            read_only=read_only,
            idempotent=read_only or (server.trusted and hints.get("idempotentHint") is True),
            changed=pinned != tool["digest"],
            digest=tool["digest"],
        )


def _allowed(tool: ListedTool, server: ServerReference) -> bool:
    """Return whether both the request and the registration of the server allow the tool."""
    if server.server_tools is not None and tool.name not in server.server_tools:
        return False
    match server.allowed_tools:
        case None:
            return True
        case Mapping() as filters:
            names, read_only = filters.get("tool_names"), filters.get("read_only")
            return (names is None or tool.name in names) and read_only in (None, tool.read_only)
        case names:
            return tool.name in names
