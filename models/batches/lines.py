"""The lines of batches: the requests, the jobs that answer them, and the answers until the batch has ended.

All changes are made by the attempts of the batch's job, in transactions that lock the job first. Lines are inserted,
begun and ended in sets, so that a line costs a fraction of a statement here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.batches.batches import Batch
from models.platform.database import Connection, fetch_all

LineState = Literal["waiting", "running", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line that has not ended.

    position  among the requests of the file, from 1; blank lines have none
    line      of the file, from 1
    body      the request's, as JSON
    job_ids   the jobs that answer it: one a choice
    """

    position: int
    line: int
    custom_id: str
    body: str
    job_ids: Sequence[str] = ()


INSERT = """
INSERT INTO batch_lines (batch_id, position, account_id, line, custom_id, body)
SELECT %(batch_id)s, added.position, %(account_id)s, added.line, added.custom_id, added.body
FROM unnest(%(positions)s::int[], %(lines)s::int[], %(custom_ids)s::text[], %(bodies)s::text[])
    AS added (position, line, custom_id, body)
"""


def insert(connection: Connection, batch: Batch, lines: Sequence[Line]) -> None:
    """Insert the next lines of a batch that is validated."""
    connection.execute(
        INSERT,
        {
            "batch_id": batch.id,
            "account_id": batch.account_id,
            "positions": [line.position for line in lines],
            "lines": [line.line for line in lines],
            "custom_ids": [line.custom_id for line in lines],
            "bodies": [line.body for line in lines],
        },
    )


# Each line but the first one with its id.
DUPLICATES = """
SELECT line, custom_id, first_line FROM (
    SELECT line, custom_id, min(line) OVER (PARTITION BY custom_id) AS first_line FROM batch_lines
    WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s
) AS lines WHERE line <> first_line ORDER BY line LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A line with the custom_id of an earlier one."""

    line: int
    custom_id: str
    first_line: int


def duplicates(connection: Connection, batch: Batch, limit: int) -> list[Duplicate]:
    """Return at most `limit` lines whose custom_id an earlier line has."""
    parameters = {"batch_id": batch.id, "account_id": batch.account_id, "limit": limit}
    return [Duplicate(**row) for row in fetch_all(connection, DUPLICATES, parameters)]


#: Bytes of the lines or answers that are read at a time, unless a single one has more.
READ_BYTES = 4 * 1024 * 1024

WAITING = f"""
SELECT position, line, custom_id, body FROM (
    SELECT position, line, custom_id, body, sum(octet_length(body)) OVER (ORDER BY position) - octet_length(body)
        AS before
    FROM batch_lines
    WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s AND position > %(after)s AND position <= %(last)s
) AS next WHERE before < {READ_BYTES}
ORDER BY position
"""


def waiting(connection: Connection, batch: Batch, limit: int) -> list[Line]:
    """Return at most `limit` lines after those that have begun, and READ_BYTES of them unless a line has more."""
    last = batch.begun_lines + limit
    parameters = {"batch_id": batch.id, "account_id": batch.account_id, "after": batch.begun_lines, "last": last}
    return [Line(**row) for row in fetch_all(connection, WAITING, parameters)]


BEGIN = """
UPDATE batch_lines SET line_state = 'running', job_ids = string_to_array(begun.jobs, ' ')
FROM unnest(%(positions)s::int[], %(jobs)s::text[]) AS begun (position, jobs)
WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s AND batch_lines.position = begun.position
"""


def begin(connection: Connection, batch: Batch, lines: Sequence[Line]) -> None:
    """Store that jobs have been inserted for these lines."""
    parameters = {
        "batch_id": batch.id,
        "account_id": batch.account_id,
        "positions": [line.position for line in lines],
        "jobs": [" ".join(line.job_ids) for line in lines],
    }
    connection.execute(BEGIN, parameters)


# The next running lines of whose jobs none is unfinished. A job that has ended long ago, or was deleted, is not in the
# table.
ENDED = """
SELECT position, line, custom_id, body, job_ids FROM batch_lines
WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s AND line_state = 'running' AND position > %(after)s
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = ANY (batch_lines.job_ids)
                  AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting'))
ORDER BY position LIMIT %(limit)s
"""


