"""The digest of each tool's definition when it was first seen, or approved after a change."""

from collections.abc import Mapping

from models.platform.database import Connection, fetch_all

# One statement for all tools of a list. The order of the rows avoids deadlocks between two lists of one server.
PIN_NEW = """
INSERT INTO mcp_tool_pins (account_id, server_key, tool_name, digest)
SELECT %(account_id)s, %(server_key)s, name, digest
FROM unnest(%(names)s::text[], %(digests)s::text[]) AS tools (name, digest) ORDER BY name
ON CONFLICT (account_id, server_key, tool_name) DO NOTHING
"""


def pin_new(connection: Connection, account_id: str, server_key: str, digests: Mapping[str, str]) -> None:
    """Pin the definitions of tools that were not seen before; `digests` has them by name."""
    names = {"account_id": account_id, "server_key": server_key}
    connection.execute(PIN_NEW, {**names, "names": list(digests), "digests": list(digests.values())})


PINS = "SELECT tool_name, digest FROM mcp_tool_pins WHERE account_id = %(account_id)s AND server_key = %(server_key)s"


def read(connection: Connection, account_id: str, server_key: str) -> Mapping[str, str]:
    """Return the pinned digests of a server's tools by name."""
    rows = fetch_all(connection, PINS, {"account_id": account_id, "server_key": server_key})
    return {row["tool_name"]: row["digest"] for row in rows}


REPIN = """
INSERT INTO mcp_tool_pins (account_id, server_key, tool_name, digest)
VALUES (%(account_id)s, %(server_key)s, %(tool_name)s, %(digest)s)
ON CONFLICT (account_id, server_key, tool_name) DO UPDATE SET digest = EXCLUDED.digest, pinned_at = now()
"""


def repin(connection: Connection, account_id: str, server_key: str, tool_name: str, digest: str) -> None:
    """Pin the definition that a person has approved."""
    names = {"account_id": account_id, "server_key": server_key, "tool_name": tool_name}
    connection.execute(REPIN, {**names, "digest": digest})
