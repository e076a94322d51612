"""Delete jobs that have ended, with their journals. Usage records are kept."""

from collections.abc import Sequence

from models.jobs import ended_jobs
from models.platform.database import Connection

DELETE_ENDED = """
DELETE FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s
  AND state IN ('completed', 'failed', 'cancelled', 'dead')
"""


def delete_ended(connection: Connection, job_id: str, account_id: str) -> bool:
    """Delete an ended job with its journal. Returns whether it was deleted."""
    deleted = connection.execute(DELETE_ENDED, {"id": job_id, "account_id": account_id}).rowcount > 0
    return deleted or ended_jobs.delete(connection, job_id, account_id)


DELETE_ALL_ENDED = """
DELETE FROM jobs WHERE id = ANY (%(ids)s) AND account_id = %(account_id)s
  AND state IN ('completed', 'failed', 'cancelled')
"""


def delete_all_ended(connection: Connection, job_ids: Sequence[str], account_id: str) -> None:
    """Delete those of some jobs that have ended, with their journals. Dead ones stay for operators to inspect."""
    connection.execute(DELETE_ALL_ENDED, {"ids": list(job_ids), "account_id": account_id})
