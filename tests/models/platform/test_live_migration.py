"""Migrate a database while processes of the previous version use it, and after interruptions."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from bench.harness.waiting import wait_until
from models.platform.errors import Unavailable
from models.platform.migrate import FOLDER, migrate, pending_migrations
from ops.embedded_servers import Postgres
from tests.databases import bare_database

#: The last migration of the version before job trees.
PREVIOUS = "0008"

# Jobs of every state; each third one has a serial key, which ten jobs share.
POPULATE = """
INSERT INTO jobs (id, account_id, kind, queue, state, run_at, published_at, serial_key, finished_at)
SELECT 'job_' || to_char(n, 'FM00000000'), 'platform', 'test', 'maintenance', state,
       now() + CASE WHEN n % 2 = 0 THEN interval '1 hour' ELSE interval '-1 minute' END,
       CASE WHEN state <> 'queued' OR n % 7 = 0 THEN now() END,
       CASE WHEN n % 3 = 0 AND state = 'queued' THEN 'serial ' || n / 10 END,
       CASE WHEN state IN ('completed', 'failed', 'cancelled', 'dead') THEN now() END
FROM generate_series(1, %(rows)s) AS n,
     LATERAL (SELECT (ARRAY['queued', 'queued', 'running', 'waiting', 'completed', 'failed', 'cancelled', 'dead'])
                     [n %% 8 + 1] AS state) AS chosen
""".replace("n % ", "n %% ")

INSERT = """
INSERT INTO jobs (id, account_id, kind, queue, run_at, serial_key, reserved_tokens)
VALUES (%(id)s, 'platform', 'test', 'maintenance', now(), %(serial_key)s, 100)
ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING RETURNING run_at <= now() AS due
"""
PUBLISH = "UPDATE jobs SET published_at = now() WHERE id = %(id)s AND state = 'queued' AND published_at IS NULL"
CLAIM = """
UPDATE jobs SET state = 'running', attempt = attempt + 1, message_id = 'm', worker = 'w',
                lease_until = now() + interval '20 seconds', started_at = coalesce(started_at, now())
WHERE id = %(id)s AND state = 'queued' AND run_at <= now() RETURNING attempt, serial_key
"""
RETRY = """
UPDATE jobs SET state = 'queued', run_at = now() + interval '1 hour', published_at = NULL, lease_until = NULL
WHERE id = %(id)s AND attempt = 1 AND state = 'running'
"""
CANCEL = "UPDATE jobs SET cancel_requested_at = now() WHERE id = %(id)s RETURNING state"
END = """
UPDATE jobs SET state = 'completed', finished_at = now(), lease_until = NULL
WHERE id = %(id)s AND attempt = 1 AND state = 'running' RETURNING parent_id
"""
HEARTBEAT = """
INSERT INTO workers (name, host, pid, pools, queues, threads) VALUES (%(id)s, 'h', 1, '{}', '{}', 1)
ON CONFLICT (name) DO UPDATE SET seen_at = now()
"""

INVALID_INDEXES = "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid"
UNVALIDATED = "SELECT conname FROM pg_constraint WHERE NOT convalidated"

#: Messages of Postgres when ALTER TABLE reads or rewrites all rows.
SCANS = ("rewriting table", "verifying table")


@pytest.fixture
def previous(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The DSN of a database with the schema of the previous version; migrations after it are still to be applied."""
    for path in FOLDER.glob("*.sql"):
        if path.name[:4] <= PREVIOUS:
            shutil.copy(path, tmp_path)
    with bare_database(postgres) as dsn:
        with monkeypatch.context() as patch:
            patch.setattr("models.platform.migrate.FOLDER", tmp_path)
            migrate(dsn)
        yield dsn


def populate(dsn: str, rows: int) -> None:
    """Insert jobs of every state."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(POPULATE, {"rows": rows})
        connection.execute("ANALYZE jobs")


def use_as_previous_version(dsn: str, name: str, stop: threading.Event) -> int:
    """Insert, claim, retry, cancel and end jobs with the previous version's statements. Returns how many."""
    with psycopg.connect(dsn, autocommit=True, options="-c lock_timeout=10s", row_factory=dict_row) as connection:
        for number in count():
            if stop.is_set():
                return number
            job = {"id": f"{name}_{number:08}", "serial_key": f"{name} {number}" if number % 2 else None}
            with connection.transaction():
                connection.execute("SELECT FROM accounts WHERE id = 'platform' FOR KEY SHARE")
                connection.execute(INSERT, job)
            connection.execute(PUBLISH, job)
            assert connection.execute(CLAIM, job).fetchone() == {"attempt": 1, "serial_key": job["serial_key"]}
            with connection.transaction():
                connection.execute(CANCEL, job)
                connection.execute("SELECT FROM accounts WHERE id = 'platform' FOR KEY SHARE")
                assert connection.execute(RETRY if number % 5 == 0 else END, job).rowcount == 1
            connection.execute(HEARTBEAT, {"id": name})
    raise AssertionError


