"""Given a batch, when its statements fail, stop or succeed, then all of them count, or none, and few trips are made."""

from contextlib import suppress

import psycopg
import pytest

from bench.harness.waiting import wait_until
from models.platform.database import terminate_stalled_batches
from models.platform.errors import Unavailable
from models.platform.ids import new_id

INSERT = "INSERT INTO accounts (id, name) VALUES (%s, 'a batch')"
COUNT = "SELECT count(*) AS found FROM accounts WHERE id = %s"
STATE = "SELECT state, wait_event FROM pg_stat_activity WHERE pid = %s"


@pytest.fixture
def account_id():
    return new_id("acct")


@pytest.fixture
def trips(monkeypatch):
    """What psycopg waited for."""
    waited = []
    wait = psycopg.Connection.wait

    def counted(connection, generator, *rest, **options):
        waited.append(generator.__qualname__)
        return wait(connection, generator, *rest, **options)

    monkeypatch.setattr(psycopg.Connection, "wait", counted)
    return lambda: [name for name in waited if name in ("BasePipeline._sync_gen", "BasePipeline._exit_gen")]


def found(database, account_id):
    with database.connection() as connection:
        return connection.execute(COUNT, (account_id,)).fetchone()["found"]


def test_a_batch_is_one_trip_begin_and_commit_included(job_store, account_id, trips):
    with job_store.database.batch() as connection:
        connection.execute(INSERT, (account_id,))

    assert trips() == ["BasePipeline._exit_gen"]
    assert found(job_store.database, account_id) == 1


def insert(database, *account_ids, then=lambda connection: None):
    """Insert accounts in one batch, and do one thing more."""
    with database.batch() as connection:
        for account_id in account_ids:
            connection.execute(INSERT, (account_id,))
        then(connection)


def of_the_pool(records):
    """What the pool says of connections that come back to it in the middle of something."""
    return [record for record in records if record.name.startswith("psycopg.pool")]


def test_what_fails_in_a_batch_takes_all_of_it_back(job_store, account_id, caplog):
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(job_store.database, account_id, account_id, new_id("acct"))

    assert found(job_store.database, account_id) == 0
    assert not of_the_pool(caplog.records)


def test_whoever_leaves_a_batch_by_an_error_has_done_nothing(job_store, account_id, caplog):
    def leave(connection):
        connection.sync()
        raise KeyError

    with pytest.raises(KeyError):
        insert(job_store.database, account_id, then=leave)

    assert found(job_store.database, account_id) == 0
    assert not of_the_pool(caplog.records)


@pytest.mark.parametrize("way", ["batch", "transaction"])
def test_what_failed_and_was_let_pass_is_never_taken_for_done(job_store, account_id, way):
    """Postgres answers COMMIT with ROLLBACK then, and calls it a success."""

    def let_pass():
        with getattr(job_store.database, way)() as connection:
            connection.execute(INSERT, (account_id,))
            with suppress(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
                connection.sync()

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        let_pass()

    assert found(job_store.database, account_id) == 0


def test_a_settled_batch_is_idle_to_the_server_and_has_still_to_commit(job_store, account_id):
    with job_store.database.batch() as connection:
        connection.execute(INSERT, (account_id,))
        connection.sync()

        with job_store.database.connection() as other:
            pid = connection.info.backend_pid
            wait_until(lambda: other.execute(STATE, (pid,)).fetchone()["state"] == "idle in transaction")
        assert found(job_store.database, account_id) == 0

    assert found(job_store.database, account_id) == 1


def test_who_is_frozen_in_a_batch_loses_it_before_it_is_settled_too(job_store, account_id):
    """Without a sync Postgres takes it for active, and lets it hold its locks for ever."""

    def freeze(connection):
        with job_store.database.connection() as other:
            pid = connection.info.backend_pid
            wait_until(lambda: other.execute(STATE, (pid,)).fetchone()["wait_event"] == "ClientRead")
            assert other.execute(STATE, (pid,)).fetchone()["state"] == "active"
            assert terminate_stalled_batches(other) == 0
            assert terminate_stalled_batches(other, seconds=0) == 1

    with pytest.raises(Unavailable):
        insert(job_store.database, account_id, then=freeze)

    assert found(job_store.database, account_id) == 0


def test_a_connection_that_is_lost_in_a_batch_is_told_as_such(job_store, account_id):
    def lose(connection):
        connection.sync()
        with job_store.database.connection() as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    with pytest.raises(Unavailable):
        insert(job_store.database, account_id, then=lose)

    assert found(job_store.database, account_id) == 0
