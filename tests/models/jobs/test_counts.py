"""Counts for operators are right, and read no ended jobs."""

from collections.abc import Iterator

import pytest

from models.jobs import counts
from models.jobs.pool_states import list_pool_states
from models.platform.database import Connection, Database
from ops.embedded_servers import Postgres
from tests.databases import new_database

# 20,000 ended jobs, 200 of each unfinished state, and 1,200 scheduled ones.
FILL = """
INSERT INTO jobs (id, account_id, kind, queue, state, run_at)
SELECT 'job_' || n, 'platform', 'maintenance.prune', CASE WHEN n % 2 = 0 THEN 'maintenance' ELSE 'memory' END,
       CASE WHEN n > 2000 THEN 'completed' WHEN n > 800 THEN 'scheduled'
            ELSE (ARRAY['queued', 'running', 'waiting', 'dead'])[1 + n % 4] END,
       now() + CASE WHEN n BETWEEN 801 AND 2000 THEN 1 ELSE -1 END * interval '1 minute'
FROM generate_series(1, 22000) AS n
"""

STATEMENTS = {name: getattr(counts, name) for name in ("UNFINISHED", "SCHEDULED", "SCHEDULED_BY_QUEUE", "OLDEST_DUE")}


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[Database]:
    """A database with mostly ended jobs."""
    with new_database(postgres) as database:
        with database.connection() as connection:
            connection.execute(FILL)
            connection.execute("ANALYZE jobs")
        yield database


@pytest.fixture
def connection(filled: Database) -> Iterator[Connection]:
    with filled.connection() as connection:
        yield connection


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_count_reads_no_ended_jobs(connection: Connection, statement: str) -> None:
    # When a count is planned on an analysed table
    rows = connection.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}").fetchall()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    # Then it reads a partial index
    assert "Seq Scan on jobs" not in plan
    assert "using jobs_" in plan or "on jobs_" in plan
    # And rejects at most the unfinished jobs of other states, which are fewer than the ended ones
    removed = [int(line.rpartition(":")[2]) for line in plan.splitlines() if "Rows Removed" in line]
    assert sum(removed) <= 2000


def test_unfinished_jobs_are_counted_by_queue_kind_and_state(connection: Connection) -> None:
    assert counts.count_unfinished(connection) == {
        ("maintenance", "maintenance.prune", "queued"): 200,
        ("maintenance", "maintenance.prune", "waiting"): 200,
        ("memory", "maintenance.prune", "running"): 200,
        ("memory", "maintenance.prune", "dead"): 200,
    }


def test_few_scheduled_jobs_are_counted_exactly(connection: Connection) -> None:
    assert counts.estimate_scheduled(connection) == 1200
    assert counts.count_scheduled(connection) == {"maintenance": 600, "memory": 600}


@pytest.mark.parametrize("analysed", [True, False])
def test_many_scheduled_jobs_are_estimated_by_the_size_of_their_index(empty_database: Database, analysed: bool) -> None:
    # Given more scheduled jobs than are counted
    with empty_database.connection() as connection:
        connection.execute(
            "INSERT INTO jobs (id, account_id, kind, queue, state, run_at) SELECT 'job_' || n, 'platform', "
            "'meditation.run', 'memory', 'scheduled', now() + n * interval '1 second' FROM generate_series(1, 30000) n"
        )
        if analysed:
            connection.execute("ANALYZE jobs")
        # Then their number is estimated, whether or not there are statistics
        estimate = counts.estimate_scheduled(connection)
        states = {state.pool: state for state in list_pool_states(connection)}
    assert 20_000 <= estimate <= 45_000
    # And the pool's state counts the next ones and says that there are more
    assert (states["memory"].scheduled, states["memory"].more_scheduled) == (counts.MAX_COUNTED, True)


def test_pool_state_has_the_age_of_its_longest_waiting_job(connection: Connection) -> None:
    states = {state.pool: state for state in list_pool_states(connection)}
    assert 60 <= states["maintenance"].oldest < 600
    assert states["inference"].oldest == 0
    assert (states["memory"].scheduled, states["memory"].more_scheduled) == (600, False)
