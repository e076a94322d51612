"""Memory spaces: a user's memories in an account, as one corpus.

Whoever writes into a space locks its row first, so ordinals, postings and statistics have one writer at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all, fetch_one

#: Names that a question is searched for.
MAX_SPEAKERS = 100


@dataclass(frozen=True, slots=True)
class Space:
    """A row of `memory_spaces`.

    live       memories that recall looks at
    extracted  the ordinal up to which facts have been looked for
    """

    id: int
    account_id: str
    user_id: str
    next_ordinal: int
    live: int
    indexed_at: datetime | None
    index_asked_at: datetime | None
    extracted: int = 0


FIND = "SELECT * FROM memory_spaces WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def find(connection: Connection, account_id: str, user_id: str) -> Space | None:
    """The space of a user in an account, if anything has been remembered."""
    row = fetch_one(connection, FIND, {"account_id": account_id, "user_id": user_id})
    return Space(**row) if row else None


# Recall's first look: one statement.
ASKED = """
SELECT *, ARRAY(SELECT name FROM memory_speakers WHERE space_id = memory_spaces.id
                ORDER BY live DESC, name LIMIT %(most)s) AS speakers
FROM memory_spaces WHERE account_id = %(account_id)s AND user_id = %(user_id)s
"""


def find_with_speakers(connection: Connection, account_id: str, user_id: str) -> tuple[Space, list[str]] | None:
    """The space of a user in an account with whose words it has, if anything has been remembered."""
    row = fetch_one(connection, ASKED, {"account_id": account_id, "user_id": user_id, "most": MAX_SPEAKERS})
    if row is None:
        return None
    speakers = row.pop("speakers")
    return Space(**row), speakers


READ = "SELECT * FROM memory_spaces WHERE id = %(id)s"


def read(connection: Connection, space_id: int) -> Space | None:
    """A space by its number."""
    row = fetch_one(connection, READ, {"id": space_id})
    return Space(**row) if row else None


OPEN = """
INSERT INTO memory_spaces (account_id, user_id) VALUES (%(account_id)s, %(user_id)s) ON CONFLICT DO NOTHING
"""


def find_or_create(connection: Connection, account_id: str, user_id: str) -> Space:
    """The space of a user in an account, made where there is none."""
    if (found := find(connection, account_id, user_id)) is not None:
        return found
    connection.execute(OPEN, {"account_id": account_id, "user_id": user_id})
    found = find(connection, account_id, user_id)
    assert found is not None
    return found


LOCK = "SELECT * FROM memory_spaces WHERE id = %(id)s FOR NO KEY UPDATE"


def lock(connection: Connection, space_id: int) -> Space | None:
    """The space as it is now, for one writer till the transaction ends; None when it is gone."""
    row = fetch_one(connection, LOCK, {"id": space_id})
    return Space(**row) if row else None


# What a writer has changed.
CHANGE = """
UPDATE memory_spaces SET next_ordinal = next_ordinal + %(ordinals)s, live = live + %(live)s
WHERE id = %(id)s
"""


def add_counts(connection: Connection, space_id: int, *, ordinals: int = 0, live: int = 0) -> None:
    """Note what a writer who holds the lock has added or taken away."""
    connection.execute(CHANGE, {"id": space_id, "ordinals": ordinals, "live": live})


COUNT_SPEAKERS = """
INSERT INTO memory_speakers AS known (space_id, name, live)
SELECT %(space_id)s, name, live FROM unnest(%(names)s::text[], %(lives)s::int[]) AS new (name, live)
ON CONFLICT (space_id, name) DO UPDATE SET live = known.live + excluded.live
"""

FORGET_SPEAKERS = "DELETE FROM memory_speakers WHERE space_id = %(space_id)s AND name = ANY(%(names)s) AND live <= 0"


def add_speaker_counts(connection: Connection, space_id: int, lives: Mapping[str, int]) -> None:
    """Note whose live memories have become more or fewer: name → by how many. For the holder of the lock."""
    told = {name: live for name, live in lives.items() if name and live}
    if not told:
        return
    names = {"space_id": space_id, "names": list(told)}
    connection.execute(COUNT_SPEAKERS, {**names, "lives": list(told.values())})
    if min(told.values()) < 0:
        connection.execute(FORGET_SPEAKERS, names)


SPEAKERS = "SELECT name FROM memory_speakers WHERE space_id = %(space_id)s ORDER BY live DESC, name LIMIT %(most)s"


def speakers(connection: Connection, space_id: int) -> list[str]:
    """Whose words the space has, those with the most first."""
    return [row["name"] for row in fetch_all(connection, SPEAKERS, {"space_id": space_id, "most": MAX_SPEAKERS})]


# Where an index should come or go, and no job has been asked for it lately.
ASK = """
UPDATE memory_spaces SET index_asked_at = now()
WHERE id = %(id)s
  AND (indexed_at IS NULL AND live > %(most)s OR indexed_at IS NOT NULL AND live < %(fewest)s)
  AND (index_asked_at IS NULL OR index_asked_at < now() - interval '10 minutes')
RETURNING id
"""


def request_index(connection: Connection, space_id: int, *, most: int, fewest: int) -> bool:
    """Whether the caller is to enqueue a job that makes the space's index, or drops it. Then nobody else is."""
    return fetch_one(connection, ASK, {"id": space_id, "most": most, "fewest": fewest}) is not None


SET_INDEXED = """
UPDATE memory_spaces SET indexed_at = CASE WHEN %(stands)s THEN now() END, index_asked_at = NULL WHERE id = %(id)s
"""


def set_indexed(connection: Connection, space_id: int, *, indexed: bool) -> None:
    """Note whether searches may use an index of the space's own."""
    connection.execute(SET_INDEXED, {"id": space_id, "stands": indexed})


OF_ACCOUNT = "SELECT id FROM memory_spaces WHERE account_id = %(account_id)s"


def ids_of_account(connection: Connection, account_id: str) -> list[int]:
    """The numbers of an account's spaces."""
    return [row["id"] for row in fetch_all(connection, OF_ACCOUNT, {"account_id": account_id})]


WITH_CONVERSATION = """
SELECT user_id FROM memory_spaces
WHERE account_id = %(account_id)s
  AND EXISTS (SELECT FROM memories WHERE space_id = memory_spaces.id AND conversation_id = %(conversation_id)s)
"""


def users_with_conversation(connection: Connection, account_id: str, conversation_id: str) -> list[str]:
    """The users of an account who remember something of a conversation."""
    parameters = {"account_id": account_id, "conversation_id": conversation_id}
    return [row["user_id"] for row in fetch_all(connection, WITH_CONVERSATION, parameters)]
