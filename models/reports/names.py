"""The names of what reports are grouped by: of users, API keys and accounts."""

from collections.abc import Collection, Mapping

from models.platform.database import Connection, fetch_all

#: What has an id and a name → the statement that finds the names. With an account, only what belongs to it has a
#: name: a user who has left is shown by id.
STATEMENTS: Mapping[str, str] = {
    "user": """
        SELECT users.id, coalesce(nullif(users.name, ''), users.email) AS name FROM users
        WHERE users.id = ANY(%(ids)s) AND (%(account_id)s::text IS NULL OR EXISTS (
            SELECT FROM memberships WHERE account_id = %(account_id)s AND user_id = users.id))""",
    "key": """
        SELECT id, name FROM api_keys
        WHERE id = ANY(%(ids)s) AND (%(account_id)s::text IS NULL OR account_id = %(account_id)s)""",
    "account": """
        SELECT id, name FROM accounts
        WHERE id = ANY(%(ids)s) AND (%(account_id)s::text IS NULL OR id = %(account_id)s)""",
}


def names_of(connection: Connection, kind: str, ids: Collection[str], account_id: str | None) -> dict[str, str]:
    """Return the names by id, of an account or, with None, of all."""
    rows = fetch_all(connection, STATEMENTS[kind], {"ids": list(ids), "account_id": account_id})
    return {row["id"]: row["name"] for row in rows}
