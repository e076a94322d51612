"""The events of responses that run in the background. Others have a client that waits, and none.

Turns that a turn has started, such as those of sub-agents, are parts of its answer and have no events either.
"""

from collections.abc import Collection, Mapping
from typing import Final

from models.delivery import events
from models.delivery.event_types import EventType
from models.jobs.jobs import Job
from models.platform.database import Connection, fetch_all
from models.turns.responses import Response, ResponseStatus

TYPES: Final[Mapping[ResponseStatus, EventType]] = {
    "completed": "response.completed",
    "failed": "response.failed",
    "incomplete": "response.incomplete",
    "cancelled": "response.cancelled",
}


def record(connection: Connection, response: Response, job: Job) -> None:
    """Record how a response has ended, in the transaction that ends its job."""
    if response.request.get("background") and job.parent_id is None:
        events.record(connection, response.account_id, TYPES[response.status], {"id": response.id})


CANCELLED = """
SELECT responses.id, responses.account_id FROM responses JOIN jobs ON jobs.id = responses.job_id
WHERE jobs.id = ANY(%(job_ids)s) AND jobs.parent_id IS NULL AND (responses.request ->> 'background')::boolean
"""


def record_cancelled(connection: Connection, job_ids: Collection[str]) -> None:
    """Record the responses of jobs that were cancelled before their first attempt, in the transaction of that."""
    for row in fetch_all(connection, CANCELLED, {"job_ids": list(job_ids)}) if job_ids else ():
        events.record(connection, row["account_id"], "response.cancelled", {"id": row["id"]})
