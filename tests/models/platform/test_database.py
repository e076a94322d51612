"""Run batches that fail, stall or commit."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest

from bench.harness.waiting import wait_until
from models.platform.database import terminate_stalled_batches
from models.platform.errors import Unavailable
from models.platform.ids import new_id

MEBIBYTE = 1_048_576

INSERT = "INSERT INTO accounts (id, name) VALUES (%s, 'a batch')"
COUNT = "SELECT count(*) AS count FROM accounts WHERE id = %s"
STATE = "SELECT state, wait_event FROM pg_stat_activity WHERE pid = %s"


@pytest.fixture
def account_id():
    return new_id("acct")


@pytest.fixture
def trips(monkeypatch):
    """Record the round trips of psycopg's pipelines."""
    waited = []
    wait = psycopg.Connection.wait

    def counted(connection, generator, *rest, **options):
        waited.append(generator.__qualname__)
        return wait(connection, generator, *rest, **options)

    monkeypatch.setattr(psycopg.Connection, "wait", counted)
    return lambda: [name for name in waited if name in ("BasePipeline._sync_gen", "BasePipeline._exit_gen")]


def count(database, account_id):
    with database.connection() as connection:
        return connection.execute(COUNT, (account_id,)).fetchone()["count"]


@pytest.fixture
def waits(monkeypatch):
    """Record the operations of psycopg that wait for a socket, once for each wait."""
    waited = []
    wait = psycopg.Connection.wait

    def steps(generator):
        ready = None
        while True:
            try:
                awaited = generator.send(ready)
            except StopIteration as end:
                return end.value
            waited.append(generator.__qualname__)
            ready = yield awaited

    monkeypatch.setattr(
        psycopg.Connection, "wait", lambda connection, generator, *rest: wait(connection, steps(generator), *rest)
    )
    return waited


def test_a_batch_with_begin_and_commit_is_one_round_trip(job_store, account_id, trips):
    with job_store.database.batch() as connection:
        connection.execute(INSERT, (account_id,))

    assert trips() == ["BasePipeline._exit_gen"]
    assert count(job_store.database, account_id) == 1


def test_the_statements_of_a_batch_are_sent_together(job_store, account_id, waits):
    with job_store.database.batch() as connection:
        connection.execute(INSERT, (account_id,))
        connection.execute(INSERT, (new_id("acct"),))
        assert not waits

    assert waits
    assert count(job_store.database, account_id) == 1


def test_the_connection_that_was_returned_last_is_used_first(job_store):
    with job_store.database.connection(), job_store.database.connection() as last:
        pass  # the inner one is returned first
    with job_store.database.connection() as first:
        assert first is not last
    with job_store.database.connection() as again:
        assert again is first


def insert(database, *account_ids, then=lambda connection: None):
    """Insert accounts in one batch, then call `then`."""
    with database.batch() as connection:
        for account_id in account_ids:
            connection.execute(INSERT, (account_id,))
        then(connection)


def pool_records(records):
    """Return the pool's log records about connections that were returned in the middle of a transaction."""
    return [record for record in records if record.name.startswith("psycopg.pool")]


def test_an_error_rolls_back_the_whole_batch(job_store, account_id, caplog):
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(job_store.database, account_id, account_id, new_id("acct"))

    assert count(job_store.database, account_id) == 0
    assert not pool_records(caplog.records)


def test_an_exception_in_the_block_rolls_back_the_batch(job_store, account_id, caplog):
    def leave(connection):
        connection.sync()
        raise KeyError

    with pytest.raises(KeyError):
        insert(job_store.database, account_id, then=leave)

    assert count(job_store.database, account_id) == 0
    assert not pool_records(caplog.records)


