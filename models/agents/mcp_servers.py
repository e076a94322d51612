"""The MCP servers that accounts have registered. A label is unique in its account."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

#: Servers of an account.
MAX_SERVERS = 64


@dataclass(frozen=True, slots=True)
class McpServer:
    """A row of `mcp_servers`.

    credentials         encrypted, see pipelines/agents/credentials.py
    allowed_tools       the names of the tools that turns may call; None: all
    require_approval    "always", "never", or OpenAI's filters
    trusts_annotations  whether `readOnlyHint` and `idempotentHint` of its tools count
    """

    id: str
    account_id: str
    label: str
    url: str
    description: str
    credentials: bytes | None
    allowed_tools: list[str] | None
    require_approval: Any
    trusts_annotations: bool
    created_by: str | None
    created_at: datetime
    updated_at: datetime


COLUMNS = columns(McpServer)

INSERT = """
INSERT INTO mcp_servers (id, account_id, label, url, description, credentials, allowed_tools, require_approval,
                         trusts_annotations, created_by, created_at, updated_at)
VALUES (%(id)s, %(account_id)s, %(label)s, %(url)s, %(description)s, %(credentials)s, %(allowed_tools)s,
        %(require_approval)s, %(trusts_annotations)s, %(created_by)s, %(created_at)s, %(updated_at)s)
ON CONFLICT (id) DO NOTHING
"""

# The account is locked, so that two requests cannot take the last place.
LOCK = "SELECT FROM accounts WHERE id = %(account_id)s FOR NO KEY UPDATE"
COUNT = "SELECT count(*)::int AS count FROM mcp_servers WHERE account_id = %(account_id)s"


def lock_and_count(connection: Connection, account_id: str) -> int:
    """Count an account's servers, and lock the account so that none is added before the transaction ends."""
    connection.execute(LOCK, {"account_id": account_id})
    row = fetch_one(connection, COUNT, {"account_id": account_id})
    return int(row["count"]) if row else 0


def insert(connection: Connection, server: McpServer) -> bool:
    """Insert a server, unless its id exists. Returns False if another one of the account has its label."""
    try:
        with connection.transaction():
            connection.execute(INSERT, _parameters(server))
    except UniqueViolation:
        return False
    return True


READ = f"SELECT {COLUMNS} FROM mcp_servers WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, server_id: str, account_id: str, *, lock: bool = False) -> McpServer | None:
    """Return the server if the account has it."""
    parameters = {"id": server_id, "account_id": account_id}
    row = fetch_one(connection, f"{READ} FOR UPDATE" if lock else READ, parameters)
    return McpServer(**row) if row else None


NAMED = f"""
SELECT {COLUMNS} FROM mcp_servers
WHERE account_id = %(account_id)s AND (label = ANY(%(names)s) OR id = ANY(%(names)s))
"""


def named(connection: Connection, account_id: str, names: Collection[str]) -> list[McpServer]:
    """Return the account's servers with these labels or ids."""
    rows = fetch_all(connection, NAMED, {"account_id": account_id, "names": list(names)})
    return [McpServer(**row) for row in rows]


LIST = f"""
SELECT {COLUMNS} FROM mcp_servers
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def page(connection: Connection, account_id: str, *, after: str | None = None, limit: int = 20) -> list[McpServer]:
    """Return at most `limit` servers of an account, newest first, older than the server `after`."""
    rows = fetch_all(connection, LIST, {"account_id": account_id, "after": after, "limit": limit})
    return [McpServer(**row) for row in rows]


UPDATE = """
UPDATE mcp_servers SET label = %(label)s, url = %(url)s, description = %(description)s, credentials = %(credentials)s,
                       allowed_tools = %(allowed_tools)s, require_approval = %(require_approval)s,
                       trusts_annotations = %(trusts_annotations)s, updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s
"""


def update(connection: Connection, server: McpServer) -> bool:
    """Store a changed server. Returns False if another one of the account has its label."""
    try:
        with connection.transaction():
            connection.execute(UPDATE, _parameters(server))
    except UniqueViolation:
        return False
    return True


DELETE = "DELETE FROM mcp_servers WHERE id = %(id)s AND account_id = %(account_id)s"


def delete(connection: Connection, server_id: str, account_id: str) -> bool:
    """Delete a server. Returns whether it existed."""
    return connection.execute(DELETE, {"id": server_id, "account_id": account_id}).rowcount > 0


def _parameters(server: McpServer) -> Mapping[str, object]:
    allowed = server.allowed_tools
    return {
        "id": server.id,
        "account_id": server.account_id,
        "label": server.label,
        "url": server.url,
        "description": server.description,
        "credentials": server.credentials,
        "allowed_tools": None if allowed is None else Jsonb(allowed),
        "require_approval": Jsonb(server.require_approval),
        "trusts_annotations": server.trusts_annotations,
        "created_by": server.created_by,
        "created_at": server.created_at,
        "updated_at": server.updated_at,
    }
