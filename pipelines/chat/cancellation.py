"""Cancel jobs, including turns."""

from collections.abc import Sequence

from models.jobs import cancellation
from models.jobs.cancellation import Cancellation
from models.jobs.jobs import enqueue
from models.memory import pending_turns
from models.platform.database import Connection
from models.turns import response_events
from pipelines.memory.follow_ups import remember_user_job


def cancel_jobs(connection: Connection, job_ids: Sequence[str], account_id: str) -> Cancellation:
    """Cancel an account's jobs and their subtrees, in the caller's transaction.

    A turn that is cancelled before its first attempt ends without a worker. Its input is still remembered, so the job
    for that is enqueued here. After the commit, pass the result to `QueueClient.announce_cancellation`.
    """
    result = cancellation.cancel_all(connection, job_ids, account_id)
    for job_id in result.ended:
        if owner := pending_turns.owner_of(connection, job_id):
            enqueue(connection, remember_user_job(*owner))
    response_events.record_cancelled(connection, result.ended)
    return result
