"""Conversations: what an account keeps saying in one place, and the items that it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of `conversations`."""

    id: str
    account_id: str
    metadata: dict[str, str]
    created_at: datetime


INSERT = """
INSERT INTO conversations (id, account_id, metadata) VALUES (%(id)s, %(account_id)s, %(metadata)s) RETURNING *
"""


def create(connection: Connection, conversation_id: str, account_id: str, metadata: Mapping[str, str]) -> Conversation:
    """A new conversation without items."""
    parameters = {"id": conversation_id, "account_id": account_id, "metadata": Jsonb(metadata)}
    row = fetch_one(connection, INSERT, parameters)
    assert row is not None
    return Conversation(**row)


def read(connection: Connection, conversation_id: str, account_id: str) -> Conversation | None:
    """The conversation, if the account has it."""
    row = fetch_one(
        connection,
        "SELECT * FROM conversations WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": conversation_id, "account_id": account_id},
    )
    return Conversation(**row) if row else None


# A turn may start in it for as long as the caller's transaction holds it.
HOLD = "SELECT FROM conversations WHERE id = %(id)s AND account_id = %(account_id)s FOR KEY SHARE"


def lock(connection: Connection, conversation_id: str, account_id: str) -> bool:
    """Whether the account has it; then it can't be deleted till the transaction ends."""
    return fetch_one(connection, HOLD, {"id": conversation_id, "account_id": account_id}) is not None


UPDATE = """
UPDATE conversations SET metadata = %(metadata)s WHERE id = %(id)s AND account_id = %(account_id)s RETURNING *
"""


def update(
    connection: Connection, conversation_id: str, account_id: str, metadata: Mapping[str, str]
) -> Conversation | None:
    """Replace its metadata. Returns the conversation, if the account has it."""
    row = fetch_one(connection, UPDATE, {"id": conversation_id, "account_id": account_id, "metadata": Jsonb(metadata)})
    return Conversation(**row) if row else None


# The lock waits for a delete that is under way, and then finds nothing.
ADD_ITEM = """
INSERT INTO conversation_items (id, conversation_id, account_id, response_id, item)
SELECT %(id)s, id, account_id, %(response_id)s, %(item)s FROM conversations WHERE id = %(conversation_id)s
FOR KEY SHARE
ON CONFLICT (id) DO UPDATE SET item = excluded.item WHERE conversation_items.account_id = excluded.account_id
"""


def add_items(
    connection: Connection, conversation_id: str, items: Sequence[Mapping[str, Any]], *, response_id: str | None = None
) -> None:
    """Put items at the end of a conversation, unless it is gone."""
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


# The last items of a conversation, oldest first.
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
    """At most `limit` items, the newest ones, in the order in which they were said; none of the response `but`."""
    parameters = {"conversation_id": conversation_id, "account_id": account_id, "limit": limit}
    return [row["item"] for row in fetch_all(connection, LAST_ITEMS, {**parameters, "except_id": except_response_id})]


# One item. Its position is where a page goes on.
ITEM = """
SELECT item, position FROM conversation_items
WHERE id = %(id)s AND conversation_id = %(conversation_id)s AND account_id = %(account_id)s
"""


def read_item(connection: Connection, conversation_id: str, account_id: str, item_id: str) -> dict[str, Any] | None:
    """The item, if the conversation has it."""
    row = fetch_one(connection, ITEM, {"id": item_id, "conversation_id": conversation_id, "account_id": account_id})
    return row["item"] if row else None


# Items of an account, wherever they are.
ITEMS = "SELECT item FROM conversation_items WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s"


def items(connection: Connection, item_ids: Sequence[str], account_id: str) -> list[dict[str, Any]]:
    """Those of the items that the account has in a conversation, in no order."""
    rows = fetch_all(connection, ITEMS, {"ids": list(item_ids), "account_id": account_id})
    return [row["item"] for row in rows]


DELETE_ITEM = """
DELETE FROM conversation_items
WHERE id = %(id)s AND conversation_id = %(conversation_id)s AND account_id = %(account_id)s
"""


def delete_item(connection: Connection, conversation_id: str, account_id: str, item_id: str) -> bool:
    """Take an item out of a conversation. Returns whether it had it."""
    parameters = {"id": item_id, "conversation_id": conversation_id, "account_id": account_id}
    return connection.execute(DELETE_ITEM, parameters).rowcount > 0


# A page of items in either direction, beginning behind a position.
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
    """At most `limit` items of a conversation behind the item `after`; None where that is not in it."""
    parameters = {"conversation_id": conversation_id, "account_id": account_id, "limit": limit, "ascending": ascending}
    behind = None
    if after is not None:
        row = fetch_one(connection, ITEM, {**parameters, "id": after})
        if row is None:
            return None
        behind = row["position"]
    return [row["item"] for row in fetch_all(connection, PAGE, {**parameters, "after": behind})]


def delete(connection: Connection, conversation_id: str, account_id: str) -> bool:
    """Delete a conversation and its items; its responses stay. Returns whether the account had it."""
    done = connection.execute(
        "DELETE FROM conversations WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": conversation_id, "account_id": account_id},
    )
    return done.rowcount > 0
