"""Facts as they are looked for: what of a space has been read, and what it holds to be so."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.platform.database import Connection, fetch_all

#: The kinds of work: who looks for facts, and its children, which ask the language model.
EXTRACT_KIND, FACT_KIND = "memory.extract", "memory.fact"

#: Facts that new ones are compared with, the latest.
MAX_COMPARED = 2000

#: Said things that the model reads at once, and the most characters of them.
WINDOW, WINDOW_CHARACTERS = 24, 6000

UNREAD = """
SELECT id, ordinal, length(text) AS length FROM memories
WHERE space_id = %(space_id)s AND ordinal >= %(since)s AND kind = 'episode' AND closed_at IS NULL
ORDER BY ordinal LIMIT %(limit)s
"""


def next_window(connection: Connection, space_id: int, since: int) -> tuple[list[str], int]:
    """The ids of what is to be read next, from an ordinal on, and the ordinal behind it."""
    rows = fetch_all(connection, UNREAD, {"space_id": space_id, "since": since, "limit": WINDOW})
    ids: list[str] = []
    length = 0
    for row in rows:
        length += row["length"]
        if ids and length > WINDOW_CHARACTERS:
            break
        ids.append(row["id"])
        since = row["ordinal"] + 1
    return ids, since


def mark_read(connection: Connection, space_id: int, ordinal: int) -> None:
    """Note that all before an ordinal has been read. For the holder of the space's lock."""
    connection.execute(
        "UPDATE memory_spaces SET extracted = %(ordinal)s WHERE id = %(space_id)s",
        {"space_id": space_id, "ordinal": ordinal},
    )


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that is held to be so. `since` is when it began to be."""

    id: str
    text: str
    metadata: dict[str, Any]
    since: datetime


LIVE = """
SELECT id, text, metadata, coalesce(valid_from, occurred_at) AS since FROM memories
WHERE account_id = %(account_id)s AND user_id = %(user_id)s AND kind = 'fact' AND closed_at IS NULL
ORDER BY id DESC LIMIT %(limit)s
"""


def list_live(connection: Connection, account_id: str, user_id: str) -> list[Fact]:
    """A user's facts, the latest first."""
    parameters = {"account_id": account_id, "user_id": user_id, "limit": MAX_COMPARED}
    return [Fact(**row) for row in fetch_all(connection, LIVE, parameters)]


# Words stand among the memories, and nowhere else once they do.
FORGET_ANSWERS = "UPDATE jobs SET result = result - 'facts' WHERE id = ANY(%(ids)s) AND result ? 'facts'"


def clear_answers(connection: Connection, job_ids: Sequence[str]) -> None:
    """Take the words out of what the language model has answered."""
    connection.execute(FORGET_ANSWERS, {"ids": list(job_ids)})
