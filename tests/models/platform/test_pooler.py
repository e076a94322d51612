"""Statements, transactions and batches through PgBouncer in transaction mode, with two connections of the server."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import LockNotAvailable

from bench.harness.waiting import wait_until
from models.platform import pooler
from models.platform.database import LIMITS, Database, terminate_stalled_batches
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from models.platform.settings import Settings
from tests.databases import new_database

INSERT = "INSERT INTO accounts (id, name) VALUES (%s, 'a test')"
COUNT = "SELECT count(*) AS count FROM accounts WHERE id = %s"


@pytest.fixture
def settings(pgbouncer, postgres):
    """Settings with a database of the test's own."""
    with new_database(postgres) as database:
        name = conninfo_to_dict(database.dsn)["dbname"]
        yield Settings(database_url=database.dsn, database_pooler_url=pgbouncer.url(name))


@pytest.fixture
def database(settings):
    """A database with more connections to the pooler than the pooler has to Postgres."""
    pooler.store_limits(settings)
    reconnect(settings)
    database = Database.open(settings, size=8, name="a test")
    yield database
    database.close()


def reconnect(settings):
    """Have PgBouncer replace its connections, as an operator does after limits were stored."""
    parameters = conninfo_to_dict(settings.database_pooler_url)
    name = parameters.pop("dbname")
    with psycopg.connect(**parameters, dbname="pgbouncer", autocommit=True, cursor_factory=psycopg.ClientCursor) as it:
        it.execute(f"RECONNECT {name}")


def test_limits_of_a_transaction_are_those_of_a_direct_connection(settings):
    assert pooler.missing_limits(settings.database_pooler_url) == list(LIMITS)

    pooler.store_limits(settings)
    reconnect(settings)

    wait_until(lambda: pooler.missing_limits(settings.database_pooler_url) == [])


def test_limits_can_be_stored_by_several_processes_at_once(settings):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pooler.store_limits(settings), range(16)))


def test_nothing_is_stored_without_a_pooler(postgres):
    pooler.store_limits(Settings(database_url="postgresql://127.0.0.1:1/nowhere"))


def test_an_unreachable_pooler_is_named():
    with pytest.raises(Unavailable, match="SANGHA_DATABASE_POOLER_URL"):
        pooler.store_limits(Settings(database_pooler_url="postgresql://127.0.0.1:1/nowhere"))


def test_concurrent_statements_transactions_and_batches_share_few_connections(database):
    """A prepared statement would be unknown to another connection of the server, or already exist there."""
    account_ids = [new_id("acct") for _ in range(60)]

    def use(number):
        account_id = account_ids[number]
        with (database.batch if number % 2 else database.transaction)() as connection:
            connection.execute(INSERT, (account_id,))
            assert connection.execute(COUNT, (account_id,)).fetchone()["count"] == 1
        with database.connection() as connection:
            return connection.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]

    with ThreadPoolExecutor(8) as threads:
        pids = set(threads.map(use, range(60)))

    assert len(pids) == 2
    with database.connection() as connection:
        rows = connection.execute("SELECT count(*) AS count FROM accounts WHERE id = ANY(%s)", (account_ids,))
        assert rows.fetchone()["count"] == 60


def test_an_error_rolls_back_a_batch(database):
    account_id = new_id("acct")

    def insert_twice():
        with database.batch() as connection:
            connection.execute(INSERT, (account_id,))
            connection.execute(INSERT, (account_id,))

    with pytest.raises(psycopg.errors.UniqueViolation):
        insert_twice()

    with database.connection() as connection:
        assert connection.execute(COUNT, (account_id,)).fetchone()["count"] == 0


def test_settings_of_a_transaction_end_with_it(database):
    def use(_):
        with database.transaction() as connection:
            connection.execute("SET LOCAL lock_timeout = '123ms'")
        with database.connection() as connection:
            return connection.execute("SELECT current_setting('lock_timeout') AS limit").fetchone()["limit"]

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(use, range(20))) == {LIMITS["lock_timeout"]}


@pytest.mark.parametrize("synced", [False, True])
def test_a_batch_of_a_frozen_process_is_rolled_back(settings, monkeypatch, synced):
    """Before a sync by the scheduler, after it by Postgres."""
    monkeypatch.setitem(LIMITS, "idle_in_transaction_session_timeout", "500ms")
    pooler.store_limits(settings)
    reconnect(settings)
    database, account_id = Database.open(settings, size=2, name="a frozen process"), new_id("acct")

    def freeze():
        with database.batch() as connection, database.connection() as other:
            connection.execute(INSERT, (account_id,))
            if synced:
                connection.sync()
                idle = "SELECT FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()"
                wait_until(lambda: other.execute(idle).fetchone() is not None)
                wait_until(lambda: other.execute(idle).fetchone() is None)
            else:
                connection.pgconn.flush()
                wait_until(lambda: terminate_stalled_batches(other, seconds=0) == 1)

    with pytest.raises(Unavailable):
        freeze()

    with database.connection() as connection:
        assert connection.execute(COUNT, (account_id,)).fetchone()["count"] == 0
    database.close()


def test_a_lost_connection_of_the_pooler_is_unavailable(database):
    def lose():
        with database.transaction() as connection, database.connection() as other:
            pid = connection.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]
            other.execute("SELECT pg_terminate_backend(%s, 30000)", (pid,))
            connection.execute("SELECT 1")

    with pytest.raises(Unavailable):
        lose()

    with database.connection() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone()["one"] == 1


def test_a_lock_that_is_not_granted_in_time_is_a_failure(database):
    account_id = new_id("acct")
    with database.connection() as connection:
        connection.execute(INSERT, (account_id,))
    lock = "SELECT FROM accounts WHERE id = %s FOR UPDATE"

    def wait_for_lock():
        with database.transaction() as connection:
            connection.execute("SET LOCAL lock_timeout = '10ms'")
            connection.execute(lock, (account_id,))

    with database.transaction() as holder:
        holder.execute(lock, (account_id,))
        with pytest.raises(LockNotAvailable):
            wait_for_lock()


#: Tests of the job protocol, but for those that look at the waits of sessions, which a pooler hides.
PROTOCOL = ("attempts", "effects", "ended_jobs", "jobs", "leases", "outbox", "protocol_stateful", "workers")


@pytest.mark.timeout(900)  # takes minutes on a busy machine
def test_the_job_protocol_works_through_the_pooler():
    tests = Path(__file__).parents[1] / "jobs"
    command = [sys.executable, "-m", "pytest", "--pooler", "-q", "-x", "-p", "no:cacheprovider"]

    done = subprocess.run(
        [*command, *(str(tests / f"test_{name}.py") for name in PROTOCOL)],
        cwd=tests.parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