@pytest.mark.parametrize("way", ["batch", "transaction"])
def test_a_failed_statement_whose_error_was_suppressed_raises_at_the_end(job_store, account_id, way):
    """Postgres answers COMMIT with ROLLBACK, which is not an error."""

    def suppress_error():
        with getattr(job_store.database, way)() as connection:
            connection.execute(INSERT, (account_id,))
            with suppress(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
                connection.sync()

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        suppress_error()

    assert count(job_store.database, account_id) == 0


def test_a_synced_batch_is_an_idle_transaction_that_is_not_committed(job_store, account_id):
    with job_store.database.batch() as connection:
        connection.execute(INSERT, (account_id,))
        connection.sync()

        with job_store.database.connection() as other:
            pid = connection.info.backend_pid
            wait_until(lambda: other.execute(STATE, (pid,)).fetchone()["state"] == "idle in transaction")
        assert count(job_store.database, account_id) == 0

    assert count(job_store.database, account_id) == 1


def test_a_stalled_batch_is_rolled_back_also_before_a_sync(job_store, account_id):
    """Until a sync Postgres considers it active and keeps its locks."""

    def freeze(connection):
        connection.execute("SELECT 1 AS one").fetchone()
        with job_store.database.connection() as other:
            pid = connection.info.backend_pid
            wait_until(lambda: other.execute(STATE, (pid,)).fetchone()["wait_event"] == "ClientRead")
            assert other.execute(STATE, (pid,)).fetchone()["state"] == "active"
            assert terminate_stalled_batches(other) == 0
            assert terminate_stalled_batches(other, seconds=0) == 1

    with pytest.raises(Unavailable):
        insert(job_store.database, account_id, then=freeze)

    assert count(job_store.database, account_id) == 0


def test_a_connection_lost_in_a_batch_raises_unavailable(job_store, account_id):
    def lose(connection):
        connection.sync()
        with job_store.database.connection() as other:
            other.execute("SELECT pg_terminate_backend(%s, 30000)", (connection.info.backend_pid,))

    with pytest.raises(Unavailable):
        insert(job_store.database, account_id, then=lose)

    assert count(job_store.database, account_id) == 0


def lose_a_connection(database):
    with database.connection() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_all_connections_are_replaced_once_one_is_lost(job_store):
    # Given two connections, of which one is free
    database = job_store.database
    with database.connection() as first, database.connection() as second:
        pass
    # When the other one is lost
    with pytest.raises(Unavailable):
        lose_a_connection(database)
    # Then the free one is closed without a round trip, which to a host that is cut off would take its time-out
    assert first.closed
    assert second.closed
    assert count(database, "none") == 0


def lose_two_connections(database):
    with database.connection() as first:
        with suppress(Unavailable), database.connection() as second:
            second.execute("SELECT pg_terminate_backend(%s, 30000)", (first.info.backend_pid,))
            second.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        first.execute("SELECT 1")


def test_connections_that_are_lost_together_are_replaced_once(job_store, monkeypatch):
    # Given a pool that counts how often its connections are replaced
    database, drained = job_store.database, []
    drain = database._pool.drain
    monkeypatch.setattr(database._pool, "drain", lambda: drained.append(drain()))
    # When two connections that are in use are lost
    with pytest.raises(Unavailable):
        lose_two_connections(database)
    # Then those that replace them are not replaced again
    assert len(drained) == 1
    assert count(database, "none") == 0


def read_length(connection):
    return connection.execute("SELECT length(%s) AS length", ("x" * 16 * MEBIBYTE,))


@pytest.mark.parametrize("wait", ["sync", "fetch", "nested transaction", "end"])
def test_a_batch_sends_all_of_a_statement_that_is_larger_than_the_socket_takes(job_store, wait):
    def run():
        with job_store.database.batch() as connection:
            cursor = read_length(connection)
            if wait == "sync":
                connection.sync()
            elif wait == "nested transaction":
                with connection.transaction():
                    read_length(connection)
            elif wait == "fetch":
                cursor.fetchone()
        return cursor.fetchone() if wait != "fetch" else {"length": 16 * MEBIBYTE}

    with ThreadPoolExecutor() as threads:
        future = threads.submit(run)
        try:
            assert future.result(timeout=10) == {"length": 16 * MEBIBYTE}
        finally:
            if not future.done():  # so that the thread ends
                with job_store.database.connection() as other:
                    terminate_stalled_batches(other, seconds=0)
