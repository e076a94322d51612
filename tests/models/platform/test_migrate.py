"""Migrate databases, also concurrently."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.migrate import FOLDER, LOCK, migrate, pending_migrations
from tests.databases import bare_database

ALL = sorted(path.name.removesuffix(".sql") for path in FOLDER.glob("*.sql") if "rollback" not in path.name)

#: Some tables and columns that other modules use.
EXPECTED = {
    "accounts": {"id", "name"},
    "jobs": {"id", "account_id", "state", "attempt", "run_at", "published_at", "lease_until", "pending_children"},
    "job_events": {"job_id", "first_sequence", "last_sequence", "tokens", "events"},
    "workers": {"name", "queues", "threads", "seen_at"},
}


@pytest.fixture
def bare(postgres):
    """The DSN of an empty database."""
    with bare_database(postgres) as dsn:
        yield dsn


def test_an_empty_database_gets_every_table_and_a_second_run_does_nothing(bare):
    assert pending_migrations(bare) == ALL
    assert migrate(bare) == ALL
    assert (migrate(bare), pending_migrations(bare)) == ([], [])

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
        applied = list(pool.map(migrate, [bare] * 4))

    assert sorted(applied, key=len) == [[], [], [], ALL]


def test_a_run_waits_while_another_migrates(bare):
    done = threading.Event()
    with psycopg.connect(bare, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        thread = threading.Thread(target=lambda: (migrate(bare), done.set()))
        thread.start()
        waits = (
            "SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        )
        wait_until(lambda: other.execute(waits).fetchone() is not None)
        assert not done.is_set()
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
