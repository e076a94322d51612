"""Given a turn that moves between two queues, when its mover is killed at any step, then the turn is answered once."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import count

import orjson
import pytest

from bench.machine import ROOT
from models.jobs import workers
from models.jobs.attempts import Ending, claim, end
from models.jobs.jobs import Job
from models.jobs.leases import GIVE_BACK_OF_WORKER
from models.platform.database import Database
from models.platform.ids import new_id
from models.serving import breakers, moves
from models.serving.moves import Candidate, Target
from ops.embedded_servers import Postgres
from tests.databases import new_database
from tests.models.conftest import JobStore
from tests.pipelines.routing.killed_move import OPERATIONS

HOME, AWAY = "inference", "upstream.groq"

#: No move has more statements and commits.
MOST_STEPS = 60

#: The operation that moves a turn in the transaction that inserts it.
CREATION = "creation at the endpoint"

RESERVED = "SELECT coalesce(sum(reserved_cost), 0) AS reserved FROM spill_days"
AGE = "UPDATE jobs SET run_at = run_at - interval '1 hour', created_at = created_at - interval '1 hour' WHERE id = %s"


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """A database of its own, since a day has one budget."""
    with new_database(postgres) as database:
        yield database


class MovingTurn:
    """A turn that waits behind a running one, and the messages about it that a broker may still have."""

    def __init__(self, database: Database, operation: str) -> None:
        self.store = JobStore(database)
        self.database = database
        self.account = self.store.create_account()
        self.messages: list[tuple[str, str]] = []
        self._renew_workers()
        busy = self._new_turn()
        self.store.update(busy, "state = 'running', published_at = now()")
        self.id = self._new_turn()
        self.message()
        if operation == "spill of a begun turn":
            self._lose_the_local_worker()
        if operation.startswith("return"):
            self._spill()
            self.message()
        if operation == "return on failure":
            assert self.claim(AWAY) is not None
        if operation == "return by the breaker":
            self._open_breaker()

    @property
    def row(self) -> Job:
        return self.store.job(self.id)

    def message(self) -> None:
        """Publish the turn, if it is due, as the sweeper's relay does."""
        if self.id in self.store.publish({HOME: 8, AWAY: 8}):
            self.messages.append((f"message-{len(self.messages)}", self.row.queue))

    def claim(self, queue: str) -> Job | None:
        with self.database.connection() as connection:
            return claim(connection, self.id, message_id=f"of {queue}", worker=f"worker of {queue}", queue=queue)

    def recover(self) -> None:
        """Let the worker of a running attempt die, so that the turn is given back and published again."""
        with self.database.connection() as connection:
            connection.execute(GIVE_BACK_OF_WORKER, {"workers": [f"worker of {queue}" for queue in (HOME, AWAY)]})
        self.message()

    def deliver_all(self) -> list[Job]:
        """Deliver every message, the oldest first and each twice; returns the attempts that began."""
        claims = [self.claim(queue) for _, queue in self.messages * 2]
        return [job for job in claims if job is not None]

    def end(self, job: Job) -> None:
        with self.database.transaction() as connection:
            end(connection, job, Ending("completed", ()), [])

    def reserved(self) -> Decimal:
        with self.database.connection() as connection:
            row = connection.execute(RESERVED).fetchone()
        assert row is not None
        return Decimal(row["reserved"])

    def close(self) -> None:
        """Remove what the next turn should not find."""
        with self.database.connection() as connection:
            for table in ("jobs", "spill_days", "circuit_breakers"):
                connection.execute(f"DELETE FROM {table}")

    def _renew_workers(self) -> None:
        """Register a worker with one thread for each queue, or renew its lease."""
        with self.database.connection() as connection:
            for queue in (HOME, AWAY):
                workers.register(connection, queue, host="h", pid=1, pools=["p"], threads={queue: 1},
                                 mean_seconds={queue: 30.0})  # fmt: skip

    def _new_turn(self) -> str:
        job_id = self.store.enqueue(self.account, kind="turn.run", arguments={"response_id": "resp"})
        with self.database.connection() as connection:
            connection.execute(AGE, (job_id,))
        return job_id

    def _lose_the_local_worker(self) -> None:
        """Let the worker of the local model begin the turn and die."""
        assert self.claim(HOME) is not None
        self.recover()
        with self.database.connection() as connection:
            connection.execute("DELETE FROM workers WHERE name = %s", (HOME,))
            connection.execute(AGE, (self.id,))

    def _spill(self) -> None:
        target = Target("groq", "llama", price_input=Decimal(1), price_output=Decimal(1))
        with self.database.transaction() as connection:
            candidates = [Candidate(self.id, Decimal("0.5"))]
            assert moves.spill(connection, HOME, target, candidates, "queue_full", unfinished=1).job_ids

    def _open_breaker(self) -> None:
        with self.database.connection() as connection:
            for _ in range(breakers.MOST_FAILURES):
                breakers.record_failure(connection, "groq", "another job", "connection")


def killed_at(database: Database, operation: str, job_id: str, step: int) -> bool:
    """Carry out a move in a process that is killed at a step; False: the move has fewer steps."""
    request = orjson.dumps({"dsn": database.dsn, "operation": operation, "job": job_id, "step": step}).decode()
    command = [sys.executable, "-m", "tests.pipelines.routing.killed_move", request]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {CREATION}))
def test_a_turn_whose_mover_is_killed_at_any_step_is_answered_once(database: Database, operation: str):
    for step in count(1):
        assert step < MOST_STEPS
        turn = MovingTurn(database, operation)
        before = turn.row.queue

        # When the process that moves it is killed before its statement or commit with this number
        killed = killed_at(database, operation, turn.id, step)

        # Then it is in one queue, and its route and the budget agree with that
        queue, route = turn.row.queue, turn.row.arguments.get("route") or {}
        assert queue in (HOME, AWAY)
        assert bool(route.get("endpoint")) == (queue == AWAY)
        assert turn.reserved() == Decimal(route.get("cost", 0))
        assert killed or queue != before

        # And it is answered once, whatever the order of the messages, of which some are from before the move
        turn.recover()
        answers = turn.deliver_all()
        assert len(answers) == 1
        turn.end(answers[0])
        assert turn.deliver_all() == []
        assert turn.reserved() == 0
        turn.close()
        if not killed:
            break
    assert step > 3


@pytest.mark.timeout(300)
def test_a_turn_that_is_created_at_the_endpoint_is_there_with_its_reservation_or_not_at_all(database: Database):
    for step in count(1):
        assert step < MOST_STEPS
        turn, new = MovingTurn(database, CREATION), new_id("job")

        # When the process that creates a turn is killed before its statement or commit with this number
        killed = killed_at(database, CREATION, new, step)

        # Then the turn is at the endpoint and paid for, or there is none and nothing is reserved
        with database.connection() as connection:
            rows = connection.execute("SELECT queue, arguments FROM jobs WHERE id = %s", (new,)).fetchall()
        assert killed or rows
        assert [row["queue"] for row in rows] == [AWAY] * len(rows)
        assert turn.reserved() == Decimal("0.5") * len(rows)
        turn.close()
        if not killed:
            break
    assert step > 3
