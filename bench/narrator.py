"""Jobs whose events the measurements tell, in the place of a worker, through the journal that workers use."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter

import redis

from bench.stack import Platform
from models.jobs.jobs import NewJob, enqueue
from models.journal import journal
from models.journal.events import Event, event
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.redis_client import connect

#: When the jobs are due: no worker ever has them.
NEVER = datetime(2200, 1, 1, tzinfo=UTC)

#: Jobs that are inserted, and appends that are sent, together.
TOGETHER = 500

DELETE = "DELETE FROM jobs WHERE id = ANY(%(ids)s)"

ENDED = "sangha.job.cancelled"


class Narrator:
    """Makes jobs and tells their events. Each event has two before it, and tells in its text when it was told."""

    def __init__(self, database: Database, client: redis.Redis, account_id: str) -> None:
        self._database = database
        self._client = client
        self._account_id = account_id
        self.last: dict[str, int] = {}

    def jobs(self, count: int) -> list[str]:
        """Ids of new jobs, with the two events that each turn begins with."""
        ids = [new_id("job") for _ in range(count)]
        for begin in range(0, count, TOGETHER):
            self._open(ids[begin : begin + TOGETHER])
        return ids

    def tell(self, job_ids: Sequence[str], type_: str = "response.output_text.delta") -> float:
        """One event to each job; the time before the first append."""
        began = perf_counter()
        for begin in range(0, len(job_ids), TOGETHER):
            self._append([(job_id, [self._next(job_id, type_)]) for job_id in job_ids[begin : begin + TOGETHER]])
        return began

    def end(self, job_ids: Sequence[str]) -> float:
        """The last event of each job; the time before the first append."""
        return self.tell(job_ids, ENDED)

    def clear(self) -> None:
        """Delete all jobs: they would stand in the queue of whatever is measured next."""
        with self._database.connection() as connection:
            connection.execute(DELETE, {"ids": list(self.last)})
        for job_id in self.last:
            journal.forget(self._client, job_id)
        self.last.clear()

    def _open(self, ids: Sequence[str]) -> None:
        opening = [event(0, "response.created", {}), event(1, "response.queued", {})]
        with self._database.batch() as connection:
            for job_id in ids:
                enqueue(connection, NewJob("turn.run", self._account_id, id=job_id, run_at=NEVER, opening=opening))
        journal.append(self._client, ids[0], 0, opening)  # loads the script
        self._append([(job_id, opening) for job_id in ids], force=True)
        self.last |= dict.fromkeys(ids, 1)

    def _next(self, job_id: str, type_: str) -> Event:
        self.last[job_id] += 1
        payload = {"item_id": job_id, "output_index": 0, "content_index": 0, "delta": f"{perf_counter():.6f}"}
        return event(self.last[job_id], type_, payload, 1)

    def _append(self, told: Sequence[tuple[str, Sequence[Event]]], *, force: bool = False) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for job_id, events in told:
            pipeline.evalsha(journal.APPEND_SHA, *journal.append_command(job_id, 0, events, force=force))
        pipeline.execute()


@contextmanager
def narrator(platform: Platform) -> Iterator[Narrator]:
    """One whose jobs belong to the platform's first account, until the end of the block."""
    database = Database(platform.settings.postgres_dsn, size=1, name="bench")
    client = connect(platform.settings.redis_address)
    teller = Narrator(database, client, platform.client().get("/v1/account")["id"])
    try:
        yield teller
    finally:
        teller.clear()
        client.close()
        database.close()
