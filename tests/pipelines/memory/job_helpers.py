"""What tests of remembered turns share."""

from models.jobs import attempts
from models.jobs.attempt_context import open_attempt
from models.platform.ids import new_id


def flat(texts):
    """An embedder to which all texts are much the same."""
    return [[1.0, *[0.0] * 383] for _ in texts]


def waiting(room, kind):
    """The unfinished jobs of a kind in a room."""
    with room.database.connection() as connection:
        return connection.execute(
            "SELECT id, run_at - created_at AS delay FROM jobs WHERE account_id = %s AND kind = %s "
            "AND state IN ('queued', 'running', 'waiting') ORDER BY id",
            (room.caller.account_id, kind),
        ).fetchall()


def next_job(room, kind):
    """An attempt at the first job of a kind, now."""
    job_id = waiting(room, kind)[0]["id"]
    with room.database.connection() as connection:
        connection.execute("UPDATE jobs SET run_at = now() WHERE id = %s", (job_id,))
        job = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
    assert job is not None
    return open_attempt(job, room.database, room.client, room.writer)


def remembered(room):
    """The texts of all memories, in their order."""
    with room.database.connection() as connection:
        rows = connection.execute(
            "SELECT text FROM memories WHERE account_id = %s ORDER BY ordinal", (room.caller.account_id,)
        ).fetchall()
    return [row["text"] for row in rows]
