"""The progress of fact extraction in a space, and the facts that are valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.platform.database import Connection, fetch_all

#: Kinds of jobs: the extraction, and its children, which call the language model.
EXTRACT_KIND, FACT_KIND = "memory.extract", "memory.fact"

#: Most existing facts that new ones are compared with, the newest.
MAX_COMPARED = 2000

#: Episodes that the model reads at a time, and the most characters of them.
WINDOW, WINDOW_CHARACTERS = 24, 6000

NEXT_WINDOW = """
SELECT id, ordinal, length(text) AS length FROM memories
WHERE space_id = %(space_id)s AND ordinal >= %(since)s AND kind = 'episode' AND closed_at IS NULL
ORDER BY ordinal LIMIT %(limit)s
"""


def next_window(connection: Connection, space_id: int, ordinal: int) -> tuple[list[str], int]:
    """Return the ids of the next episodes from an ordinal on, and the ordinal after them."""
    rows = fetch_all(connection, NEXT_WINDOW, {"space_id": space_id, "since": ordinal, "limit": WINDOW})
    ids: list[str] = []
    length = 0
    for row in rows:
        length += row["length"]
        if ids and length > WINDOW_CHARACTERS:
            break
        ids.append(row["id"])
        ordinal = row["ordinal"] + 1
    return ids, ordinal


def mark_read(connection: Connection, space_id: int, ordinal: int) -> None:
    """Store that the episodes before an ordinal have been read. The caller holds the space's lock."""
    connection.execute(
        "UPDATE memory_spaces SET extracted = %(ordinal)s WHERE id = %(space_id)s",
        {"space_id": space_id, "ordinal": ordinal},
    )


@dataclass(frozen=True, slots=True)
class Fact:
    """A valid fact. `since` is the beginning of its validity."""

    id: str
    text: str
    metadata: dict[str, Any]
    since: datetime


LIVE = """
SELECT id, text, metadata, coalesce(valid_from, occurred_at) AS since FROM memories
WHERE space_id = %(space_id)s AND kind = 'fact' AND closed_at IS NULL
ORDER BY id DESC LIMIT %(limit)s
"""


def list_live(connection: Connection, space_id: int) -> list[Fact]:
    """Return the valid facts of a space, newest first."""
    parameters = {"space_id": space_id, "limit": MAX_COMPARED}
    return [Fact(**row) for row in fetch_all(connection, LIVE, parameters)]


# What the user said is kept in memories only.
CLEAR_ANSWERS = "UPDATE jobs SET result = result - 'facts' WHERE id = ANY(%(ids)s) AND result ? 'facts'"


def clear_answers(connection: Connection, job_ids: Sequence[str]) -> None:
    """Erase the facts from the results of ended jobs."""
    connection.execute(CLEAR_ANSWERS, {"ids": list(job_ids)})
