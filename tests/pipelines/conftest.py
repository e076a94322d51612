"""Jobs of any kind without a queue: enqueued, claimed and ended by the test itself."""

from collections.abc import Callable, Iterator

import pytest
import redis

from models import attempts
from models.attempts import Ending
from models.database import Database
from models.ids import new_id
from models.jobs import NewJob, enqueue
from models.journal_writer import JournalWriter
from models.running import Attempt, open_attempt

Begin = Callable[[NewJob], Attempt]
Settle = Callable[[Attempt, Ending], None]


@pytest.fixture
def begin(database: Database, redis_client: redis.Redis) -> Iterator[Begin]:
    """`begin(job)` → its first attempt; of a job that is there already, the next one."""
    writer = JournalWriter(redis_client, lambda job_id, attempt: True)

    def begin(job: NewJob) -> Attempt:
        with database.transaction() as connection:
            if connection.execute("SELECT 1 FROM jobs WHERE id = %s", (job.id,)).fetchone() is None:
                enqueue(connection, job)
            connection.execute(
                "UPDATE jobs SET run_at = now(), state = 'queued' WHERE id = %s AND state <> 'completed'", (job.id,)
            )
        with database.connection() as connection:
            claimed = attempts.claim(connection, job.id, message_id=new_id("message"), worker=new_id("worker"))
        assert claimed is not None
        return open_attempt(claimed, database, redis_client, writer)

    yield begin
    writer.stop()


@pytest.fixture
def settle(database: Database) -> Settle:
    """`settle(attempt, ending)` ends the job."""

    def settle(attempt: Attempt, ending: Ending) -> None:
        with database.transaction() as connection:
            attempts.end(connection, attempt.job, ending, [*attempt.journal.unarchived(), *ending.events])

    return settle
