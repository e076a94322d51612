"""Claim a job, end it, and retry, release or move it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from models.jobs.budgets import Draw, settle_draw
from models.jobs.catalogue import CATALOGUE
from models.jobs.children import wake_parent
from models.jobs.fence import FENCE, RUNNING, execute_fenced, fence, require_row
from models.jobs.jobs import COLUMNS, Job, JobState, NewJob, enqueue_many, lane_of
from models.jobs.route_costs import settle_route
from models.jobs.serial_keys import EARLIER_UNFINISHED, LOCK_SERIAL_KEY, UNBLOCK
from models.journal.archive import LAST, archive_missing, last_of
from models.journal.events import Event
from models.platform.database import Connection, fetch_one
from models.platform.errors import Moved

#: Longest wait between two attempts, in seconds.
MAX_BACKOFF = 600.0

# Take a due job. A running one is taken only by the worker that has claimed it without receiving the reply. A blocked
# one is taken only if nothing is before it, as where the previous version did not unblock it: it may have a message if
# a failover lost the end of the job before.
#
# The commit need not wait for the disk. Each later commit that does, as that of the job's end, writes the claim too. If
# Postgres crashes before, the attempt is fenced, as after a failover that lost its claim, and the job is sent again.
CLAIM = f"""
UPDATE jobs SET
    state = 'running',
    attempt = attempt + 1,
    claim_id = gen_random_uuid(),
    message_id = %(message_id)s,
    worker = %(worker)s,
    lease_until = NULL,
    blocked = false,
    sends = 0,
    published_at = coalesce(published_at, now()),
    started_at = coalesce(started_at, now())
WHERE id = %(id)s
  AND (%(queue)s::text IS NULL OR queue = %(queue)s)
  AND (state = 'queued' AND run_at <= now() AND NOT (blocked AND {EARLIER_UNFINISHED})
       OR state = 'running' AND message_id = %(message_id)s AND worker = %(worker)s AND %(unsure)s)
  AND set_config('synchronous_commit', 'off', true) = 'off'
RETURNING {COLUMNS}
"""

UNPUBLISH = "UPDATE jobs SET published_at = NULL WHERE id = %(id)s AND state = 'queued'"
UNPUBLISH_BLOCKED = UNPUBLISH + " AND blocked"


def claim(
    connection: Connection,
    job_id: str,
    *,
    message_id: str,
    worker: str,
    queue: str | None = None,
    unsure: bool = False,
) -> Job | None:
    """Start an attempt. Returns None if there is nothing to do for this message: then drop it.

    `queue` is that of the message: one from before the job moved to another queue is dropped. None matches each.
    `unsure` is whether this worker may have claimed the job already without receiving the reply. Needs a connection in
    autocommit.
    """
    parameters = {"id": job_id, "message_id": message_id, "worker": worker, "queue": queue, "unsure": unsure}
    try:
        row = fetch_one(connection, CLAIM, parameters)
    except UniqueViolation:
        # An earlier job with the same serial key is running. Back to the outbox, which publishes this one when it is
        # due.
        connection.execute(UNPUBLISH, parameters)
        return None
    if row is None:
        connection.execute(UNPUBLISH_BLOCKED, parameters)
        return None
    return Job(**row)


DECLINE = UNPUBLISH + " RETURNING coalesce(lane, account_id) AS lane"


def decline(connection: Connection, job_id: str) -> str | None:
    """Have a job published again whose message a stopping worker has received. Returns its lane, unless it runs."""
    row = fetch_one(connection, DECLINE, {"id": job_id})
    return row["lane"] if row else None


@dataclass(frozen=True, slots=True)
class Ending:
    """The result of an attempt that ends its job.

    events      last events of the journal; the last one is an ending
    record      writes the job's output and usage in the transaction of the state change; may return further jobs
    follow_ups  jobs to insert in the same transaction
    settle      settles with the tree's budget, after all other statements: see `models/jobs/budgets.py`. None: the job
                gives back its draw but for `tokens`
    tokens      tokens used, for the account's limit per minute; `input_tokens` of them were read
    error       `{"code", "message"}` for the caller; the traceback is for operators only
    """

    state: JobState
    events: Sequence[Event]
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    traceback: str | None = None
    record: Callable[[Connection], Sequence[NewJob] | None] | None = None
    follow_ups: Sequence[NewJob] = ()
    settle: Callable[[Connection], None] | None = None
    tokens: int = 0
    input_tokens: int = 0


# The lock of the job's serial key, if it has one, is taken before the row's.
END = f"""
UPDATE jobs SET state = %(state)s, result = %(result)s, error = %(error)s, traceback = %(traceback)s,
                finished_at = now()