def test_a_migration_beside_the_previous_version_fails_no_statement(previous: str) -> None:
    # Given a populated database and two processes of the previous version
    populate(previous, 20_000)
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        uses = [pool.submit(use_as_previous_version, previous, name, stop) for name in ("one", "two")]
        # When it is migrated
        try:
            migrate(previous)
        finally:
            stop.set()
        # Then none of their statements fails
        assert all(use.result(20) > 0 for use in uses)
    with psycopg.connect(previous) as connection:
        assert connection.execute(INVALID_INDEXES).fetchall() == []
        assert connection.execute(UNVALIDATED).fetchall() == []
        # And jobs due later are scheduled, and those behind an earlier job of their serial key are blocked
        assert connection.execute(
            "SELECT DISTINCT run_at > now() FROM jobs WHERE id LIKE 'job%' AND state = 'scheduled'"
        ).fetchall() == [(True,)]
        assert connection.execute(
            "SELECT count(*) FROM jobs WHERE id LIKE 'job%' AND state = 'queued' AND published_at IS NULL "
            "AND run_at > now()"
        ).fetchone() == (0,)
        assert connection.execute(
            "SELECT count(*) FROM (SELECT blocked, row_number() OVER (PARTITION BY serial_key ORDER BY id) AS place "
            "FROM jobs WHERE id LIKE 'job%' AND serial_key IS NOT NULL) AS jobs WHERE blocked <> (place > 1)"
        ).fetchone() == (0,)


def test_no_migration_reads_a_whole_table_while_it_is_locked(previous: str) -> None:
    populate(previous, 100)
    messages: list[str] = []
    with psycopg.connect(previous, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: messages.append(str(notice.message_primary)))
        connection.execute("SET client_min_messages = debug1")
        for statement in (each for path in files_after(PREVIOUS) for each in statements(path)):
            before = len(messages)
            connection.execute(statement)
            scans = [message for message in messages[before:] if message.startswith(SCANS)]
            assert "VALIDATE CONSTRAINT" in statement or not scans, f"{statement}: {scans}"


def test_a_new_column_of_a_table_has_a_name_that_no_other_table_has(previous: str) -> None:
    """In a statement of the previous version that joins both tables, the unqualified name would become ambiguous."""
    with psycopg.connect(previous, autocommit=True) as connection:
        for path in files_after(PREVIOUS):
            before = columns_by_table(connection)
            for statement in statements(path):
                connection.execute(statement)
            after = columns_by_table(connection)
            added = {column for table in before for column in after.get(table, set()) - before[table]}
            assert added & set().union(*before.values()) == set(), path.name


def columns_by_table(connection: psycopg.Connection) -> dict[str, set[str]]:
    """Return the columns of each table."""
    query = """SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
               WHERE table_schema = 'public' GROUP BY table_name"""
    return {table: set(columns) for table, columns in connection.execute(query)}


def files_after(number: str) -> list[Path]:
    """Return the migrations after this one."""
    return [path for path in sorted(FOLDER.glob("*.sql")) if path.name[:4] > number]


def statements(path: Path) -> list[str]:
    """Return the statements of a migration, without locks, which need a transaction."""
    from yoyo.migrations import read_sql_migration

    return [statement for statement in read_sql_migration(str(path))[2] if "LOCK TABLE" not in statement]


def test_an_interrupted_index_build_is_repeated_by_the_next_run(previous: str) -> None:
    # Given a build of an index that waits for the end of an older transaction
    with psycopg.connect(previous) as reader, psycopg.connect(previous, autocommit=True) as operator:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT FROM accounts")
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(migrate, previous)
            building = "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for%'"
            (pid,) = wait_until(lambda: operator.execute(building).fetchone())
            # When its session is terminated
            operator.execute("SELECT pg_terminate_backend(%s, 30000)", (pid,))
            with pytest.raises(Unavailable):
                run.result(20)
        assert len(operator.execute(INVALID_INDEXES).fetchall()) == 1
        assert pending_migrations(previous)[0] == "0010.job-indexes"
        reader.rollback()
        # Then the next run completes it
        assert migrate(previous).applied[0] == "0010.job-indexes"
        assert operator.execute(INVALID_INDEXES).fetchall() == []
        assert pending_migrations(previous) == []
