"""The outbox: which rows want a message, and what to do where a message or a worker was lost.

Fairness: an account has at most as many jobs of a kind in flight (published or running) as the pool has threads; the
rest wait here, and each end makes room for the next. So one account can use a whole pool, but never stands in front of
another one by more than one job's length a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from models.jobs.attempts import GIVE_BACK_EXPIRED
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.database import Connection, fetch_all

#: Only one relay publishes at a time, whichever process it lives in: it alone counts the windows.
LOCK = 0x73616E676861206F

#: The window while no worker of a pool is known to live: enough to start with.
SMALLEST_WINDOW = 4

#: Workers that died under a job before it is taken for what may have killed them. Such jobs run one at a time a queue:
#: one that kills its process then drags nobody along who has been dragged along before.
SUSPICIOUS = 2

#: Jobs that one pass publishes at most.
BATCH = 64


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job that wants a message."""

    id: str
    kind: str
    queue: str
    attempt: int
    suspect: bool = False


# The lock, and with it three settings for this transaction. DUE takes ten times as long to plan as to run, so that one
# plan of it is kept, which goes by the indexes however small the table was when it was made. And the transaction holds
# nothing but a mark that a crash of Postgres may take back: the commit need not wait for the disk.
BEGIN = """
SELECT pg_advisory_xact_lock(%(lock)s),
       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
       set_config('synchronous_commit', 'off', true)
"""

# Walk the (account, kind) pairs that have unpublished jobs with one index probe each, and take from each what its
# window has room for. A job with a serial key waits until nothing before it, and nothing beside it, is unfinished.
DUE = """
WITH RECURSIVE pairs AS (
    (SELECT account_id, kind FROM jobs WHERE state = 'queued' AND published_at IS NULL
     ORDER BY account_id, kind LIMIT 1)
    UNION ALL
    SELECT next.account_id, next.kind FROM pairs CROSS JOIN LATERAL (
        SELECT account_id, kind FROM jobs
        WHERE state = 'queued' AND published_at IS NULL
          AND (account_id, kind) > (pairs.account_id, pairs.kind)
        ORDER BY account_id, kind LIMIT 1) AS next
)
SELECT due.id, due.kind, due.queue, due.attempt, due.crashes >= %(suspicious)s AS suspect
FROM pairs CROSS JOIN LATERAL (
    SELECT id, kind, queue, attempt, run_at, crashes FROM jobs
    WHERE state = 'queued' AND published_at IS NULL
      AND account_id = pairs.account_id AND kind = pairs.kind AND run_at <= now()
      AND (crashes < %(suspicious)s OR NOT EXISTS (
          SELECT FROM jobs AS suspect
          WHERE suspect.queue = jobs.queue AND suspect.crashes >= %(suspicious)s AND suspect.id <> jobs.id
            AND (suspect.state = 'running' OR (suspect.state = 'queued' AND suspect.published_at IS NOT NULL))))
      AND (serial_key IS NULL OR NOT EXISTS (
          SELECT FROM jobs AS other
          WHERE other.serial_key = jobs.serial_key AND other.id <> jobs.id
            AND other.state IN ('queued', 'running', 'waiting')
            AND (other.id < jobs.id OR other.state <> 'queued' OR other.published_at IS NOT NULL)))
    ORDER BY run_at, id
    LIMIT greatest(0, (%(windows)s::jsonb ->> pairs.kind)::int
        * CASE pairs.account_id WHEN %(platform)s THEN 100 ELSE 1 END
        - (SELECT count(*) FROM jobs AS busy
           WHERE busy.account_id = pairs.account_id AND busy.kind = pairs.kind
             AND (busy.state = 'running' OR (busy.state = 'queued' AND busy.published_at IS NOT NULL))))
) AS due
ORDER BY due.run_at, due.id
LIMIT %(limit)s
"""


def lock_due_jobs(connection: Connection, windows: Mapping[str, int], limit: int = BATCH) -> list[DueJob]:
    """The jobs to publish now, with the lock held until the caller's transaction ends; it writes marks, and no more."""
    connection.execute(BEGIN, {"lock": LOCK})
    parameters = {
        "windows": Jsonb(windows),
        "platform": PLATFORM_ACCOUNT,
        "limit": limit,
        "suspicious": SUSPICIOUS,
    }
    found = connection.execute(DUE, parameters)
    connection.sync()  # the caller goes to the broker now, and may be frozen there with the lock
    return _one_suspect_a_queue([DueJob(**row) for row in found.fetchall()])


def _one_suspect_a_queue(due: Sequence[DueJob]) -> list[DueJob]:
    first = {job.queue: job for job in reversed(due) if job.suspect}
    return [job for job in due if not job.suspect or first[job.queue] is job]


# The mark, unless the job has moved on meanwhile: a worker may be faster than this statement.
MARK = """
WITH still AS (
    SELECT id AS still_id FROM jobs
    JOIN unnest(%(ids)s::text[], %(attempts)s::int[]) AS sent (sent_id, sent_attempt)
        ON id = sent_id AND attempt = sent_attempt
    WHERE state = 'queued' AND published_at IS NULL ORDER BY id DESC FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET published_at = now() FROM still WHERE id = still_id
"""


def mark_published(connection: Connection, sent: Sequence[DueJob]) -> None:
    """Note that these have a message in the queue."""
    parameters = {"ids": [job.id for job in sent], "attempts": [job.attempt for job in sent]}
    connection.execute(MARK, parameters)


# How many threads serve each queue.
CAPACITY = """
SELECT queue, sum(threads)::int AS threads FROM workers CROSS JOIN LATERAL unnest(queues) AS queue
WHERE seen_at > now() - interval '30 seconds' GROUP BY queue
"""


def windows(connection: Connection) -> dict[str, int]:
    """How many jobs of each kind an account may have in flight."""
    capacity = {row["queue"]: row["threads"] for row in fetch_all(connection, CAPACITY)}
    return {name: max(capacity.get(kind.queue, 0), SMALLEST_WINDOW if kind.queue not in capacity else 1)
            for name, kind in CATALOGUE.items()}  # fmt: skip


# A message that nobody has claimed for long may be lost with its broker: send another. The wait doubles each time, so
# that a pool that is down for a day does not find a thousand copies.
UNPUBLISH_LOST = """
WITH lost AS (
    SELECT id AS lost_id FROM jobs
    WHERE state = 'queued' AND published_at < now() - greatest(interval '30 seconds', published_at - run_at)
    ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET published_at = NULL FROM lost WHERE id = lost_id
"""


def requeue_lost(connection: Connection) -> int:
    """Give back what leases have run out on and what was published in vain. Returns how many rows moved."""
    expired = connection.execute(GIVE_BACK_EXPIRED).rowcount
    return expired + connection.execute(UNPUBLISH_LOST).rowcount