FROM ({LOCK_SERIAL_KEY}) AS locked
WHERE {RUNNING}
RETURNING parent_id,
          (SELECT coalesce(parent.lane, parent.account_id) FROM jobs AS parent WHERE parent.id = jobs.parent_id)
              AS parent_lane
"""

# What the end of a job changes: it unblocks the next one of its serial key, and frees a place in the window for another
# one of its lane and queue. And the last event that is archived.
AFTER_END = f"""
WITH unblocked AS ({UNBLOCK})
SELECT EXISTS (SELECT FROM jobs WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
               AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = ascii(right(%(lane)s, 1)) %% 4
               AND queue = %(queue)s AND coalesce(lane, account_id) = %(lane)s) AS waits,
       (SELECT lane FROM unblocked WHERE due) AS unblocked_lane,
       ({LAST}) AS last
"""


def end(connection: Connection, job: Job, ending: Ending, events: Sequence[Event]) -> frozenset[str]:
    """End the job in the caller's transaction, with its events, records and follow-up jobs.

    `events` are those of the attempt and of its ending; what the archive lacks of them is archived. Returns the lanes
    in which the relay should publish now. Raises Fenced if another claim exists.
    """
    ended = connection.execute(END, {**fence(job), "serial_key": job.serial_key, **_ending_parameters(ending)})
    after = connection.execute(
        AFTER_END, {"job_id": job.id, "serial_key": job.serial_key, "queue": job.queue, "lane": lane_of(job)}
    )
    connection.sync()  # the fence must be checked before anything else is written
    parent, change = require_row(ended.fetchone(), job), require_row(after.fetchone(), job)
    archive_missing(connection, job.id, events, last_of(change))
    recorded = ending.record(connection) if ending.record else None
    follow_ups = [*ending.follow_ups, *(recorded or ())]
    following = enqueue_many(connection, follow_ups)
    if parent["parent_id"]:
        wake_parent(connection, parent["parent_id"], completed=ending.state == "completed")
    if ending.settle:
        ending.settle(connection)
    else:
        settle_draw(connection, job.arguments, Draw(tokens=ending.tokens))
    output_tokens = ending.tokens - ending.input_tokens
    settle_route(connection, job.id, job.arguments, input_tokens=ending.input_tokens, output_tokens=output_tokens)
    freed = lane_of(job) if change["waits"] else None
    lanes = frozenset(filter(None, (parent["parent_lane"], freed, change["unblocked_lane"])))
    return lanes | set(map(lane_of, follow_ups)) if following() else lanes


def _ending_parameters(ending: Ending) -> dict[str, Any]:
    return {
        "state": ending.state,
        "result": Jsonb(ending.result) if ending.result is not None else None,
        "error": Jsonb(ending.error) if ending.error is not None else None,
        "traceback": ending.traceback,
    }


RETRY = f"""
UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN 'scheduled' ELSE 'queued' END,
                failures = failures + 1,
                run_at = now() + make_interval(secs => CASE WHEN cancel_requested_at IS NULL THEN %(delay)s ELSE 0 END),
                published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL,
                error = %(error)s, traceback = %(traceback)s
WHERE {RUNNING}
RETURNING id
"""


def retry(
    connection: Connection,
    job: Job,
    error: Mapping[str, Any],
    traceback: str,
    events: Sequence[Event] = (),
    *,
    retry_after: float = 0,
) -> None:
    """Put the job back after a failure, to run again after its kind's backoff. Raises Fenced.

    retry_after  seconds for which it waits at least: another server wants to be left alone
    """
    delay = max(backoff(job), retry_after)
    execute_fenced(connection, job, RETRY, {"delay": delay, "error": Jsonb(error), "traceback": traceback})
    archive_missing(connection, job.id, events)


def backoff(job: Job) -> float:
    """Return the seconds to wait after this failure: doubled each time, with a jitter of ±25 %."""
    delay = CATALOGUE[job.kind].backoff * 2**job.failures
    return float(min(delay, MAX_BACKOFF) * random.uniform(0.75, 1.25))


RELEASE = f"""
UPDATE jobs SET state = CASE WHEN %(delay)s > 0 THEN 'scheduled' ELSE 'queued' END,
                run_at = now() + make_interval(secs => %(delay)s),
                failures = CASE WHEN %(advanced)s THEN 0 ELSE failures END,
                crashes = CASE WHEN %(advanced)s THEN 0 ELSE crashes END,
                published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
