"""The fence: what the statements of an attempt check before they change its job.

The fencing token is `attempt` and `claim_id`. A claim increments the one and draws the other, and every later statement
of the attempt names both and changes nothing once another claim exists. So a worker that was presumed dead and resumes
overwrites nothing: its writes raise Fenced. The number alone would not do: a failover to a standby that lacks the last
commits gives the same number to a second attempt.
"""

from collections.abc import Mapping
from typing import Any

from models.jobs.jobs import Job
from models.platform.database import Connection, fetch_one
from models.platform.errors import Fenced

#: Conditions of a statement: this claim is the latest one; and its attempt runs.
FENCE = "id = %(id)s AND attempt = %(attempt)s AND claim_id = %(claim_id)s"
RUNNING = FENCE + " AND state = 'running'"


def fence(job: Job) -> dict[str, Any]:
    """Return the parameters of FENCE for the attempt that claimed `job`."""
    return {"id": job.id, "attempt": job.attempt, "claim_id": job.claim_id}


def execute_fenced(connection: Connection, job: Job, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Execute a statement that returns a row if the fence holds. Raises Fenced otherwise."""
    return require_row(fetch_one(connection, statement, {**fence(job), **parameters}), job)


def require_row(row: dict[str, Any] | None, job: Job) -> dict[str, Any]:
    """Return the row of a fenced statement. Raises Fenced if there is none."""
    if row is None:
        raise Fenced(f"Attempt {job.attempt} of {job.id} has been superseded.")
    return row
