"""Kinds of jobs, accounts and jobs for tests."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from models.jobs.attempts import claim
from models.jobs.catalogue import CATALOGUE, JobKind
from models.jobs.jobs import COLUMNS, PLATFORM_ACCOUNT, Job, NewJob, enqueue
from models.jobs.leases import GIVE_BACK_OF_WORKER
from models.jobs.outbox import SHARDS, lock_due_jobs_of_shard, mark_published
from models.platform.database import Database
from models.platform.ids import new_id
from ops.embedded_servers import Postgres
from tests.databases import new_database
from tests.pgbouncer import PgBouncer

#: Kinds that no worker serves. The backoff is longer than any test.
KINDS = {
    "test.work": JobKind(queue="maintenance", attempts=3, backoff=600),
    "test.other": JobKind(queue="inference", attempts=2, backoff=600),
}


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, JobKind]:
    """Add two kinds of jobs to the catalogue."""
    for name, kind in KINDS.items():
        monkeypatch.setitem(CATALOGUE, name, kind)  # type: ignore[arg-type]
    return KINDS


#: Threads of the two kinds' queues.
WINDOWS = {"maintenance": 4, "inference": 4}


class JobStore:
    """Creates and changes jobs, each step in its own transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create_account(self) -> str:
        """Insert an account and return its id."""
        account_id = new_id("acct")
        with self.database.connection() as connection:
            connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        return account_id

    def enqueue(self, account_id: str, kind: str = "test.work", **options: Any) -> str:
        """Enqueue a job and return its id."""
        job = NewJob(kind, account_id, **options)
        with self.database.transaction() as connection:
            enqueue(connection, job)
        return job.id

    def claim(self, job_id: str, message_id: str = "message", worker: str = "worker") -> Job | None:
        """Claim a job and return it, or None."""
        with self.database.connection() as connection:
            return claim(connection, job_id, message_id=message_id, worker=worker)

    def start(self, account_id: str, **options: Any) -> Job:
        """Enqueue and claim a job."""
        job = self.claim(self.enqueue(account_id, **options))
        assert job is not None
        return job

    def take_over(self, job: Job, worker: str = "another worker") -> Job:
        """Let the worker of a running job die, and claim the job again."""
        self.update(job.id, "worker = 'dead worker'")
        with self.database.connection() as connection:
            connection.execute(GIVE_BACK_OF_WORKER, {"workers": ["dead worker"]})
        self.update(job.id, "state = 'queued', run_at = now()")
        taken = self.claim(job.id, "another message", worker)
        assert taken is not None
        return taken

    def publish(self, windows: Mapping[str, int] = WINDOWS) -> list[str]:
        """Publish the due jobs of all lanes once, like the sweeper's relay. Returns their ids."""
        published: list[str] = []
        for shard in range(SHARDS):
            with self.database.transaction() as connection:
                due = lock_due_jobs_of_shard(connection, windows, shard, {})
                mark_published(connection, due)
            published += [job.id for job in due]
        return published

    def job(self, job_id: str) -> Job:
        """Read the job's row."""
        with self.database.connection() as connection:
            row = connection.execute(f"SELECT {COLUMNS} FROM jobs WHERE id = %s", (job_id,)).fetchone()
        assert row is not None
        return Job(**row)

    def update(self, job_id: str, assignments: str) -> None:
        """Change columns, for example to let time pass: `run_at = now() - interval '1 second'`."""
        with self.database.connection() as connection:
            connection.execute(f"UPDATE jobs SET {assignments} WHERE id = %s", (job_id,))


@pytest.fixture
def job_store(database: Database, kinds: dict[str, JobKind]) -> JobStore:
    """The jobs of the session's database. Tests use accounts of their own."""
    return JobStore(database)


@pytest.fixture(scope="module")
def own_database(postgres: Postgres, pooler: PgBouncer | None) -> Iterator[Database]:
    """A database of the module."""
    with new_database(postgres, durable=False, pgbouncer=pooler) as database:
        yield database


@pytest.fixture
def empty_job_store(own_database: Database, kinds: dict[str, JobKind]) -> JobStore:
    """The jobs of the module's database, emptied before each test."""
    with own_database.transaction() as connection:
        connection.execute("DELETE FROM accounts WHERE id <> %s", (PLATFORM_ACCOUNT,))
        connection.execute("DELETE FROM jobs")
        connection.execute("DELETE FROM ended_jobs")
        connection.execute("DELETE FROM schedules")
        connection.execute("DELETE FROM workers")
    return JobStore(own_database)
