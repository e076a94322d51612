"""The outbox: select the jobs to publish, promote scheduled ones, and publish lost messages again.

Fairness: a lane, by default an account, has at most a window of jobs of a queue in flight (published or running). The
rest stay in the table until one ends. The window is the number of threads that serve the queue; of SHARED_QUEUES, one
less. So one account can use all slots of an engine and delays another by at most one turn per slot, and the long jobs
of one account never take all threads of another pool (see `models/jobs/windows.py`).

Jobs that are due later, or behind an earlier one of their serial key, are in no index that is read here. After an
insert or an end the relay looks at one lane only. The sweeper looks at all lanes with due jobs, at most LANES of a
queue at a time, and leaves out a queue that has many jobs in flight.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg.types.json import Jsonb

from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.jobs.passing import free_places, passes_others
from models.jobs.serial_keys import EARLIER_UNFINISHED
from models.platform.database import Connection, fetch_all

#: Advisory locks, one per shard of lanes: a relay holds those of the lanes that it publishes, since it counts their
#: windows. Several relays publish side by side.
LOCK = 0x73616E67
SHARDS = 4

#: Advisory lock of a relay that publishes suspects.
SUSPECTS_LOCK = 0x73616E676861206F

#: Jobs in flight of a queue, per thread and at least, beyond which the sweeper publishes no more.
DEPTH = 32
SMALLEST_DEPTH = 256

#: Most lanes of a queue that one pass of the sweeper visits.
LANES = 128

#: Dead workers after which a job is suspected to have killed them. Suspects run one at a time per queue, so that a job
#: that kills its process takes no other suspect with it.
SUSPECT_CRASHES = 2

#: Most jobs that one pass publishes.
BATCH = 64


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job to publish; one that is `first` into the queue of messages that pass others."""

    id: str
    kind: str
    queue: str
    attempt: int
    suspect: bool = False
    first: bool = False


def shard_of(lane: str) -> int:
    """Return the shard of a lane, as the index `jobs_due` does: ids end in a random character."""
    return ord(lane[-1]) % SHARDS


# The locks, and three settings of this transaction. Planning DUE takes ten times as long as running it, so one generic
# plan is kept, and it uses the indexes even if it was made while the table was small. The transaction only writes
# published_at, which a crash of Postgres may lose, so the commit need not wait for the disk.
BEGIN = """
SELECT pg_advisory_xact_lock(%(lock)s, shard),
       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
       set_config('synchronous_commit', 'off', true)
FROM (SELECT DISTINCT shard FROM unnest(%(shards)s::int[]) AS shard ORDER BY shard) AS shards
"""

GIVEN_LANES = """
WITH lanes AS (
    SELECT ascii(right(lane, 1)) %% 4 AS shard, queue, "window", lane, 0 AS visited
    FROM unnest(%(lanes)s::text[]) AS lane
    CROSS JOIN jsonb_to_recordset(%(queues)s) AS given (queue text, "window" int)
)"""

# `state || ''` is the expression of the index `jobs_due`, which no other index has. Without it the planner would choose
# one that contains blocked jobs too.
#
# Visit the lanes of a shard that have due jobs with one index probe each, in queues that have few jobs in flight. A
# scalar subquery with LIMIT stays a probe of the index: the planner makes a join of EXISTS, which reads all due rows.
ALL_LANES = """
WITH RECURSIVE open_queues AS MATERIALIZED (
    SELECT queue, "window", after FROM jsonb_to_recordset(%(queues)s)
        AS given (queue text, "window" int, most_in_flight int, after text)
    WHERE (
        SELECT true FROM jobs WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = %(shard)s AND jobs.queue = given.queue LIMIT 1)
      AND most_in_flight > (SELECT count(*) FROM (
        SELECT FROM jobs AS busy WHERE busy.queue = given.queue
          AND (busy.state = 'running' OR (busy.state = 'queued' AND busy.published_at IS NOT NULL))
        LIMIT given.most_in_flight) AS in_flight)
), lanes AS (
    SELECT %(shard)s::int AS shard, queue, "window", first.lane, 1 AS visited
    FROM open_queues CROSS JOIN LATERAL (
        SELECT coalesce(lane, account_id) AS lane FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = %(shard)s AND jobs.queue = open_queues.queue
          AND coalesce(lane, account_id) > after
        ORDER BY coalesce(lane, account_id) LIMIT 1) AS first
    UNION ALL
    SELECT shard, lanes.queue, "window", next.lane, visited + 1
    FROM lanes CROSS JOIN LATERAL (
        SELECT coalesce(lane, account_id) AS lane FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = %(shard)s AND jobs.queue = lanes.queue
          AND coalesce(lane, account_id) > lanes.lane
        ORDER BY coalesce(lane, account_id) LIMIT 1) AS next
    WHERE visited < %(most_lanes)s
)"""

