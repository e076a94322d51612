"""Memory spaces: the memories of a user in an account.

Writers lock the space's row first, so ordinals, postings and statistics have one writer at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

#: Speakers that a query is searched for.
MAX_SPEAKERS = 100


@dataclass(frozen=True, slots=True)
class Space:
    """A row of `memory_spaces`.

    live       number of memories that recall considers
    extracted  ordinal up to which facts have been extracted
    """

    id: int
    account_id: str
    user_id: str
    next_ordinal: int
    live: int
    extracted: int = 0


COLUMNS = columns(Space)

FIND = f"SELECT {COLUMNS} FROM memory_spaces WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def find(connection: Connection, account_id: str, user_id: str) -> Space | None:
    """Return the space of a user in an account, if there is one."""
    row = fetch_one(connection, FIND, {"account_id": account_id, "user_id": user_id})
    return Space(**row) if row else None


# The first statement of a recall.
FIND_WITH_SPEAKERS = f"""
SELECT {COLUMNS},
       ARRAY(SELECT name FROM memory_speakers WHERE space_id = memory_spaces.id
             ORDER BY live DESC, name LIMIT %(most)s) AS speakers
FROM memory_spaces WHERE account_id = %(account_id)s AND user_id = %(user_id)s
"""


def find_with_speakers(connection: Connection, account_id: str, user_id: str) -> tuple[Space, list[str]] | None:
    """Return the space of a user in an account with the names of its speakers, if there is one."""
    row = fetch_one(
        connection, FIND_WITH_SPEAKERS, {"account_id": account_id, "user_id": user_id, "most": MAX_SPEAKERS}
    )
    if row is None:
        return None
    speakers = row.pop("speakers")
    return Space(**row), speakers


READ = f"SELECT {COLUMNS} FROM memory_spaces WHERE id = %(id)s"


def read(connection: Connection, space_id: int) -> Space | None:
    """Return a space by id."""
    row = fetch_one(connection, READ, {"id": space_id})
    return Space(**row) if row else None


CREATE = """
INSERT INTO memory_spaces (account_id, user_id) VALUES (%(account_id)s, %(user_id)s) ON CONFLICT DO NOTHING
"""


def find_or_create(connection: Connection, account_id: str, user_id: str) -> Space:
    """Return the space of a user in an account, created if there is none."""
    if (space := find(connection, account_id, user_id)) is not None:
        return space
    connection.execute(CREATE, {"account_id": account_id, "user_id": user_id})
    space = find(connection, account_id, user_id)
    assert space is not None
    return space


LOCK = f"SELECT {COLUMNS} FROM memory_spaces WHERE id = %(id)s FOR NO KEY UPDATE"


def lock(connection: Connection, space_id: int) -> Space | None:
    """Return the space and lock it for writing until the transaction ends; None if it was deleted."""
    row = fetch_one(connection, LOCK, {"id": space_id})
    return Space(**row) if row else None


CHANGE = """
UPDATE memory_spaces SET next_ordinal = next_ordinal + %(ordinals)s, live = live + %(live)s
WHERE id = %(id)s
"""


def add_counts(connection: Connection, space_id: int, *, ordinals: int = 0, live: int = 0) -> None:
    """Add to the counts of a space. The caller holds its lock."""
    connection.execute(CHANGE, {"id": space_id, "ordinals": ordinals, "live": live})


COUNT_SPEAKERS = """
INSERT INTO memory_speakers AS known (space_id, name, live)
SELECT %(space_id)s, name, live FROM unnest(%(names)s::text[], %(counts)s::int[]) AS new (name, live)
ON CONFLICT (space_id, name) DO UPDATE SET live = known.live + excluded.live
"""

FORGET_SPEAKERS = "DELETE FROM memory_speakers WHERE space_id = %(space_id)s AND name = ANY(%(names)s) AND live <= 0"


def add_speaker_counts(connection: Connection, space_id: int, counts: Mapping[str, int]) -> None:
    """Add to the numbers of live memories per speaker. The caller holds the space's lock."""
    changes = {name: live for name, live in counts.items() if name and live}
    if not changes:
        return
    names = {"space_id": space_id, "names": list(changes)}
    connection.execute(COUNT_SPEAKERS, {**names, "counts": list(changes.values())})
    if min(changes.values()) < 0:
        connection.execute(FORGET_SPEAKERS, names)


SPEAKERS = "SELECT name FROM memory_speakers WHERE space_id = %(space_id)s ORDER BY live DESC, name LIMIT %(most)s"


def speakers(connection: Connection, space_id: int) -> list[str]:
    """Return the speakers of the space, those with the most memories first."""
    return [row["name"] for row in fetch_all(connection, SPEAKERS, {"space_id": space_id, "most": MAX_SPEAKERS})]


WITH_CONVERSATION = """
SELECT user_id FROM memory_spaces
WHERE account_id = %(account_id)s
  AND EXISTS (SELECT FROM memories WHERE space_id = memory_spaces.id AND conversation_id = %(conversation_id)s)
"""


def users_with_conversation(connection: Connection, account_id: str, conversation_id: str) -> list[str]:
    """Return the users of an account with memories of a conversation."""
    parameters = {"account_id": account_id, "conversation_id": conversation_id}
    return [row["user_id"] for row in fetch_all(connection, WITH_CONVERSATION, parameters)]
