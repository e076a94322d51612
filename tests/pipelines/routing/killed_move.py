"""`python -m tests.pipelines.routing.killed_move REQUEST`: carry out a move, and kill -9 this process at a step of it.

The steps are the statements and commits of this process, in order; it is killed before the one with that number.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from decimal import Decimal
from typing import Any

import orjson
import psycopg

from models.jobs import attempts
from models.jobs.jobs import COLUMNS, Job, NewJob, enqueue
from models.platform.database import Database, fetch_one
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from models.serving import breakers
from models.serving.moves import Candidate, Target
from models.serving.served_models import ModelDescription
from models.serving.state import ServingCache
from pipelines.routing.enqueue import SpillPlan
from pipelines.routing.returned_turns import returned
from pipelines.routing.router import Router

UPSTREAM = Upstream("groq", "https://api.groq.test/v1", ("llama",), price_input=Decimal(1), price_output=Decimal(1))

#: Tokens that the endpoint has read and generated before it failed.
SPENT = {"input_tokens": 3, "output_tokens": 2}


def kill_before(number: int) -> None:
    """Kill this process before its statement or commit with this number, counted from 1."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            os.kill(os.getpid(), signal.SIGKILL)

    execute, command = psycopg.Cursor.execute, psycopg.Connection._exec_command

    def counted_execute(*arguments: Any, **options: Any) -> Any:
        step()
        return execute(*arguments, **options)

    def counted_command(*arguments: Any, **options: Any) -> Generator[Any, Any, None]:
        step()
        yield from command(*arguments, **options)

    psycopg.Cursor.execute = counted_execute  # type: ignore[method-assign, assignment]
    psycopg.Connection._exec_command = counted_command  # type: ignore[method-assign]


def route(database: Database, job_id: str) -> None:
    """Let the router make a pass."""
    settings = Settings.model_validate({"upstreams": (UPSTREAM,), "spill_to": "groq", "spill_after": 1.0})
    Router(settings, database, ServingCache(database, lambda: ModelDescription("small"))).run_pass()


def return_after_failure(database: Database, job_id: str) -> None:
    """Give the job of a running attempt back to its home, as after a failure of the endpoint, and count the failure."""
    with database.connection() as connection:
        breakers.record_failure(connection, "groq", job_id, "connection")
        row = fetch_one(connection, f"SELECT {COLUMNS} FROM jobs WHERE id = %(id)s", {"id": job_id})
    assert row is not None
    job = Job(**row)
    with database.transaction() as connection:
        attempts.move(connection, job, returned(job, "endpoint_failed", "it failed", **SPENT))


def create_away(database: Database, job_id: str) -> None:
    """Create a turn that goes to the endpoint at once, for the account of an earlier one."""
    with database.connection() as connection:
        row = fetch_one(connection, "SELECT id FROM accounts ORDER BY created_at DESC LIMIT 1")
    assert row is not None
    job = NewJob("turn.run", row["id"], {"response_id": "resp"}, id=job_id)
    plan = SpillPlan("inference", Target("groq", "llama"), Candidate(job_id, Decimal("0.5")), "queue_full", 1)
    with database.batch() as connection:
        enqueue(connection, job)
        plan.carry_out(connection)


OPERATIONS: Mapping[str, Callable[[Database, str], None]] = {
    "creation at the endpoint": create_away,
    "spill by the router": route,
    "spill of a begun turn": route,
    "return by the breaker": route,
    "return on failure": return_after_failure,
}


def main() -> None:
    """Carry out the move that the argument names."""
    request = orjson.loads(sys.argv[1])
    with closing(Database(request["dsn"], size=2, name="killed")) as database:
        with database.connection() as connection:
            fetch_one(connection, "SELECT 1 AS connected")
        kill_before(request["step"])
        OPERATIONS[request["operation"]](database, request["job"])


if __name__ == "__main__":
    main()
