"""Meditations and their reports. `meditation_changes` has the changes that each made.

The row is the fence of its changes: applying and reverting lock it first, and only a meditation without an outcome is
applied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.delivery import events
from models.jobs.serial_keys import lock_serial_key, unblock_next
from models.memory.spaces import SpaceKey
from models.platform.database import Connection, fetch_all, fetch_one

#: The kind of job that meditates.
KIND = "meditation.run"

#: Days for which a meditation can be reverted and its changes are kept.
KEPT_DAYS = 90

MeditationOutcome = Literal["applied", "nothing_to_do", "would_harm", "failed", "cancelled"]

#: The outcomes of meditations that have completed.
COMPLETED: tuple[MeditationOutcome, ...] = ("applied", "nothing_to_do", "would_harm")
MeditationStatus = Literal["queued", "in_progress", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Meditation:
    """A row of `meditations` with columns of its job.

    space    the end user whose memories it consolidates; empty for the user's own
    outcome  None while it is unfinished
    report   counts, recall before and after, tokens used
    """

    id: str
    account_id: str
    user_id: str
    space: str
    job_id: str
    outcome: MeditationOutcome | None
    report: dict[str, Any]
    created_at: datetime
    applied_at: datetime | None
    reverted_at: datetime | None
    job_state: str | None
    progress: dict[str, Any] | None

    @property
    def key(self) -> SpaceKey:
        """Identifies the space that it consolidates."""
        return SpaceKey(self.account_id, self.user_id, self.space)

    @property
    def status(self) -> MeditationStatus:
        """The status for the user. A job that is cancelled before its first attempt leaves no outcome."""
        if self.outcome in ("failed", "cancelled"):
            return self.outcome
        if self.outcome is not None:
            return "completed"
        statuses: Mapping[str | None, MeditationStatus] = {
            "scheduled": "queued", "queued": "queued", "running": "in_progress", "waiting": "in_progress",
            "cancelled": "cancelled",
        }  # fmt: skip
        return statuses.get(self.job_state, "failed")


INSERT = """
INSERT INTO meditations (id, account_id, user_id, space, job_id)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(space)s, %(job_id)s)
ON CONFLICT DO NOTHING
"""


def insert(connection: Connection, meditation_id: str, key: SpaceKey, *, job_id: str) -> bool:
    """Insert a meditation. Returns False if the space has an unfinished one, or the id exists."""
    return connection.execute(INSERT, {"id": meditation_id, "job_id": job_id, **key.parameters}).rowcount > 0


SELECT = """
SELECT meditations.id, meditations.account_id, meditations.user_id, space, job_id, outcome, report,
       meditations.created_at, applied_at, reverted_at, jobs.state AS job_state, jobs.progress
FROM meditations LEFT JOIN all_jobs AS jobs ON jobs.id = job_id
"""

OF_KEY = "meditations.account_id = %(account_id)s AND meditations.user_id = %(user_id)s AND space = %(space)s"

READ = SELECT + f"WHERE meditations.id = %(id)s AND {OF_KEY}"


def read(connection: Connection, meditation_id: str, key: SpaceKey) -> Meditation | None:
    """Return the meditation if it consolidates this space."""
    row = fetch_one(connection, READ, {"id": meditation_id, **key.parameters})
    return Meditation(**row) if row else None


UNFINISHED = SELECT + f"WHERE {OF_KEY} AND outcome IS NULL"


def unfinished(connection: Connection, key: SpaceKey) -> Meditation | None:
    """Return the space's meditation without an outcome."""
    row = fetch_one(connection, UNFINISHED, key.parameters)
    return Meditation(**row) if row else None


# The job ended without an outcome: it was cancelled before its first attempt, or deleted.
CLOSE_ABANDONED = f"""
UPDATE meditations SET outcome = CASE ended.state WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END
FROM (SELECT meditations.id, jobs.state FROM meditations LEFT JOIN jobs ON jobs.id = job_id
      WHERE {OF_KEY} AND outcome IS NULL
        AND (jobs.id IS NULL OR jobs.state IN ('completed', 'failed', 'cancelled', 'dead'))) AS ended
WHERE meditations.id = ended.id AND outcome IS NULL
"""


