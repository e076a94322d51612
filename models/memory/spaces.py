"""Memory spaces: the memories of a user in an account, and those of each end user whom the user's applications name.

Everything in a space refers to its id, so no statement finds memories of two spaces. Writers lock the space's row
first, so ordinals, postings and statistics have one writer at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from models.accounts.plans import EFFECTIVE_LIMITS
from models.jobs.jobs import Job
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns
from models.turns.responses import Response

#: The first schema version whose code knows named spaces. They exist once the upgrade to it is finalized.
SINCE = "0030"

#: Characters of a name, which an application or its users choose.
MAX_NAME = 512

#: Speakers that a query is searched for.
MAX_SPEAKERS = 100


class SpaceKey(NamedTuple):
    """Identifies a space: a user in an account, and the name of an end user, empty for the user's own memories."""

    account_id: str
    user_id: str
    end_user: str = ""

    @classmethod
    def of_job(cls, job: Job) -> "SpaceKey":
        """Return the key in a job's arguments. Jobs of earlier versions have no name in them."""
        return cls(job.account_id, job.arguments["user_id"], job.arguments.get("space", ""))

    @classmethod
    def of_turn(cls, response: Response) -> "SpaceKey | None":
        """Return the space of a turn; None if its user was deleted."""
        return cls(response.account_id, response.user_id, response.space) if response.user_id is not None else None

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments of a job that name the space, beside the job's account."""
        return {"user_id": self.user_id, **({"space": self.end_user} if self.end_user else {})}

    @property
    def lane(self) -> str:
        """Part of the serial keys of the space's jobs. It contains a digest of the name, not the name."""
        suffix = f" {sha256(self.end_user.encode()).hexdigest()[:32]}" if self.end_user else ""
        return f"{self.account_id} {self.user_id}{suffix}"

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of `ID_OF_KEY`."""
        return {"account_id": self.account_id, "user_id": self.user_id, "space": self.end_user}


@dataclass(frozen=True, slots=True)
class Space:
    """A row of `memory_spaces`.

    live           number of memories that recall considers
    extracted      ordinal up to which facts have been extracted
    term_version   of the terms under which writers index memories
    reindex_below  memories below this ordinal may be indexed under the terms of the version before
    next_passage   number of the next passage
    end_user       the name of the end user; empty for the user's own memories
    """

    id: int
    account_id: str
    user_id: str
    next_ordinal: int
    live: int
    extracted: int = 0
    term_version: int = 1
    reindex_below: int = 0
    next_passage: int = 0
    end_user: str = ""

    @property
    def key(self) -> SpaceKey:
        """Identifies the space."""
        return SpaceKey(self.account_id, self.user_id, self.end_user)


COLUMNS = columns(Space)

OF_KEY = "account_id = %(account_id)s AND user_id = %(user_id)s AND end_user = %(space)s"

#: The id of the space with a key, for conditions on its rows.
ID_OF_KEY = f"(SELECT id FROM memory_spaces WHERE {OF_KEY})"

FIND = f"SELECT {COLUMNS} FROM memory_spaces WHERE {OF_KEY}"


def find(connection: Connection, key: SpaceKey) -> Space | None:
    """Return the space with this key, if there is one."""
    row = fetch_one(connection, FIND, key.parameters)
    return Space(**row) if row else None


# The first statement of a recall.
FIND_WITH_SPEAKERS = f"""
SELECT {COLUMNS},
       ARRAY(SELECT name FROM memory_speakers WHERE space_id = memory_spaces.id
             ORDER BY live DESC, name LIMIT %(most)s) AS speakers