# Take as many due jobs of each lane as its window allows. A job with a serial key is left out while an earlier one of
# that key is unfinished; usually it is blocked, and in no index that is read here. The last lane of a full visit is
# returned also without a job: the next pass continues there.
DUE = f"""
SELECT due.id, due.kind, lanes.queue, due.attempt, due.priority, due.crashes >= {SUSPECT_CRASHES} AS suspect,
       lanes.lane, lanes.visited
FROM lanes LEFT JOIN LATERAL (
    SELECT id, kind, attempt, priority, run_at, crashes FROM jobs
    WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
      AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = lanes.shard AND queue = lanes.queue
      AND coalesce(lane, account_id) = lanes.lane AND run_at <= now()
      AND (crashes < {SUSPECT_CRASHES} OR NOT EXISTS (
          SELECT FROM jobs AS suspect
          WHERE suspect.queue = jobs.queue AND suspect.crashes >= {SUSPECT_CRASHES} AND suspect.id <> jobs.id
            AND (suspect.state = 'running' OR (suspect.state = 'queued' AND suspect.published_at IS NOT NULL))))
      AND (serial_key IS NULL OR NOT {EARLIER_UNFINISHED}
        AND (SELECT true FROM jobs AS active
             WHERE active.serial_key = jobs.serial_key AND active.state IN ('running', 'waiting') LIMIT 1) IS NULL)
    ORDER BY priority, run_at, sequence, id
    LIMIT greatest(0, lanes."window" * CASE lanes.lane WHEN %(platform)s THEN 100 ELSE 1 END
        - (SELECT count(*) FROM jobs AS busy
           WHERE busy.queue = lanes.queue AND coalesce(busy.lane, busy.account_id) = lanes.lane
             AND (busy.state = 'running' OR (busy.state = 'queued' AND busy.published_at IS NOT NULL))))
) AS due ON true
WHERE due.kind = ANY(%(kinds)s) OR lanes.visited = %(most_lanes)s
ORDER BY due.priority, due.run_at, due.id
LIMIT %(limit)s
"""

DUE_OF_LANES = GIVEN_LANES + DUE
DUE_OF_SHARD = ALL_LANES + DUE


def lock_due_jobs_of_lanes(
    connection: Connection, windows: Mapping[str, int], lanes: Collection[str], limit: int = BATCH
) -> list[DueJob]:
    """Return the jobs of some lanes to publish now. `windows` are the threads that serve each queue.

    The locks are held until the transaction ends, which may only mark the jobs.
    """
    queues = [{"queue": queue, "window": window} for queue, window in windows.items()]
    rows = _due_rows(
        connection, DUE_OF_LANES, {shard_of(lane) for lane in lanes}, {"lanes": list(lanes)}, queues, limit
    )
    return _due_jobs(connection, rows, windows)