def close_abandoned(connection: Connection, key: SpaceKey) -> None:
    """Set the outcome of the space's unfinished meditation if its job has ended."""
    connection.execute(CLOSE_ABANDONED, key.parameters)


LIST = (
    SELECT
    + f"""
WHERE {OF_KEY} AND (%(after)s::text IS NULL OR meditations.id < %(after)s)
ORDER BY meditations.id DESC LIMIT %(limit)s
"""
)


def page(connection: Connection, key: SpaceKey, *, after: str | None = None, limit: int = 20) -> list[Meditation]:
    """Return at most `limit` meditations of the space, newest first, older than `after`."""
    parameters = {**key.parameters, "after": after, "limit": limit}
    return [Meditation(**row) for row in fetch_all(connection, LIST, parameters)]


LOCK = SELECT + "WHERE meditations.id = %(id)s AND meditations.account_id = %(account_id)s FOR UPDATE OF meditations"


def lock(connection: Connection, meditation_id: str, account_id: str) -> Meditation | None:
    """Return the meditation and lock it until the transaction ends."""
    row = fetch_one(connection, LOCK, {"id": meditation_id, "account_id": account_id})
    return Meditation(**row) if row else None


# Only if nothing was changed yet.
RESUME = """
UPDATE meditations SET outcome = NULL
WHERE id = %(id)s AND account_id = %(account_id)s AND outcome IN ('failed', 'cancelled')
  AND NOT EXISTS (SELECT FROM meditations AS other
                  WHERE other.account_id = meditations.account_id AND other.user_id = meditations.user_id
                    AND other.space = meditations.space AND other.outcome IS NULL)
"""


def resume(connection: Connection, meditation_id: str, account_id: str) -> None:
    """Clear the outcome of a meditation whose job was replayed, unless another one is unfinished."""
    connection.execute(RESUME, {"id": meditation_id, "account_id": account_id})


TOO_OLD = "SELECT created_at < now() - make_interval(days => %(days)s) AS too_old FROM meditations WHERE id = %(id)s"


def too_old(connection: Connection, meditation_id: str) -> bool:
    """Return whether the meditation's changes may have been pruned."""
    row = fetch_one(connection, TOO_OLD, {"id": meditation_id, "days": KEPT_DAYS})
    return row is None or bool(row["too_old"])


SET_OUTCOME = """
UPDATE meditations SET outcome = %(outcome)s, report = %(report)s,
                       applied_at = CASE %(outcome)s WHEN 'applied' THEN now() END
WHERE id = %(id)s AND account_id = %(account_id)s AND outcome IS NULL
"""


def set_outcome(
    connection: Connection, meditation_id: str, account_id: str, outcome: MeditationOutcome, report: Mapping[str, Any]
) -> bool:
    """Set the outcome and the report. Returns False if there is an outcome already.

    Of a meditation that has completed this is an event.
    """
    parameters = {"id": meditation_id, "account_id": account_id, "outcome": outcome, "report": Jsonb(dict(report))}
    is_set = connection.execute(SET_OUTCOME, parameters).rowcount > 0
    if is_set and outcome in COMPLETED:
        data = {"id": meditation_id, "outcome": outcome}
        events.record(connection, account_id, "meditation.completed", data)
    return is_set


MARK_REVERTED = """
UPDATE meditations SET reverted_at = now(), report = report || jsonb_build_object('reverted', %(report)s::jsonb)
WHERE id = %(id)s AND account_id = %(account_id)s
"""


def mark_reverted(connection: Connection, meditation_id: str, account_id: str, report: Mapping[str, Any]) -> None:
    """Mark a meditation as reverted, and add the numbers of changes that were and were not."""
    connection.execute(MARK_REVERTED, {"id": meditation_id, "account_id": account_id, "report": Jsonb(dict(report))})


#: New memories after which the space of an end user is due for a meditation; a user's own is due after the first. Most
#: end users write little in a day.
DUE_MEMORIES = 10