WHERE {RUNNING}
RETURNING id
"""


def release(
    connection: Connection, job: Job, events: Sequence[Event] = (), *, delay: float = 0, advanced: bool = False
) -> None:
    """Put the job back without counting a failure: the worker stops, or a server is down. Raises Fenced.

    advanced  earlier failures and crashes no longer count
    """
    execute_fenced(connection, job, RELEASE, {"delay": delay, "advanced": advanced})
    archive_missing(connection, job.id, events)


# Without a delay the job keeps its place among the due jobs of its lane.
MOVE = f"""
UPDATE jobs SET state = CASE WHEN %(delay)s > 0 THEN 'scheduled' ELSE 'queued' END,
                queue = %(queue)s,
                arguments = CASE WHEN %(route)s::jsonb IS NULL THEN arguments
                                 ELSE jsonb_set(arguments, '{{route}}', %(route)s) END,
                run_at = CASE WHEN %(delay)s > 0 THEN now() + make_interval(secs => %(delay)s) ELSE run_at END,
                published_at = NULL, message_id = NULL, worker = NULL, lease_until = NULL
WHERE {RUNNING}
RETURNING id
"""


def move(connection: Connection, job: Job, moved: Moved, events: Sequence[Event] = ()) -> None:
    """Put the job into another queue without counting a failure. Raises Fenced."""
    route = Jsonb(moved.route) if moved.route is not None else None
    execute_fenced(connection, job, MOVE, {"queue": moved.queue, "route": route, "delay": moved.delay})
    archive_missing(connection, job.id, events)
    if moved.record is not None:
        moved.record(connection)


LOCK = f"SELECT id FROM jobs WHERE {RUNNING} FOR NO KEY UPDATE"


def lock_job(connection: Connection, job: Job) -> None:
    """Lock the job's row, so that no other attempt starts before the transaction ends. Raises Fenced."""
    execute_fenced(connection, job, LOCK, {})


def checkpoint(connection: Connection, job: Job, events: Sequence[Event]) -> None:
    """Archive those of the attempt's events that the archive lacks. Raises Fenced."""
    lock_job(connection, job)
    archive_missing(connection, job.id, events)


PROGRESS = f"""
UPDATE jobs SET progress = %(progress)s WHERE {RUNNING} RETURNING id
"""


def store_progress(connection: Connection, job: Job, progress: Mapping[str, Any]) -> None:
    """Store the job's progress. Raises Fenced."""
    execute_fenced(connection, job, PROGRESS, {"progress": Jsonb(progress)})


REWIND = f"""
UPDATE jobs SET rewound_at = least(rewound_at, %(sequence)s)
WHERE {RUNNING} RETURNING id
"""


def store_rewind(connection: Connection, job: Job, sequence: int) -> None:
    """Store the sequence number from which on events may have been lost. Raises Fenced."""
    execute_fenced(connection, job, REWIND, {"sequence": sequence})


IS_CURRENT = f"""
SELECT FROM jobs WHERE {RUNNING}
"""


def is_current(connection: Connection, job_id: str, attempt: int, claim_id: UUID | None) -> bool:
    """Return whether the attempt is the one that runs."""
    parameters = {"id": job_id, "attempt": attempt, "claim_id": claim_id}
    return fetch_one(connection, IS_CURRENT, parameters) is not None


MAY_WRITE = f"""
SELECT FROM jobs WHERE {FENCE}
  AND (state = 'running' OR finished_at IS NOT NULL)
"""


def may_write(connection: Connection, job_id: str, attempt: int, claim_id: UUID | None) -> bool:
    """Return whether the attempt may write the journal: it is running, or it ended the job."""
    parameters = {"id": job_id, "attempt": attempt, "claim_id": claim_id}
    return fetch_one(connection, MAY_WRITE, parameters) is not None


HAS_ENDED = f"""
SELECT FROM jobs WHERE {FENCE} AND finished_at IS NOT NULL
"""


def has_ended(connection: Connection, job: Job) -> bool:
    """Return whether this attempt ended the job, after a commit that was not confirmed."""
    return fetch_one(connection, HAS_ENDED, fence(job)) is not None
