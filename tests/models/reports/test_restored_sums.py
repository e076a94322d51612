"""Reports are exact in a database that was restored from a dump, as docs/guides/backup.md has it."""

import subprocess
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from models.platform.database import Database, fetch_one
from models.platform.settings import Settings
from ops.embedded_servers import Postgres, postgres_binary, running_server
from tests.databases import bare_database
from tests.models.reports.records import Deletion, Record, delete, update, update_all, write
from tests.models.reports.test_usage_sums import BEGINS, DAY, accounts, check

__all__ = ["accounts"]


@pytest.fixture
def dump(accounts, postgres, tmp_path):
    """`dump()` → a dump of a database with sums, changed and deleted records, and an account without sums."""
    with accounts.connection() as connection:
        for number in range(20):
            write(connection, Record(number, 1 + number % 2, "small", number, BEGINS[0] + timedelta(minutes=number)))
    update_all(accounts)
    with accounts.connection() as connection:
        connection.execute("UPDATE usage_quarters_state SET counted_accounts = 'acct_2'")
        write(connection, Record(1, 1, "large", 100, BEGINS[0]))
        write(connection, Record(30, 3, "small", 5, BEGINS[0]))
        delete(connection, Deletion(2))
    path = tmp_path / "sangha.dump"

    def dump():
        assert run("pg_dump", "--format=custom", f"--file={path}", dsn_of(accounts)) == (0, "")
        return path

    return dump


def dsn_of(database):
    with database.connection() as connection:
        name = fetch_one(connection, "SELECT current_database() AS name")["name"]
        folder = fetch_one(connection, "SELECT current_setting('unix_socket_directories') AS folder")["folder"]
    return f"postgresql://postgres@/{name}?host={folder.strip(chr(34))}"


#: The only error of `pg_restore --clean`: the constraint goes with its table.
HARMLESS = 'cannot drop inherited constraint "ended_jobs_kept_pkey"'


def run(program, *arguments):
    """Run a program of Postgres. Returns its exit status and errors."""
    done = subprocess.run([postgres_binary(program), *arguments], check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def restore(*arguments):
    """Run pg_restore. Returns its errors."""
    return run("pg_restore", *arguments)[1]


@contextmanager
def another_server(folder: Path):
    """Run a server that has numbered fewer transactions. Yields its DSN."""
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True)
    server = Postgres(folder / "postgres", Settings(data_dir=folder).socket_dir)
    with running_server(server, folder / "run", folder / "logs"):
        yield server.dsn


USE_UP_NUMBERS = """
DO $$ BEGIN
    SET synchronous_commit = off;
    WHILE pg_current_xact_id() <= '{last}'::xid8 LOOP COMMIT; END LOOP;
END $$
"""


def check_life_goes_on(database, last_mark="0"):
    """Check reports while records change and are counted, until the server has numbered transactions up to a mark."""
    check(database, DAY)
    with database.connection() as connection:
        write(connection, Record(3, 2, "large", 200, BEGINS[0]))
        write(connection, Record(31, 1, "small", 7, BEGINS[0]))
        delete(connection, Deletion(4))
    check(database, DAY)
    update(database)
    check(database, DAY)
    update_all(database)
    check(database, DAY)
    with database.connection() as connection:
        connection.execute(USE_UP_NUMBERS.format(last=last_mark))
        write(connection, Record(5, 2, "large", 300, BEGINS[0]))
    for _ in range(2):
        check(database, DAY)
        update(database)
    assert sums(database, "usage_quarters", "sum(jobs)") == sums(database, "usage_records", "count(*)")


def sums(database, table, jobs):
    with database.connection() as connection:
        return fetch_one(connection, f"SELECT {jobs}::int AS jobs, sum(input_tokens)::int AS tokens FROM {table}")


def last_mark(database):
    with database.connection() as connection:
        return fetch_one(connection, "SELECT max(changed_in::text::bigint)::text AS mark FROM usage_records")["mark"]


def test_in_another_database_of_the_server(dump, postgres):
    path = dump()
    with bare_database(postgres) as dsn:
        assert restore(f"--dbname={dsn}", path) == ""
        with closing(Database(dsn)) as restored:
            check_life_goes_on(restored)


def test_on_another_server(dump, accounts, tmp_path):
    path = dump()
    with another_server(tmp_path / "other") as dsn:
        assert restore(f"--dbname={dsn}", path) == ""
        with closing(Database(dsn)) as restored:
            assert int(last_mark(restored)) > 1000
            check_life_goes_on(restored, last_mark(accounts))


def test_over_a_database_that_has_changed_since(dump, accounts):
    # Given a dump, and changes and sums after it
    path = dump()
    with accounts.connection() as connection:
        write(connection, Record(1, 1, "small", 1_000, BEGINS[0]))
        write(connection, Record(40, 1, "small", 1_000, BEGINS[0]))
    update_all(accounts)
    # When it is restored with all processes stopped
    errors = restore("--clean", "--if-exists", f"--dbname={dsn_of(accounts)}", path)
    assert errors.count("error: ") <= 1
    assert not errors or HARMLESS in errors
    # Then reports are those of its records
    with accounts.connection() as connection:
        assert fetch_one(connection, "SELECT input_tokens FROM usage_records WHERE job_id = 'job_1'") == {
            "input_tokens": 100
        }
    check_life_goes_on(accounts)