# Spaces of members whose newest memories are newer than their last meditation. Two index entries are read per
# space.
SPACES_DUE = """
SELECT account_id, user_id, end_user FROM memory_spaces JOIN memberships USING (account_id, user_id)
CROSS JOIN LATERAL (
    SELECT created_at FROM memories WHERE space_id = memory_spaces.id AND kind <> 'insight'
    ORDER BY ordinal DESC OFFSET CASE WHEN end_user = '' THEN 0 ELSE %(due)s - 1 END LIMIT 1) AS newest
WHERE (account_id, user_id, end_user) > (%(account_id)s, %(user_id)s, %(space)s)
  AND newest.created_at > coalesce((
      SELECT max(meditations.created_at) FROM meditations
      WHERE meditations.account_id = memory_spaces.account_id AND meditations.user_id = memory_spaces.user_id
        AND space = end_user AND outcome IN ('applied', 'nothing_to_do', 'would_harm')), '-infinity')
ORDER BY account_id, user_id, end_user LIMIT %(limit)s
"""


def spaces_due(connection: Connection, after: SpaceKey, limit: int) -> list[SpaceKey]:
    """Return at most `limit` spaces of members, after `after`, that are due for a meditation."""
    rows = fetch_all(connection, SPACES_DUE, {**after.parameters, "due": DUE_MEMORIES, "limit": limit})
    return [SpaceKey(**row) for row in rows]


SPACES_SINCE = """
SELECT account_id, user_id, end_user FROM memory_spaces JOIN memberships USING (account_id, user_id)
WHERE (account_id, user_id, end_user) > (%(account_id)s, %(user_id)s, %(space)s)
  AND (%(user_ids)s::text[] IS NULL OR user_id = ANY(%(user_ids)s))
  AND NOT EXISTS (SELECT FROM meditations
                  WHERE meditations.account_id = memory_spaces.account_id
                    AND meditations.user_id = memory_spaces.user_id AND space = end_user
                    AND meditations.created_at >= %(since)s)
ORDER BY account_id, user_id, end_user LIMIT %(limit)s
"""


def spaces_without_meditation(
    connection: Connection, after: SpaceKey, limit: int, user_ids: Sequence[str] | None, *, since: datetime
) -> list[SpaceKey]:
    """Return at most `limit` spaces of members, after `after`, that have no meditation `since`.

    `user_ids` restricts them to these users.
    """
    ids = list(user_ids) if user_ids else None
    parameters = {**after.parameters, "limit": limit, "user_ids": ids, "since": since}
    return [SpaceKey(**row) for row in fetch_all(connection, SPACES_SINCE, parameters)]


DELETE_OF_SPACE = f"DELETE FROM meditations WHERE {OF_KEY} AND created_at <= %(until)s"


def delete_of_space(connection: Connection, key: SpaceKey, until: datetime) -> None:
    """Delete the meditations of a space that were created by a time, with the changes that they made."""
    connection.execute(DELETE_OF_SPACE, {**key.parameters, "until": until})


NOT_STARTED = """
id = %(job_id)s AND account_id = %(account_id)s AND state IN ('scheduled', 'queued') AND attempt = 0
AND published_at IS NULL
"""

SERIAL_KEY = f"SELECT serial_key FROM jobs WHERE {NOT_STARTED}"

RUN_NOW = f"""
UPDATE jobs SET state = 'queued', run_at = least(run_at, now()), serial_key = NULL, blocked = false WHERE {NOT_STARTED}
"""


def run_now(connection: Connection, job_id: str, account_id: str) -> None:
    """Let a meditation that has not started run now, and concurrently with others; those behind it move up."""
    parameters = {"job_id": job_id, "account_id": account_id}
    if (row := fetch_one(connection, SERIAL_KEY, parameters)) is None:
        return
    if row["serial_key"] is not None:
        lock_serial_key(connection, row["serial_key"])
    connection.execute(RUN_NOW, parameters)
    if row["serial_key"] is not None:
        unblock_next(connection, row["serial_key"])


# The insights were used or dropped; they are kept in memories only.
CLEAR_ANSWERS = "UPDATE jobs SET result = result - 'insights' WHERE parent_id = %(job_id)s AND result ? 'insights'"


def clear_answers(connection: Connection, job_id: str) -> None:
    """Erase the insights from the results of a meditation's child jobs."""
    connection.execute(CLEAR_ANSWERS, {"job_id": job_id})
