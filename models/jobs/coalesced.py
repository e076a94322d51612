"""Coalescing jobs: one does all work that is left under its serial key, so at most one of them is queued."""

from models.platform.database import Connection

# A transaction that adds work for a coalescing job holds the shared lock until its commit; the job takes the exclusive
# lock before it reads the work.
LOCK_SHARED = "SELECT pg_advisory_xact_lock_shared(hashtextextended('gather ' || %(serial_key)s, 0))"
LOCK_EXCLUSIVE = "SELECT pg_advisory_xact_lock(hashtextextended('gather ' || %(serial_key)s, 0))"

# A coalescing job, unless one is queued. Without a run_at it is delayed while more work is likely: by 1 second if the
# account has inserted another job within the last second, by 5 if it has inserted eight within the last two. So a busy
# account gets one job every few seconds instead of one per turn. At most one is queued behind a running one, so it is
# not marked as blocked, and needs no lock that would serialise the turns of a user.
INSERT = """
INSERT INTO jobs (id, account_id, kind, queue, priority, arguments, state, run_at, serial_key, lane, owner_id,
                  traceparent)
SELECT %(id)s, %(account_id)s, %(kind)s, %(queue)s, %(priority)s, %(arguments)s,
       CASE WHEN due_at > now() THEN 'scheduled' ELSE 'queued' END, due_at, %(serial_key)s, %(lane)s,
       %(owner_id)s, %(traceparent)s
FROM (SELECT coalesce(%(run_at)s, now() + CASE
           WHEN (SELECT created_at FROM jobs WHERE account_id = %(account_id)s ORDER BY id DESC OFFSET 8 LIMIT 1)
               > now() - interval '2 seconds'
           THEN interval '5 seconds'
           WHEN (SELECT created_at FROM jobs WHERE account_id = %(account_id)s ORDER BY id DESC OFFSET 1 LIMIT 1)
               > now() - interval '1 second'
           THEN interval '1 second' ELSE interval '0' END) AS due_at) AS time
WHERE NOT EXISTS (SELECT FROM jobs WHERE serial_key = %(serial_key)s AND kind = %(kind)s
                  AND state IN ('scheduled', 'queued'))
RETURNING state = 'queued' AS due
"""


def wait_for_batch_writers(connection: Connection, serial_key: str | None) -> None:
    """Wait until the transactions that added work for a claimed coalescing job have ended.

    After this statement their work is visible, and later work gets a job of its own. Needs a connection in autocommit.
    """
    connection.execute(LOCK_EXCLUSIVE, {"serial_key": serial_key})
