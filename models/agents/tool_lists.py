"""What MCP servers have answered to `tools/list`, by account and server, until it expires."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_one

#: Lists of an account that are kept.
MAX_LISTS = 100


@dataclass(frozen=True, slots=True)
class ToolList:
    """A cached list.

    version  the revision of the protocol that the server spoke
    tools    `name`, `description`, `input_schema`, `annotations`, the `digest` of these, and `open` where the engine's
             grammars refuse the schema
    """

    version: str
    tools: Sequence[Mapping[str, Any]]


STORE = """
INSERT INTO mcp_tool_lists (account_id, server_key, tools, expires_at)
VALUES (%(account_id)s, %(server_key)s, %(tools)s, now() + make_interval(secs => %(ttl)s))
ON CONFLICT (account_id, server_key) DO UPDATE SET tools = EXCLUDED.tools, expires_at = EXCLUDED.expires_at
"""


# A list has up to 1 MiB, and an account may name any number of servers.
DELETE_OLDEST = """
DELETE FROM mcp_tool_lists WHERE account_id = %(account_id)s AND server_key IN (
    SELECT server_key FROM mcp_tool_lists WHERE account_id = %(account_id)s
    ORDER BY expires_at DESC, server_key OFFSET %(most)s)
"""


def store(connection: Connection, account_id: str, server_key: str, tools: ToolList, ttl: float) -> None:
    """Store the list of a server for `ttl` seconds, in place of an earlier one, and delete those beyond MAX_LISTS."""
    stored = Jsonb({"version": tools.version, "tools": list(tools.tools)})
    parameters = {"account_id": account_id, "server_key": server_key, "tools": stored, "ttl": ttl}
    connection.execute(STORE, parameters)
    connection.execute(DELETE_OLDEST, {"account_id": account_id, "most": MAX_LISTS})


READ = """
SELECT tools FROM mcp_tool_lists
WHERE account_id = %(account_id)s AND server_key = %(server_key)s AND (%(expired)s OR expires_at > now())
"""


def read(connection: Connection, account_id: str, server_key: str, *, expired: bool = False) -> ToolList | None:
    """Return the list of a server.

    expired  also one that has expired, as long as it is there
    """
    parameters = {"account_id": account_id, "server_key": server_key, "expired": expired}
    row = fetch_one(connection, READ, parameters)
    return ToolList(**row["tools"]) if row else None


EXPIRE = """
UPDATE mcp_tool_lists SET expires_at = now() WHERE account_id = %(account_id)s AND server_key = %(server_key)s
"""


def expire(connection: Connection, account_id: str, server_key: str) -> None:
    """Let the list of a server expire, so that the next turn asks for a new one."""
    connection.execute(EXPIRE, {"account_id": account_id, "server_key": server_key})


PRUNE = """
DELETE FROM mcp_tool_lists WHERE (account_id, server_key) IN (
    SELECT account_id, server_key FROM mcp_tool_lists WHERE expires_at < now() - interval '7 days' LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of lists that expired a week ago. Returns how many."""
    return connection.execute(PRUNE, {"batch": batch}).rowcount
