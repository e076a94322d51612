"""Claim memory jobs of a test's account, and read what they wrote."""

from models.jobs import attempts
from models.jobs.attempt_context import open_attempt
from models.platform.ids import new_id

MAKE_DUE = """
UPDATE jobs SET state = CASE state WHEN 'scheduled' THEN 'queued' ELSE state END, run_at = now() WHERE id = %s
"""


def embed_alike(texts):
    """Embed every text as the same vector."""
    return [[1.0, *[0.0] * 383] for _ in texts]


def unfinished_jobs(harness, kind):
    """Return the unfinished jobs of a kind of the harness's account, with their delays."""
    with harness.database.connection() as connection:
        return connection.execute(
            "SELECT id, run_at - created_at AS delay FROM jobs WHERE account_id = %s AND kind = %s "
            "AND state IN ('scheduled', 'queued', 'running', 'waiting') ORDER BY id",
            (harness.caller.account_id, kind),
        ).fetchall()


def claim_next(harness, kind):
    """Claim the first unfinished job of a kind now, whatever its due time."""
    job_id = unfinished_jobs(harness, kind)[0]["id"]
    with harness.database.connection() as connection:
        connection.execute(MAKE_DUE, (job_id,))
        job = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
    assert job is not None
    return open_attempt(job, harness.database, harness.client, harness.writer)


def memory_texts(harness):
    """Return the texts of the account's memories, in insertion order."""
    with harness.database.connection() as connection:
        rows = connection.execute(
            "SELECT text FROM memories WHERE account_id = %s ORDER BY ordinal", (harness.caller.account_id,)
        ).fetchall()
    return [row["text"] for row in rows]
