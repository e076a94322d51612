"""A build that is cut off ends with the reason, so that the job counts it."""

import threading

import pytest
from psycopg.errors import QueryCanceled

from models.jobs.jobs import NewJob
from models.memory import spaces, vector_indexes
from models.platform.errors import Released, TimeLimitExceeded
from models.platform.ids import new_id
from pipelines.memory import index_space


@pytest.fixture
def attempt(database, account, begin, monkeypatch):
    """An attempt to build the index of a space, whose build takes a minute unless it is cancelled."""
    monkeypatch.setattr(vector_indexes, "build", lambda connection, space_id: connection.execute("SELECT pg_sleep(60)"))
    monkeypatch.setattr(index_space, "CHECK_INTERVAL", 0.01)
    user_id = new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        space = spaces.find_or_create(connection, account, user_id)
    return begin(NewJob("memory.index", "platform", {"space_id": space.id}))


def cancel_build(database):
    """Cancel the build as an operator does, once it runs."""
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(6%'"
    with database.connection() as connection:
        while connection.execute(cancel).fetchone() is None:
            pass


def test_a_build_beyond_its_time_limit_ends_with_the_time_limit(attempt):
    attempt.deadline = 0

    with pytest.raises(TimeLimitExceeded):
        index_space.run(attempt, most=-1)


def test_a_build_is_cut_off_when_the_worker_stops(attempt):
    attempt.stop("released")

    with pytest.raises(Released):
        index_space.run(attempt, most=-1)


def test_a_build_that_somebody_else_cancelled_is_a_failure(attempt, database):
    operator = threading.Thread(target=cancel_build, args=(database,))
    operator.start()

    with pytest.raises(QueryCanceled):
        index_space.run(attempt, most=-1)

    operator.join()
