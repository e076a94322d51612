"""Workers, and the passing of time, in the job protocol's stateful test."""

from collections.abc import Collection
from typing import ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from models.jobs import leases, outbox, workers
from models.platform.database import Database
from tests.models.jobs.protocol_model import Model
from tests.models.jobs.protocol_rows import ModelJob, ModelWorker

# An hour away, so that it does not pass between two statements.
LENGTHEN_DELAYS = "UPDATE jobs SET run_at = now() + interval '1 hour' WHERE state = 'scheduled' AND run_at > now()"
LENGTHEN_LEASES = "UPDATE workers SET seen_at = now() + interval '1 hour' WHERE seen_at > now() - interval '1 minute'"


class Clock(RuleBasedStateMachine):
    """Workers live and fall silent, and times pass, in Postgres and in the model."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    @property
    def jobs(self) -> dict[str, ModelJob]:
        return self.model.jobs

    def start_worker(self, threads: int) -> str:
        """Register a worker with some threads per queue. Its lease is long, so that it expires only on request."""
        number = self.model.next_number()
        name = f"worker {number}"
        self.model.workers[name] = ModelWorker(number, {"maintenance": threads, "inference": threads})
        self.renew(name)
        return name

    def renew(self, name: str) -> None:
        worker = self.model.workers[name]
        worker.silent = False
        with self.database.connection() as connection:
            workers.register(connection, name, host="host", pid=worker.pid, pools=[], threads=worker.threads)
            connection.execute("UPDATE workers SET seen_at = now() + interval '1 hour' WHERE name = %s", (name,))

    def fall_silent(self, *names: str) -> None:
        for name in names:
            self.model.worker(name).silent = True
        with self.database.connection() as connection:
            statement = "UPDATE workers SET seen_at = now() - interval '1 hour' WHERE name = ANY(%s)"
            connection.execute(statement, (list(names),))

    def is_lost(self, name: str) -> bool:
        return self.model.worker(name).silent

    def sweep(self, *, unblock: bool = False) -> None:
        """Do what the sweeper does in a pass."""
        with self.database.transaction() as connection:
            assert outbox.promote_due(connection) == self.model.promote()
            assert outbox.unpublish_lost(connection) == self.model.unpublish(lambda job: job.lost)
            self.model.register_unknown()
            assert leases.give_back_of_silent(connection) == len(self.model.give_back(self.is_lost))
            connection.execute(LENGTHEN_DELAYS)
            connection.execute(LENGTHEN_LEASES)
            if unblock:
                outbox.unblock_left(connection)
                self.model.unblock_left()

    def pass_time(self, rows: Collection[ModelJob], column: str) -> None:
        """Let a time of some jobs pass."""
        with self.database.connection() as connection:
            statement = f"UPDATE jobs SET {column} = now() - interval '1 second' WHERE id = ANY(%s)"
            connection.execute(statement, ([row.id for row in rows],))
        for row in rows:
            if column == "run_at":
                row.later = False
            elif column == "wait_until":
                row.wait = "passed"
            else:
                row.deadline = "passed"

    def with_future(self, column: str) -> list[ModelJob]:
        """Return the jobs with a future time in a column."""
        rows = [row for row in self.jobs.values() if row.unfinished]
        if column == "run_at":
            return [row for row in rows if row.later]
        return [row for row in rows if (row.wait if column == "wait_until" else row.deadline) == "future"]

    def delay(self, rows: Collection[ModelJob]) -> None:
        """Lengthen the short delays of jobs of a dead worker."""
        with self.database.connection() as connection:
            statement = "UPDATE jobs SET run_at = now() + interval '1 hour' WHERE id = ANY(%s)"
            connection.execute(statement, ([row.id for row in rows],))

    def age_messages(self, rows: Collection[ModelJob], age: float) -> None:
        for row in rows:
            row.age = age
        with self.database.connection() as connection:
            statement = (
                "UPDATE jobs SET published_at = now() - make_interval(secs => %s) "
                "WHERE id = ANY(%s) AND published_at IS NOT NULL"
            )
            connection.execute(statement, (age, [row.id for row in rows]))