FROM memory_spaces WHERE {OF_KEY}
"""


def find_with_speakers(connection: Connection, key: SpaceKey) -> tuple[Space, list[str]] | None:
    """Return the space with this key, and the names of its speakers, if there is one."""
    row = fetch_one(connection, FIND_WITH_SPEAKERS, {**key.parameters, "most": MAX_SPEAKERS})
    if row is None:
        return None
    speakers = row.pop("speakers")
    return Space(**row), speakers


READ = f"SELECT {COLUMNS} FROM memory_spaces WHERE id = %(id)s"


def read(connection: Connection, space_id: int) -> Space | None:
    """Return a space by id."""
    row = fetch_one(connection, READ, {"id": space_id})
    return Space(**row) if row else None


# Terms of version 2 once the upgrade to schema 0021 is finalized: no process of an earlier version may read them.
CREATE = """
INSERT INTO memory_spaces (account_id, user_id, end_user, term_version)
SELECT %(account_id)s, %(user_id)s, %(space)s, CASE WHEN oldest_code >= '0021' THEN 2 ELSE 1 END
FROM schema_compatibility
"""

# An untrusted person may choose the name. The count reads an index, once for each new name; concurrent requests may
# exceed the limit by a few.
WITHIN_LIMIT = f"""
WHERE %(space)s = '' OR NOT EXISTS (
    SELECT FROM accounts JOIN plans ON plans.id = accounts.plan_id
    WHERE accounts.id = %(account_id)s
      AND (SELECT count(*) FROM memory_spaces WHERE account_id = %(account_id)s AND end_user <> '')
          >= (({EFFECTIVE_LIMITS}) ->> 'memory_spaces')::bigint)
ON CONFLICT DO NOTHING
"""


def find_or_create(connection: Connection, key: SpaceKey) -> Space | None:
    """Find or create the space with this key. Returns None if the account has reached its limit."""
    if (space := find(connection, key)) is not None:
        return space
    connection.execute(CREATE + WITHIN_LIMIT, key.parameters)
    return find(connection, key)


NAMED = f"""
SELECT {COLUMNS}, opened_at FROM memory_spaces
WHERE account_id = %(account_id)s AND user_id = %(user_id)s AND end_user > %(after)s
ORDER BY end_user LIMIT %(limit)s
"""


def page(connection: Connection, account_id: str, user_id: str, *, after: str, limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` spaces of a user's end users, by name, after the name `after`."""
    parameters = {"account_id": account_id, "user_id": user_id, "after": after, "limit": limit}
    return fetch_all(connection, NAMED, parameters)


DELETE = """
DELETE FROM memory_spaces
WHERE id = %(id)s AND end_user <> '' AND NOT EXISTS (SELECT FROM memories WHERE space_id = %(id)s)
"""


def delete_if_empty(connection: Connection, space_id: int) -> bool:
    """Delete the space of an end user if it has no memories. Returns whether it was deleted."""
    return connection.execute(DELETE, {"id": space_id}).rowcount > 0


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


BEGIN_REINDEX = """
UPDATE memory_spaces SET term_version = %(version)s, reindex_below = next_ordinal
WHERE id = %(id)s AND term_version < %(version)s
"""


def begin_reindex(connection: Connection, space_id: int, version: int) -> None:
    """Have writers index under the terms of this version, and mark all memories as to be indexed again."""
    connection.execute(BEGIN_REINDEX, {"id": space_id, "version": version})


SET_REINDEX_BELOW = "UPDATE memory_spaces SET reindex_below = %(below)s WHERE id = %(id)s"


def set_reindex_below(connection: Connection, space_id: int, below: int) -> None:
    """Store the ordinal below which memories are to be indexed again. The caller holds the space's lock."""
    connection.execute(SET_REINDEX_BELOW, {"id": space_id, "below": below})


TO_REINDEX = f"""
SELECT {COLUMNS} FROM memory_spaces
WHERE term_version < %(version)s OR reindex_below > 0
   OR id IN (SELECT space_id FROM memory_passages WHERE embedding IS NULL)
ORDER BY id LIMIT %(limit)s
"""


def to_reindex(connection: Connection, version: int, limit: int) -> list[Space]:
    """Return spaces with memories that are not indexed under this version, or with passages that have no vector."""
    return [Space(**row) for row in fetch_all(connection, TO_REINDEX, {"version": version, "limit": limit})]


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


# The expression is that of the index memories_conversation.
WITH_CONVERSATION = """
SELECT account_id, user_id, end_user FROM memory_spaces
WHERE account_id = %(account_id)s AND EXISTS (
    SELECT FROM memories
    WHERE space_id = memory_spaces.id AND coalesce(conversation_id, '') = %(conversation_id)s)
"""


def with_conversation(connection: Connection, account_id: str, conversation_id: str) -> list[SpaceKey]:
    """Return the spaces of an account with memories of a conversation."""
    parameters = {"account_id": account_id, "conversation_id": conversation_id}
    return [SpaceKey(**row) for row in fetch_all(connection, WITH_CONVERSATION, parameters)]
