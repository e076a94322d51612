"""What tests of remembered turns share."""

from models.jobs import attempts
from models.jobs.attempt_context import open_attempt
from models.platform.ids import new_id


def flat(texts):
    """An embedder to which all texts are much the same."""
    return [[1.0, *[0.0] * 383] for _ in texts]


def waiting(harness, kind):
    """The unfinished jobs of a kind in a room."""
    with harness.database.connection() as connection:
        return connection.execute(
            "SELECT id, run_at - created_at AS delay FROM jobs WHERE account_id = %s AND kind = %s "
            "AND state IN ('queued', 'running', 'waiting') ORDER BY id",
            (harness.caller.account_id, kind),
        ).fetchall()


def next_job(harness, kind):
    """An attempt at the first job of a kind, now."""
    job_id = waiting(harness, kind)[0]["id"]
    with harness.database.connection() as connection:
        connection.execute("UPDATE jobs SET run_at = now() WHERE id = %s", (job_id,))
        job = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
    assert job is not None
    return open_attempt(job, harness.database, harness.client, harness.writer)


def remembered(harness):
    """The texts of all memories, in their order."""
    with harness.database.connection() as connection:
        rows = connection.execute(
            "SELECT text FROM memories WHERE account_id = %s ORDER BY ordinal", (harness.caller.account_id,)
        ).fetchall()
    return [row["text"] for row in rows]