def lock_due_jobs_of_shard(
    connection: Connection, windows: Mapping[str, int], shard: int, after: dict[str, str], limit: int = BATCH
) -> list[DueJob]:
    """Return jobs of a shard to publish now; see `lock_due_jobs_of_lanes`.

    `after` is where this pass begins, by queue, and is updated to where the next one begins: after the last lane that
    was visited, or at the first one. It is empty once all lanes were visited.
    """
    queues = [
        {
            "queue": queue,
            "window": window,
            "most_in_flight": max(SMALLEST_DEPTH, DEPTH * window),
            "after": after.get(queue, ""),
        }
        for queue, window in windows.items()
    ]
    rows = _due_rows(connection, DUE_OF_SHARD, {shard}, {"shard": shard}, queues, limit)
    after.clear()
    after.update({row["queue"]: row["lane"] for row in rows if row["visited"] == LANES})
    return _due_jobs(connection, [row for row in rows if row["id"] is not None], windows)


def _due_rows(
    connection: Connection,
    statement: str,
    shards: Collection[int],
    parameters: Mapping[str, Any],
    queues: Sequence[Mapping[str, Any]],
    limit: int,
) -> list[dict[str, Any]]:
    connection.execute(BEGIN, {"lock": LOCK, "shards": sorted(shards)})
    rows = connection.execute(
        statement,
        {
            **parameters,
            "queues": Jsonb(queues),
            "kinds": list(CATALOGUE),  # not those of the next version, which no worker may know yet
            "platform": PLATFORM_ACCOUNT,
            "most_lanes": LANES,
            "limit": limit,
        },
    )
    connection.sync()  # the caller publishes next, and may be frozen there while it holds the locks
    return rows.fetchall()


SELECTED = ("id", "kind", "queue", "attempt", "suspect", "priority")


def _due_job(id: str, kind: str, queue: str, attempt: int, suspect: bool, priority: int) -> DueJob:
    return DueJob(id, kind, queue, attempt, suspect, passes_others(kind, priority))


def _due_jobs(connection: Connection, rows: Sequence[Mapping[str, Any]], windows: Mapping[str, int]) -> list[DueJob]:
    due = [_due_job(**{name: row[name] for name in SELECTED}) for row in rows]
    if any(job.first for job in due):
        due = _limit_first(connection, due, windows)
    return _limit_suspects(connection, due) if any(job.suspect for job in due) else due


def _limit_first(connection: Connection, due: Sequence[DueJob], windows: Mapping[str, int]) -> list[DueJob]:
    """Let as many jobs of each queue pass others as it has threads for that; the rest wait as others do."""
    places = free_places(connection, {job.queue for job in due if job.first}, windows)
    limited = []
    for job in due:
        limited.append(replace(job, first=job.first and places[job.queue] > 0))
        places[job.queue] -= job.first
    return limited


# Queues with a suspect in flight. Read while holding the lock, since another relay may have published one meanwhile.
LOCK_SUSPECTS = "SELECT pg_advisory_xact_lock(%(lock)s)"
BUSY_WITH_SUSPECT = f"""
SELECT DISTINCT queue FROM jobs
WHERE crashes >= {SUSPECT_CRASHES} AND (state = 'running' OR (state = 'queued' AND published_at IS NOT NULL))
"""


def _limit_suspects(connection: Connection, due: Sequence[DueJob]) -> list[DueJob]:
    """Keep the first suspect of each queue that has none in flight, and all jobs that are not suspects."""
    connection.execute(LOCK_SUSPECTS, {"lock": SUSPECTS_LOCK})
    busy = {row["queue"] for row in fetch_all(connection, BUSY_WITH_SUSPECT)}
    first = {job.queue: job for job in reversed(due) if job.suspect and job.queue not in busy}
    return [job for job in due if not job.suspect or first.get(job.queue) is job]


# Mark a job, unless its state has changed meanwhile: a worker may be faster than this statement, or the job may have
# moved to another queue than its message's.
MARK = """
WITH still AS (
    SELECT id AS still_id FROM jobs
    JOIN unnest(%(ids)s::text[], %(attempts)s::int[], %(queues)s::text[])
            AS published (published_id, published_attempt, published_queue)
        ON id = published_id AND attempt = published_attempt AND queue = published_queue
    WHERE state = 'queued' AND published_at IS NULL ORDER BY id DESC FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET published_at = now(), sends = sends + 1 FROM still WHERE id = still_id
"""


