"""Conversations and their items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.accounts.ownership import Access, owned
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of `conversations`. `owner_id` is the user whose it is; None: created before owners were stored."""

    id: str
    account_id: str
    metadata: dict[str, str]
    created_at: datetime
    owner_id: str | None = None


COLUMNS = columns(Conversation)

# A conversation of an earlier version belongs to the user of its turns, and without turns to the account.
OWNER = """coalesce(conversations.owner_id, (
        SELECT coalesce(user_id, '') FROM responses WHERE responses.conversation_id = conversations.id LIMIT 1))"""

#: The condition that a caller has access to the conversation `id`.
ACCESSIBLE = f"conversations.id = %(id)s AND {owned('conversations.account_id', OWNER)}"

INSERT = f"""
INSERT INTO conversations (id, account_id, owner_id, metadata)
VALUES (%(id)s, %(account_id)s, %(owner_id)s, %(metadata)s) RETURNING {COLUMNS}
"""


def create(
    connection: Connection, conversation_id: str, account_id: str, owner_id: str, metadata: Mapping[str, str]
) -> Conversation:
    """Create a user's conversation without items."""
    parameters = {"id": conversation_id, "account_id": account_id, "owner_id": owner_id, "metadata": Jsonb(metadata)}
    row = fetch_one(connection, INSERT, parameters)
    assert row is not None
    return Conversation(**row)


READ = f"SELECT {COLUMNS} FROM conversations WHERE {ACCESSIBLE}"


def read(connection: Connection, conversation_id: str, access: Access) -> Conversation | None:
    """Return the conversation if the caller has access to it."""
    row = fetch_one(connection, READ, {"id": conversation_id, **access.parameters})
    return Conversation(**row) if row else None


LOCK = f"SELECT FROM conversations WHERE {ACCESSIBLE} FOR KEY SHARE"


def lock(connection: Connection, conversation_id: str, access: Access) -> bool:
    """Lock the conversation against deletion until the transaction ends. Returns False without access to it."""
    return fetch_one(connection, LOCK, {"id": conversation_id, **access.parameters}) is not None


UPDATE = f"UPDATE conversations SET metadata = %(metadata)s WHERE {ACCESSIBLE} RETURNING {COLUMNS}"


def update(
    connection: Connection, conversation_id: str, access: Access, metadata: Mapping[str, str]
) -> Conversation | None:
    """Replace the metadata. Returns the conversation if the caller has access to it."""
    row = fetch_one(connection, UPDATE, {"id": conversation_id, **access.parameters, "metadata": Jsonb(metadata)})
    return Conversation(**row) if row else None


# The lock waits for a concurrent delete, and then finds no row.
ADD_ITEM = """
INSERT INTO conversation_items (id, conversation_id, account_id, response_id, item)
SELECT %(id)s, id, account_id, %(response_id)s, %(item)s FROM conversations WHERE id = %(conversation_id)s
FOR KEY SHARE
ON CONFLICT (id) DO UPDATE SET item = excluded.item WHERE conversation_items.account_id = excluded.account_id
"""


def add_items(
    connection: Connection, conversation_id: str, items: Sequence[Mapping[str, Any]], *, response_id: str | None = None
) -> None:
    """Append items to a conversation. Does nothing if it was deleted."""
    for item in items:
        connection.execute(
            ADD_ITEM,
            {
                "id": item["id"],
                "conversation_id": conversation_id,
                "response_id": response_id,
                "item": Jsonb(item),
            },
        )


LAST_ITEMS = """
SELECT item FROM (
    SELECT item, position FROM conversation_items
    WHERE conversation_id = %(conversation_id)s AND account_id = %(account_id)s
      AND response_id IS DISTINCT FROM %(except_id)s
    ORDER BY position DESC LIMIT %(limit)s) AS recent
ORDER BY position
"""


def last_items(
    connection: Connection, conversation_id: str, account_id: str, limit: int, *, except_response_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the last `limit` items, oldest first, without those of the response `except_response_id`."""
    parameters = {"conversation_id": conversation_id, "account_id": account_id, "limit": limit}
    return [row["item"] for row in fetch_all(connection, LAST_ITEMS, {**parameters, "except_id": except_response_id})]


# Its position is the cursor of a page.
ITEM = """
SELECT item, position FROM conversation_items
WHERE id = %(id)s AND conversation_id = %(conversation_id)s AND account_id = %(account_id)s
"""


def read_item(connection: Connection, conversation_id: str, account_id: str, item_id: str) -> dict[str, Any] | None:
    """Return the item if it belongs to the conversation."""
    row = fetch_one(connection, ITEM, {"id": item_id, "conversation_id": conversation_id, "account_id": account_id})
    return row["item"] if row else None


ITEMS = f"""
SELECT item FROM conversation_items JOIN conversations ON conversations.id = conversation_id
WHERE conversation_items.id = ANY(%(ids)s) AND {owned("conversations.account_id", OWNER)}
"""


def items(connection: Connection, item_ids: Sequence[str], access: Access) -> list[dict[str, Any]]:
    """Return the items with these ids of all conversations that the caller has access to, unordered."""
    rows = fetch_all(connection, ITEMS, {"ids": list(item_ids), **access.parameters})
    return [row["item"] for row in rows]


DELETE_ITEM = """
DELETE FROM conversation_items
WHERE id = %(id)s AND conversation_id = %(conversation_id)s AND account_id = %(account_id)s
"""


def delete_item(connection: Connection, conversation_id: str, account_id: str, item_id: str) -> bool:
    """Remove an item from a conversation. Returns whether it was there."""
    parameters = {"id": item_id, "conversation_id": conversation_id, "account_id": account_id}
    return connection.execute(DELETE_ITEM, parameters).rowcount > 0


PAGE = """
SELECT item FROM conversation_items
WHERE conversation_id = %(conversation_id)s AND account_id = %(account_id)s
  AND (%(after)s::bigint IS NULL OR CASE WHEN %(ascending)s THEN position > %(after)s ELSE position < %(after)s END)
ORDER BY CASE WHEN %(ascending)s THEN position ELSE -position END LIMIT %(limit)s
"""


def page(
    connection: Connection,
    conversation_id: str,
    account_id: str,
    *,
    after: str | None,
    limit: int,
    ascending: bool = False,
) -> list[dict[str, Any]] | None:
    """Return at most `limit` items after the item `after`; None if that is not in the conversation."""
    parameters = {"conversation_id": conversation_id, "account_id": account_id, "limit": limit, "ascending": ascending}
    position = None
    if after is not None:
        row = fetch_one(connection, ITEM, {**parameters, "id": after})
        if row is None:
            return None
        position = row["position"]
    return [row["item"] for row in fetch_all(connection, PAGE, {**parameters, "after": position})]


DELETE = f"DELETE FROM conversations WHERE {ACCESSIBLE}"


def delete(connection: Connection, conversation_id: str, access: Access) -> bool:
    """Delete a conversation and its items. Its responses are kept. Returns whether the caller had access to it."""
    return connection.execute(DELETE, {"id": conversation_id, **access.parameters}).rowcount > 0
