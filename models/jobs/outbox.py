"""The outbox: select the jobs to publish, and recover lost messages and expired leases.

Fairness: an account has at most as many jobs of a kind in flight (published or running) as the pool has threads, its
window. The rest stay in the table until one ends. So one account can use a whole pool, but delays another account by at
most one job per thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from models.jobs.attempts import GIVE_BACK_EXPIRED
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.database import Connection, fetch_all

#: Advisory lock: only one relay publishes at a time, in whichever process, since it counts the windows.
LOCK = 0x73616E676861206F

#: The window while no worker of a pool is registered.
SMALLEST_WINDOW = 4

#: Dead workers after which a job is suspected to have killed them. Suspects run one at a time per queue, so that a job
#: that kills its process takes no other suspect with it.
SUSPECT_CRASHES = 2

#: Most jobs that one pass publishes.
BATCH = 64


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job to publish."""

    id: str
    kind: str
    queue: str
    attempt: int
    suspect: bool = False


# The lock, and three settings of this transaction. Planning DUE takes ten times as long as running it, so one generic
# plan is kept, and it uses the indexes even if it was made while the table was small. The transaction only writes
# published_at, which a crash of Postgres may lose, so the commit need not wait for the disk.
BEGIN = """
SELECT pg_advisory_xact_lock(%(lock)s),
       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
       set_config('synchronous_commit', 'off', true)
"""

# Visit the (account, kind) pairs that have unpublished jobs with one index probe each, and take as many jobs of each as
# its window allows. A job with a serial key waits while an earlier or a published one of that key is unfinished.
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
    """Return the jobs to publish now. The lock is held until the transaction ends, which may only mark them."""
    connection.execute(BEGIN, {"lock": LOCK})
    parameters = {
        "windows": Jsonb(windows),
        "platform": PLATFORM_ACCOUNT,
        "limit": limit,
        "suspicious": SUSPECT_CRASHES,
    }
    rows = connection.execute(DUE, parameters)
    connection.sync()  # the caller publishes next, and may be frozen there while it holds the lock
    return _limit_suspects([DueJob(**row) for row in rows.fetchall()])


def _limit_suspects(due: Sequence[DueJob]) -> list[DueJob]:
    """Keep the first suspect of each queue, and all jobs that are not suspects."""
    first = {job.queue: job for job in reversed(due) if job.suspect}
    return [job for job in due if not job.suspect or first[job.queue] is job]


# Mark a job, unless its state has changed meanwhile: a worker may be faster than this statement.
MARK = """
WITH still AS (
    SELECT id AS still_id FROM jobs
    JOIN unnest(%(ids)s::text[], %(attempts)s::int[]) AS published (published_id, published_attempt)
        ON id = published_id AND attempt = published_attempt
    WHERE state = 'queued' AND published_at IS NULL ORDER BY id DESC FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET published_at = now() FROM still WHERE id = still_id
"""


def mark_published(connection: Connection, published: Sequence[DueJob]) -> None:
    """Store that these jobs have a message in the queue."""
    parameters = {"ids": [job.id for job in published], "attempts": [job.attempt for job in published]}
    connection.execute(MARK, parameters)


# Threads that serve each queue.
CAPACITY = """
SELECT queue, sum(threads)::int AS threads FROM workers CROSS JOIN LATERAL unnest(queues) AS queue
WHERE seen_at > now() - interval '30 seconds' GROUP BY queue
"""


def windows(connection: Connection) -> dict[str, int]:
    """Return how many jobs of each kind an account may have in flight."""
    capacity = {row["queue"]: row["threads"] for row in fetch_all(connection, CAPACITY)}
    return {name: max(capacity.get(kind.queue, 0), SMALLEST_WINDOW if kind.queue not in capacity else 1)
            for name, kind in CATALOGUE.items()}  # fmt: skip


# A message that was not claimed for long may be lost with its broker: send another. The wait doubles each time, so that
# the queue of a pool that is down for a day does not fill with copies.
UNPUBLISH_LOST = """
WITH lost AS (
    SELECT id AS lost_id FROM jobs
    WHERE state = 'queued' AND published_at < now() - greatest(interval '30 seconds', published_at - run_at)
    ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET published_at = NULL FROM lost WHERE id = lost_id
"""


def requeue_lost(connection: Connection) -> int:
    """Give back jobs with expired leases, and unpublish those with lost messages. Returns how many."""
    expired = connection.execute(GIVE_BACK_EXPIRED).rowcount
    return expired + connection.execute(UNPUBLISH_LOST).rowcount
