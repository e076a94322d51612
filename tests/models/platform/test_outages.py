"""Only outages are raised as Unavailable; the failure of a statement keeps its error."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from psycopg.errors import DeadlockDetected, LockNotAvailable, PipelineAborted, ProgramLimitExceeded, QueryCanceled

from bench.harness.waiting import wait_until
from models.platform.database import Database
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from tests.databases import new_database

RAISE = "DO $$ BEGIN RAISE EXCEPTION 'as requested' USING ERRCODE = '{state}'; END $$"


@pytest.fixture
def accounts(database):
    """The ids of two new accounts."""
    ids = [new_id("acct"), new_id("acct")]
    with database.connection() as connection:
        for account_id in ids:
            connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
    return ids


LOCK = "SELECT FROM accounts WHERE id = '{}' FOR UPDATE"


def lock(connection, account_id):
    connection.execute(LOCK.format(account_id))


def run(database, *statements):
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("state", ["25P03", "40001", "40P01", "53100", "53300", "57P01", "57P02", "57P03", "57P05"])
def test_an_error_that_passes_by_itself_is_unavailable(database, state):
    with pytest.raises(Unavailable), database.transaction() as connection:
        connection.execute(RAISE.format(state=state))


@pytest.mark.parametrize(
    "state",
    ["08P01", "22012", "25006", "25P04", "53000", "53200", "53400", "54001", "55006", "57014", "57P04", "58030"],
)
@pytest.mark.parametrize("way", ["connection", "transaction", "batch"])
def test_the_failure_of_a_statement_keeps_its_error(database, state, way):
    with pytest.raises(psycopg.Error) as raised, getattr(database, way)() as connection:
        connection.execute(RAISE.format(state=state))

    assert raised.value.sqlstate == state


def test_a_cancelled_statement_is_a_failure(database):
    with pytest.raises(QueryCanceled):
        run(database, "SET LOCAL statement_timeout = '10ms'", "SELECT pg_sleep(60)")


def test_a_lock_that_is_not_granted_in_time_is_a_failure(database, accounts):
    with database.transaction() as holder:
        lock(holder, accounts[0])

        with pytest.raises(LockNotAvailable):
            run(database, "SET LOCAL lock_timeout = '10ms'", LOCK.format(accounts[0]))


def test_a_statement_beyond_a_limit_of_postgres_is_a_failure(database):
    with pytest.raises(ProgramLimitExceeded), database.connection() as connection:
        connection.execute("SELECT lpad('', 1000000000, 'x') || lpad('', 1000000000, 'x')")


def test_a_statement_after_a_suppressed_error_in_a_batch_is_a_failure(database):
    def ignore_an_error():
        with database.batch() as connection:
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0").fetchone()
            connection.execute("SELECT 1").fetchone()

    with pytest.raises(PipelineAborted):
        ignore_an_error()


def test_the_loser_of_a_deadlock_is_asked_to_retry(database, accounts):
    """The winner commits, so a repetition succeeds."""
    one, two = accounts

    def collide():
        with database.transaction() as winner, ThreadPoolExecutor() as threads, database.transaction() as loser:
            winner.execute("SET LOCAL deadlock_timeout = '60s'")
            loser.execute("SET LOCAL deadlock_timeout = '10ms'")
            lock(winner, one)
            lock(loser, two)
            threads.submit(lock, winner, two)
            lock(loser, one)

    with pytest.raises(Unavailable, match="concurrent") as raised:
        collide()

    assert isinstance(raised.value.__cause__, DeadlockDetected)


def test_a_transaction_that_postgres_ended_for_being_idle_is_unavailable(database):
    def stay_idle():
        with database.transaction() as connection, database.connection() as other:
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
            alive = "SELECT FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: other.execute(alive, (connection.info.backend_pid,)).fetchone() is None)
            connection.execute("SELECT 1")

    with pytest.raises(Unavailable):
        stay_idle()


def test_the_pool_recovers_after_all_connections_were_ended(postgres):
    with new_database(postgres) as server, closing(Database(server.dsn, size=2)) as database:
        with database.connection() as one, database.connection() as two:
            pids = [one.info.backend_pid, two.info.backend_pid]
        with psycopg.connect(postgres.dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid, 30000) FROM unnest(%s) AS pid", (pids,))

        with pytest.raises(Unavailable), database.connection() as connection:
            connection.execute("SELECT 1")

        for _ in range(2):
            with database.connection() as connection:
                assert connection.execute("SELECT 1 AS one").fetchone()["one"] == 1
