"""Migrate databases, also concurrently."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.migrate import FOLDER, LOCK, Migrations, migrate, pending_migrations
from models.platform.migration_files import read_files
from tests.databases import bare_database

ALL = sorted(path.name.removesuffix(".sql") for path in FOLDER.glob("*.sql") if "rollback" not in path.name)

#: Those that a process needs.
EXPAND = [file.name for file in read_files() if file.needs is None]

#: Some tables and columns that other modules use.
EXPECTED = {
    "accounts": {"id", "name"},
    "jobs": {"id", "account_id", "state", "attempt", "run_at", "published_at", "lease_until", "pending_children"},
    "job_events": {"job_id", "first_sequence", "last_sequence", "tokens", "events", "event_tokens"},
    "workers": {"name", "queues", "threads", "seen_at"},
}


@pytest.fixture
def bare(postgres):
    """The DSN of an empty database."""
    with bare_database(postgres) as dsn:
        yield dsn


def test_an_empty_database_gets_every_table_and_a_second_run_does_nothing(bare):
    assert pending_migrations(bare) == EXPAND
    assert sorted(migrate(bare).applied) == ALL
    assert (migrate(bare), pending_migrations(bare)) == (Migrations([], []), [])

    with psycopg.connect(bare) as connection:
        columns: dict[str, set[str]] = {}
        for table, column in connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ):
            columns.setdefault(table, set()).add(column)
        assert connection.execute("SELECT id FROM accounts").fetchall() == [("platform",)]
    for table, expected in EXPECTED.items():
        assert expected <= columns[table]


def test_a_server_without_the_extension_is_a_configuration_error(bare, monkeypatch, tmp_path):
    (tmp_path / "0001.missing.sql").write_text("CREATE EXTENSION no_such_extension;")
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)

    with pytest.raises(ConfigurationError, match=r'^Install pgvector .*"no_such_extension" is not available$'):
        migrate(bare)


def test_another_error_of_a_migration_is_not_taken_for_a_missing_extension(bare, monkeypatch, tmp_path):
    (tmp_path / "0001.unsupported.sql").write_text("CREATE TABLE t (a int); CREATE INDEX i ON t USING hash (a, a);")
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)

    with pytest.raises(psycopg.errors.FeatureNotSupported, match="multicolumn"):
        migrate(bare)


def test_concurrent_runs_apply_each_migration_once(bare):
    with ThreadPoolExecutor(4) as pool:
        applied = [sorted(migrations.applied) for migrations in pool.map(migrate, [bare] * 4)]

    assert sorted(applied, key=len) == [[], [], [], ALL]


def test_a_run_waits_while_another_migrates(bare, caplog):
    # Given a database that another process migrates
    caplog.set_level(logging.INFO)
    done = threading.Event()
    with psycopg.connect(bare, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        # When a second run begins
        thread = threading.Thread(target=lambda: (migrate(bare), done.set()))
        thread.start()
        wait_until(lambda: "Waiting for another migration to end" in caplog.messages)
        # Then it waits for the first, without a snapshot that would hold up the build of an index
        assert not done.is_set()
        snapshots = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL"
        wait_until(lambda: len(other.execute(snapshots).fetchall()) == 1)
    thread.join(20)

    assert done.is_set()
    assert pending_migrations(bare) == []


def test_an_unreachable_server_is_reported_in_one_line(tmp_path):
    with pytest.raises(Unavailable) as caught:
        migrate(f"postgresql://postgres@/sangha?host={tmp_path}")

    assert "\n" not in str(caught.value)


def test_constraints_reject_impossible_rows(empty_database):
    job = "INSERT INTO jobs (id, account_id, kind, queue, state, serial_key, pending_children) VALUES "
    with empty_database.connection() as connection:
        connection.execute(job + "('a', 'platform', 'k', 'q', 'running', 's', 0)")
        for values, error in [
            ("('b', 'platform', 'k', 'q', 'waiting', 's', 1)", psycopg.errors.UniqueViolation),
            ("('b', 'platform', 'k', 'q', 'lost', NULL, 0)", psycopg.errors.CheckViolation),
            ("('b', 'platform', 'k', 'q', 'waiting', NULL, -1)", psycopg.errors.CheckViolation),
            ("('b', 'nobody', 'k', 'q', 'queued', NULL, 0)", psycopg.errors.ForeignKeyViolation),
        ]:
            with pytest.raises(error):
                connection.execute(job + values)


TABLE = "CREATE TABLE parts (id int); INSERT INTO parts VALUES (1);"


def test_a_migration_is_tried_again_while_a_table_is_locked(bare, tmp_path, monkeypatch, caplog):
    # Given a migration of a table that another transaction has locked
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    (tmp_path / "0001.table.sql").write_text(TABLE)
    migrate(bare)
    (tmp_path / "0002.column.sql").write_text("ALTER TABLE parts ADD COLUMN name text;")
    with psycopg.connect(bare) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE parts IN ACCESS SHARE MODE")
        # When the migration runs into the lock, and the transaction ends
        applied = pool.submit(migrate, bare)
        wait_until(lambda: "Trying migration 0002.column again: a table is locked" in caplog.messages)
        other.rollback()
        # Then it is applied
        assert applied.result(20).applied == ["0002.column"]


def test_a_migration_that_ends_a_deadlock_is_tried_again(bare, tmp_path, monkeypatch, caplog):
    """On a busy machine Postgres may look for a deadlock before the migration gives up waiting."""
    # Given a migration that locks two tables, of which a transaction has locked the second
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    monkeypatch.setattr("models.platform.migrate.OPTIONS", "-c deadlock_timeout=200ms")
    (tmp_path / "0001.table.sql").write_text(TABLE + " CREATE TABLE others (id int);")
    migrate(bare)
    (tmp_path / "0002.lock.sql").write_text("LOCK TABLE parts; LOCK TABLE others;")
    with psycopg.connect(bare) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("LOCK TABLE others")
        # When the transaction then wants the first
        applied = pool.submit(migrate, bare)
        wait_until(lambda: waits_for_a_lock(bare))
        other.execute("LOCK TABLE parts")
        other.rollback()
        # Then it gets it, and the migration is applied later
        assert applied.result(20).applied == ["0002.lock"]
    assert "Trying migration 0002.lock again: a table is locked" in caplog.messages


def waits_for_a_lock(dsn):
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'").fetchone()


def test_a_table_that_stays_locked_is_reported(bare, tmp_path, monkeypatch):
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    monkeypatch.setattr("models.platform.migrate.LOCK_RETRIES", 0)
    (tmp_path / "0001.table.sql").write_text(TABLE)
    migrate(bare)
    (tmp_path / "0002.column.sql").write_text("ALTER TABLE parts ADD COLUMN name text;")
    with psycopg.connect(bare) as other:
        other.execute("LOCK TABLE parts IN ACCESS SHARE MODE")
        with pytest.raises(Unavailable, match=r"lock timeout\): run `sangha migrate` again"):
            migrate(bare)


def test_a_migration_that_fails_leaves_nothing(bare, tmp_path, monkeypatch):
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    (tmp_path / "0001.broken.sql").write_text(TABLE + "SELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(bare)

    assert pending_migrations(bare) == ["0001.broken"]
    with psycopg.connect(bare) as connection:
        assert connection.execute("SELECT to_regclass('parts')").fetchone() == (None,)


def test_a_migration_is_undone_when_it_cannot_be_recorded(bare, tmp_path, monkeypatch):
    # Given a migration after which the table of applied migrations rejects rows
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    forbid = "ALTER TABLE _yoyo_migration ADD CONSTRAINT no_record CHECK (migration_id <> '0001.table');"
    (tmp_path / "0001.table.sql").write_text(TABLE + forbid)
    # When it is applied
    with pytest.raises(psycopg.errors.CheckViolation):
        migrate(bare)
    # Then it can be applied again
    (tmp_path / "0001.table.sql").write_text(TABLE)
    assert migrate(bare).applied == ["0001.table"]