def ended(connection: Connection, batch: Batch, limit: int, *, after: int = 0) -> list[Line]:
    """Return at most `limit` lines after a position whose jobs have ended."""
    parameters = {"batch_id": batch.id, "account_id": batch.account_id, "limit": limit, "after": after}
    return [Line(**row) for row in fetch_all(connection, ENDED, parameters)]


RUNNING_JOBS = """
SELECT jobs.id FROM batch_lines JOIN jobs ON jobs.id = ANY (batch_lines.job_ids)
WHERE batch_id = %(batch_id)s AND batch_lines.account_id = %(account_id)s AND line_state = 'running'
  AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting') AND jobs.cancel_requested_at IS NULL
LIMIT %(limit)s
"""


def uncancelled_jobs(connection: Connection, batch: Batch, limit: int) -> list[str]:
    """Return at most `limit` unfinished jobs of running lines that are not to be cancelled yet."""
    parameters = {"batch_id": batch.id, "account_id": batch.account_id, "limit": limit}
    return [row["id"] for row in fetch_all(connection, RUNNING_JOBS, parameters)]


@dataclass(frozen=True, slots=True)
class EndedLine:
    """A line that ends with its answer: a line of the output file, or of the error file if it has failed."""

    position: int
    answer: str
    failed: bool


END = """
UPDATE batch_lines SET line_state = CASE WHEN ending.failed THEN 'failed' ELSE 'completed' END, answer = ending.answer,
                       body = ''
FROM unnest(%(positions)s::int[], %(answers)s::text[], %(failed)s::boolean[]) AS ending (position, answer, failed)
WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s AND batch_lines.position = ending.position
"""


def end(connection: Connection, batch: Batch, lines: Sequence[EndedLine]) -> None:
    """Store the answers to lines."""
    parameters = {
        "batch_id": batch.id,
        "account_id": batch.account_id,
        "positions": [line.position for line in lines],
        "answers": [line.answer for line in lines],
        "failed": [line.failed for line in lines],
    }
    connection.execute(END, parameters)


# The sizes are read without the answers, which are stored apart where they are large.
ANSWERS = f"""
SELECT position, answer FROM (
    SELECT position, answer, sum(octet_length(answer)) OVER (ORDER BY position) - octet_length(answer) AS before
    FROM (
        SELECT position, answer FROM batch_lines
        WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s AND line_state = %(state)s
          AND position > %(after)s
        ORDER BY position LIMIT %(limit)s
    ) AS lines
) AS next WHERE before < {READ_BYTES}
ORDER BY position
"""


def answers(
    connection: Connection, batch: Batch, state: LineState, *, after: int, limit: int = 1000
) -> list[dict[str, Any]]:
    """Return position and answer of ended lines after a position: at most `limit`, and READ_BYTES as `waiting` does."""
    parameters = {
        "batch_id": batch.id,
        "account_id": batch.account_id,
        "state": state,
        "after": after,
        "limit": limit,
    }
    return fetch_all(connection, ANSWERS, parameters)


DELETE = """
DELETE FROM batch_lines WHERE batch_id = %(batch_id)s AND account_id = %(account_id)s AND position IN (
    SELECT position FROM batch_lines WHERE batch_id = %(batch_id)s ORDER BY position LIMIT %(limit)s)
"""


def delete(connection: Connection, batch: Batch, limit: int) -> int:
    """Delete at most `limit` lines of a batch whose files are written, or that has failed. Returns how many."""
    parameters = {"batch_id": batch.id, "account_id": batch.account_id, "limit": limit}
    return connection.execute(DELETE, parameters).rowcount


# Of batches that have ended without deleting them, as one whose job is dead.
PRUNE = """
DELETE FROM batch_lines WHERE (batch_id, position) IN (
    SELECT batch_id, position FROM batch_lines JOIN batches ON batches.id = batch_id
    WHERE ended_at < now() - interval '1 day' LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` lines that batches have left over. Returns how many."""
    return connection.execute(PRUNE, {"batch": batch}).rowcount