def mark_published(connection: Connection, published: Sequence[DueJob]) -> None:
    """Store that these jobs have a message in the queue."""
    parameters = {
        "ids": [job.id for job in published],
        "attempts": [job.attempt for job in published],
        "queues": [job.queue for job in published],
    }
    connection.execute(MARK, parameters)


PROMOTE = """
WITH due AS (
    SELECT id AS due_id FROM jobs WHERE state = 'scheduled' AND run_at <= now()
    ORDER BY run_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET state = 'queued', published_at = NULL FROM due WHERE id = due_id
"""

# Jobs whose wait has lasted long enough, or whose deadline has passed: their next attempt notices.
WAKE_LATE = """
WITH late AS (
    SELECT id AS late_id FROM jobs
    WHERE state = 'waiting' AND wait_until <= now()
       OR state IN ('scheduled', 'waiting') AND deadline_at IS NOT NULL AND deadline_at <= now()
    ORDER BY id DESC LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET state = 'queued', run_at = now(), published_at = NULL, wait_until = NULL FROM late WHERE id = late_id
"""


def promote_due(connection: Connection, limit: int = 1000) -> int:
    """Queue scheduled jobs that have become due, and waiting ones whose time is up. Returns how many."""
    promoted = connection.execute(PROMOTE, {"limit": limit}).rowcount
    return promoted + connection.execute(WAKE_LATE, {"limit": limit}).rowcount


# A message that was not claimed for long may be lost with its broker: send another. The wait doubles with each one, so
# that the queue of a pool that is down for a day does not fill with copies. A message that is older than its broker is
# sent again at once: a copy of one that the broker has kept does no harm.
UNPUBLISH_LOST = """
WITH lost AS (
    SELECT id AS lost_id FROM jobs
    WHERE state = 'queued'
      AND published_at < now() - make_interval(secs => least(%(broker_age)s::float, 30))
      AND (published_at < now() - make_interval(secs => %(broker_age)s::float)
           OR published_at < now() - interval '30 seconds' * 2 ^ least(greatest(sends - 1, 0), 7))
    ORDER BY id DESC FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET published_at = NULL FROM lost WHERE id = lost_id
"""


def unpublish_lost(connection: Connection, broker_age: float | None = None) -> int:
    """Publish the jobs again whose messages may be lost. Returns how many.

    broker_age  seconds since the start of a broker that may lose messages at a restart; None for one that does not
    """
    return connection.execute(UNPUBLISH_LOST, {"broker_age": broker_age}).rowcount


UNPUBLISH_QUEUE = """
WITH published AS (
    SELECT id AS published_id FROM jobs
    WHERE state = 'queued' AND published_at IS NOT NULL AND queue = ANY(%(queues)s)
    ORDER BY id DESC FOR NO KEY UPDATE
)
UPDATE jobs SET published_at = NULL FROM published WHERE id = published_id
RETURNING coalesce(lane, account_id) AS lane
"""


def unpublish_queues(connection: Connection, queues: Sequence[str]) -> int:
    """Publish all unclaimed jobs of some queues again, whose messages are lost. Returns how many."""
    return connection.execute(UNPUBLISH_QUEUE, {"queues": list(queues)}).rowcount


# A job that was inserted by the previous version's code, or ended by it, may have left the next one blocked.
UNBLOCK_LEFT = f"""
UPDATE jobs SET blocked = false
WHERE blocked AND state IN ('scheduled', 'queued') AND serial_key IS NOT NULL AND NOT {EARLIER_UNFINISHED}
"""


def unblock_left(connection: Connection) -> int:
    """Unblock jobs that are first of their serial key. Needed only while the previous version runs beside this one."""
    return connection.execute(UNBLOCK_LEFT).rowcount
