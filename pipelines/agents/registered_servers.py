"""Register, change and delete the MCP servers of an account. Admins do; every member's turns may use them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.accounts.plans import Limits
from models.agents import mcp_servers
from models.agents.mcp_servers import MAX_SERVERS, McpServer
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_unfinished_jobs
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, LimitExceeded, NotFound
from models.platform.settings import Settings
from pipelines.agents import credentials


@dataclass(frozen=True, slots=True, repr=False)
class ServerValues:
    """What a request says of a server; a field that is missing in `given` keeps its value.

    given  the names of the fields that the request has
    """

    label: str = ""
    url: str = ""
    description: str = ""
    headers: Mapping[str, str] | None = None
    authorization: str | None = None
    allowed_tools: list[str] | None = None
    require_approval: Any = "always"
    trusts_annotations: bool = False
    given: frozenset[str] = field(default_factory=frozenset)


def create(
    database: Database,
    settings: Settings,
    caller: Caller,
    values: ServerValues,
    server_id: str,
    origin: RequestOrigin,
) -> McpServer:
    """Register a server. Raises Conflict for a label that is taken, and LimitExceeded."""
    now = datetime.now(UTC)
    server = McpServer(
        id=server_id,
        account_id=caller.account_id,
        label=values.label,
        url=values.url,
        description=values.description,
        credentials=_sealed(settings, values),
        allowed_tools=values.allowed_tools,
        require_approval=values.require_approval,
        trusts_annotations=values.trusts_annotations,
        created_by=caller.user_id,
        created_at=now,
        updated_at=now,
    )
    with database.transaction() as connection:
        if mcp_servers.lock_and_count(connection, caller.account_id) >= MAX_SERVERS:
            message = f"The account has {MAX_SERVERS} MCP servers, the most. Delete one."
            raise LimitExceeded(message, code="too_many_servers")
        if not mcp_servers.insert(connection, server):
            raise _label_taken(server.label)
        _record(connection, "mcp_server.created", caller, server, origin)
    return server


def change(
    database: Database,
    settings: Settings,
    caller: Caller,
    server_id: str,
    values: ServerValues,
    origin: RequestOrigin,
) -> McpServer:
    """Change the fields that are given. Raises NotFound, and Conflict for a label that is taken.

    A server of another origin does not get the stored credentials: the admin who changes the URL may not know them.
    """
    names = ("label", "url", "description", "allowed_tools", "require_approval", "trusts_annotations")
    with database.transaction() as connection:
        server = find(connection, caller, server_id, lock=True)
        changed = replace(server, **{name: getattr(values, name) for name in names if name in values.given})
        if {"headers", "authorization"} & values.given:
            changed = replace(changed, credentials=_sealed(settings, values))
        elif _origin(changed.url) != _origin(server.url):
            changed = replace(changed, credentials=None)
        if not mcp_servers.update(connection, changed):
            raise _label_taken(changed.label)
        _record(connection, "mcp_server.changed", caller, changed, origin)
        return find(connection, caller, server_id)


def delete(database: Database, caller: Caller, server_id: str, origin: RequestOrigin) -> None:
    """Delete a server. Turns that run cannot call it any more. Raises NotFound."""
    with database.transaction() as connection:
        server = find(connection, caller, server_id, lock=True)
        mcp_servers.delete(connection, server.id, caller.account_id)
        _record(connection, "mcp_server.deleted", caller, server, origin)


def find(connection: Connection, caller: Caller, server_id: str, *, lock: bool = False) -> McpServer:
    """Return a server of the caller's account. Raises NotFound."""
    server = mcp_servers.read(connection, server_id, caller.account_id, lock=lock)
    if server is None:
        raise NotFound(f"MCP server with id '{server_id}' not found.", param="server_id")
    return server


def enqueue_test(database: Database, caller: Caller, server_id: str, job_id: str, limits: Limits) -> McpServer:
    """Enqueue the job that lists a server's tools; the caller nudges the queue. Raises NotFound and LimitExceeded."""
    with database.transaction() as connection:
        server = find(connection, caller, server_id)
        check_unfinished_jobs(connection, caller.account_id, limits)
        arguments = {"server_id": server.id}
        enqueue(connection, NewJob("tool.list", caller.account_id, arguments, id=job_id, owner_id=caller.user_id))
    return server


def _sealed(settings: Settings, values: ServerValues) -> bytes | None:
    if not values.headers and values.authorization is None:
        return None
    return credentials.seal(settings, values.headers or {}, values.authorization).encode()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _label_taken(label: str) -> Conflict:
    return Conflict(f"The account has another MCP server with the label '{label}'.", code="label_taken", param="label")


def _record(connection: Connection, action: str, caller: Caller, server: McpServer, origin: RequestOrigin) -> None:
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=server.id,
        details={"label": server.label, "url": server.url.partition("?")[0]},
    )
