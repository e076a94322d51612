"""Conversations: what an account keeps saying in one place, and the items that it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.database import Connection, all_of, one


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
    row = one(connection, INSERT, parameters)
    assert row is not None
    return Conversation(**row)


def read(connection: Connection, conversation_id: str, account_id: str) -> Conversation | None:
    """The conversation, if the account has it."""
    row = one(
        connection,
        "SELECT * FROM conversations WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": conversation_id, "account_id": account_id},
    )
    return Conversation(**row) if row else None


ADD_ITEM = """
INSERT INTO conversation_items (id, conversation_id, account_id, response_id, item)
SELECT %(id)s, id, account_id, %(response_id)s, %(item)s FROM conversations WHERE id = %(conversation_id)s
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
      AND response_id IS DISTINCT FROM %(but)s
    ORDER BY position DESC LIMIT %(limit)s) AS recent
ORDER BY position
"""


def last_items(
    connection: Connection, conversation_id: str, account_id: str, limit: int, *, but: str | None = None
) -> list[dict[str, Any]]:
    """At most `limit` items, the newest ones, in the order in which they were said; none of the response `but`."""
    parameters = {"conversation_id": conversation_id, "account_id": account_id, "limit": limit, "but": but}
    return [row["item"] for row in all_of(connection, LAST_ITEMS, parameters)]


# A page of items in either direction, beginning behind the item `after`.
PAGE = """
SELECT item FROM conversation_items
WHERE conversation_id = %(conversation_id)s AND account_id = %(account_id)s
  AND (%(after)s::text IS NULL OR CASE WHEN %(ascending)s
       THEN position > (SELECT position FROM conversation_items WHERE id = %(after)s AND account_id = %(account_id)s)
       ELSE position < (SELECT position FROM conversation_items WHERE id = %(after)s AND account_id = %(account_id)s)
       END)
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
) -> list[dict[str, Any]]:
    """At most `limit` items of a conversation behind the item `after`."""
    parameters = {
        "conversation_id": conversation_id,
        "account_id": account_id,
        "after": after,
        "limit": limit,
        "ascending": ascending,
    }
    return [row["item"] for row in all_of(connection, PAGE, parameters)]


def delete(connection: Connection, conversation_id: str, account_id: str) -> bool:
    """Delete a conversation and its items; its responses stay. Returns whether the account had it."""
    done = connection.execute(
        "DELETE FROM conversations WHERE id = %(id)s AND account_id = %(account_id)s",
        {"id": conversation_id, "account_id": account_id},
    )
    return done.rowcount > 0
