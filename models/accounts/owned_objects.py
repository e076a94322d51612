"""Which objects of the store have rows, and of which accounts and installation they are."""

from collections.abc import Collection

from models.platform.database import Connection, fetch_all, fetch_one

OWNED = """
SELECT object_key FROM file_objects WHERE object_key = ANY(%(keys)s)
UNION
SELECT object_key FROM files WHERE account_id = ANY(%(account_ids)s) AND object_key = ANY(%(keys)s)
"""


def owned_keys(connection: Connection, keys: Collection[str]) -> set[str]:
    """Return those of the keys that belong to a file or an upload."""
    parameters = {"keys": list(keys), "account_ids": sorted({account_of(key) for key in keys})}
    return {row["object_key"] for row in fetch_all(connection, OWNED, parameters)}


# Erased accounts keep their row.
KNOWN = "SELECT id FROM accounts WHERE id = ANY(%(account_ids)s)"


def known_accounts(connection: Connection, keys: Collection[str]) -> set[str]:
    """Return the ids of those accounts in the keys that this installation has or had."""
    parameters = {"account_ids": sorted({account_of(key) for key in keys})}
    return {row["id"] for row in fetch_all(connection, KNOWN, parameters)}


def account_of(key: str) -> str:
    """Return the first segment of a key: the id of an account."""
    return key.partition("/")[0]


# A standby has the identifier of its primary, a restored dump another one.
DATABASE_ID = "SELECT system_identifier || '/' || current_database() AS id FROM pg_control_system()"


def database_id(connection: Connection) -> str:
    """Return what tells this database from copies of it that were restored from a dump."""
    row = fetch_one(connection, DATABASE_ID, {})
    assert row is not None
    return str(row["id"])
