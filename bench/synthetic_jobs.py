"""Jobs that no worker runs: a measurement appends their events to the journal, as a worker would."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from time import monotonic

import redis

from bench.harness.sse import DELTA
from bench.harness.stack import RunningPlatform
from models.jobs.jobs import NewJob, enqueue
from models.journal import journal
from models.journal.events import Event, event
from models.journal.journal import Claim, Fence
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.redis_client import connect

#: When the jobs are due: no worker ever claims them.
NEVER = datetime(2200, 1, 1, tzinfo=UTC)

#: Jobs that are inserted, and appends that are sent, in one batch.
BATCH = 500

DELETE = "DELETE FROM jobs WHERE id = ANY(%(ids)s)"

CANCELLED = "sangha:job.cancelled"


class SyntheticJobs:
    """Creates jobs and appends their events. Each job begins with two events; a delta's text is the time of its append.

    last  the last sequence number of each job
    """

    def __init__(self, database: Database, client: redis.Redis, account_id: str) -> None:
        self._database = database
        self._client = client
        self._account_id = account_id
        self.last: dict[str, int] = {}

    def create(self, count: int) -> list[str]:
        """Create jobs with the two events that each turn begins with; returns their ids."""
        ids = [new_id("job") for _ in range(count)]
        for begin in range(0, count, BATCH):
            self._create(ids[begin : begin + BATCH])
        return ids

    def append(self, job_ids: Sequence[str], type_: str = DELTA) -> float:
        """Append one event to each job; returns the time before the first append."""
        began = monotonic()
        for begin in range(0, len(job_ids), BATCH):
            self._append([(job_id, [self._next(job_id, type_)]) for job_id in job_ids[begin : begin + BATCH]])
        return began

    def end(self, job_ids: Sequence[str]) -> float:
        """Append the last event of each job; returns the time before the first append."""
        return self.append(job_ids, CANCELLED)

    def delete(self) -> None:
        """Delete all jobs, which would otherwise be in the queue of the next platform."""
        with self._database.connection() as connection:
            connection.execute(DELETE, {"ids": list(self.last)})
        for job_id in self.last:
            journal.delete(self._client, job_id)
        self.last.clear()

    def _create(self, ids: Sequence[str]) -> None:
        opening = [event(0, "response.created", {}), event(1, "response.queued", {})]
        with self._database.batch() as connection:
            for job_id in ids:
                enqueue(connection, NewJob("turn.run", self._account_id, id=job_id, run_at=NEVER, opening=opening))
        journal.append(self._client, Claim(ids[0]), opening)  # loads the script
        self._append([(job_id, opening) for job_id in ids], force=True)
        self.last |= dict.fromkeys(ids, 1)

    def _next(self, job_id: str, type_: str) -> Event:
        self.last[job_id] += 1
        payload = {"item_id": job_id, "output_index": 0, "content_index": 0, "delta": f"{monotonic():.6f}"}
        return event(self.last[job_id], type_, payload, 1)

    def _append(self, batch: Sequence[tuple[str, Sequence[Event]]], *, force: bool = False) -> None:
        pipeline = self._client.pipeline(transaction=False)
        fence = Fence.TAKE if force else Fence.HELD
        for job_id, events in batch:
            pipeline.evalsha(journal.APPEND_SHA, *journal.append_command(Claim(job_id), events, fence))
        pipeline.execute()


@contextmanager
def synthetic_jobs(platform: RunningPlatform) -> Iterator[SyntheticJobs]:
    """Create jobs for the platform's first account, and delete them at the end of the block."""
    with (
        closing(Database(platform.settings.postgres_dsn, size=1, name="bench")) as database,
        closing(connect(platform.settings.redis_address)) as client,
    ):
        jobs = SyntheticJobs(database, client, platform.client().get("/v1/account")["id"])
        try:
            yield jobs
        finally:
            jobs.delete()
