"""When an upgrade is finalized, and what waits for it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from bench.harness.waiting import wait_until
from models.platform import compatibility
from models.platform.compatibility import Compatibility, finalize, finalize_when_due, oldest_code, running_processes
from models.platform.database import Database, fetch_all
from models.platform.errors import ConfigurationError
from models.platform.migrate import FOLDER, migrate
from models.platform.migration_files import FIRST_VERSION, process_name, read_file, schema_version
from ops.embedded_servers import Postgres
from tests.databases import bare_database

LATEST = schema_version()

EARLIER = "sangha/0012 worker memory"


@pytest.fixture
def upgrading(empty_database: Database) -> Database:
    """A database during the upgrade from the first version."""
    with empty_database.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = %s", (FIRST_VERSION,))
    return empty_database


@contextmanager
def running(database: Database, name: str) -> Iterator[None]:
    """Have a process with connections of this name, until Postgres has noticed its end."""
    with closing(Database(database.dsn, size=1, name=name)) as process, process.connection():
        yield
    with database.connection() as connection:
        wait_until(
            lambda: not fetch_all(connection, "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (name,))
        )


def pass_days(database: Database, days: float) -> None:
    """Move the time when an earlier version was seen into the past."""
    with database.connection() as connection:
        connection.execute(
            "UPDATE schema_compatibility SET older_seen_at = older_seen_at - make_interval(secs => %s)",
            (days * 86_400,),
        )


def look(database: Database) -> tuple[bool, str]:
    """Finalize the upgrade when it is due. Returns whether it was, and the oldest code."""
    with database.connection() as connection:
        return finalize_when_due(connection), oldest_code(connection)


def test_a_new_database_excludes_earlier_versions(empty_database: Database) -> None:
    assert look(empty_database) == (False, LATEST)
    assert Compatibility(empty_database).at_least(LATEST)


def test_an_upgrade_is_finalized_a_day_after_the_last_earlier_process(upgrading: Database) -> None:
    # Given an earlier version that still ran a day after the migration
    pass_days(upgrading, 1.1)
    with running(upgrading, EARLIER), running(upgrading, process_name("web")), running(upgrading, "psql"):
        assert look(upgrading) == (False, FIRST_VERSION)
    # When only this version has run for less than a day, nothing changes
    with running(upgrading, process_name("web")):
        pass_days(upgrading, 0.9)
        assert look(upgrading) == (False, FIRST_VERSION)
        # Then, after a day, the upgrade is finalized, once
        pass_days(upgrading, 0.2)
        assert look(upgrading) == (True, LATEST)
        assert look(upgrading) == (False, LATEST)


def test_an_earlier_version_finalizes_nothing_for_a_later_one(upgrading: Database) -> None:
    with upgrading.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '9999'")
    pass_days(upgrading, 2)

    assert look(upgrading) == (False, "9999")


def test_an_operator_finalizes_only_without_earlier_processes(upgrading: Database) -> None:
    with upgrading.connection() as connection:
        with running(upgrading, EARLIER), pytest.raises(ConfigurationError, match=r"worker memory 0012 .* stop them"):
            finalize(connection)
        assert oldest_code(connection) == FIRST_VERSION
        finalize(connection)
        assert oldest_code(connection) == LATEST


def test_processes_of_all_versions_are_recognised(empty_database: Database) -> None:
    with running(empty_database, "worker recall"), running(empty_database, EARLIER), empty_database.connection() as own:
        assert {str(process) for process in running_processes(own)} == {"worker recall 0008", "worker memory 0012"}


def test_a_new_format_is_written_once_the_upgrade_is_finalized(
    upgrading: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process during an upgrade
    monkeypatch.setattr(compatibility, "REFRESH_INTERVAL", 0)
    process = Compatibility(upgrading)
    assert not process.at_least(LATEST)
    # When it is finalized
    with upgrading.connection() as connection:
        finalize(connection)
    # Then the process learns it, and asks no more
    assert process.at_least(LATEST)
    upgrading.close()
    assert process.at_least(LATEST)


def test_a_process_asks_rarely_whether_an_upgrade_is_finalized(upgrading: Database) -> None:
    process = Compatibility(upgrading)
    assert not process.at_least(LATEST)
    upgrading.close()
    assert not process.at_least(LATEST)


@pytest.fixture
def upgraded(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The DSN of a database of the first version, and then migrations of which one needs a version after it."""
    for path in FOLDER.glob("*.sql"):
        if read_file(path).needs is None and path.name[:4] <= "0014":
            (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    with bare_database(postgres) as dsn:
        migrate(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE schema_compatibility SET oldest_code = '0012'")
        (tmp_path / "0100.drop.sql").write_text("-- roll: contract 0014\nALTER TABLE jobs DROP COLUMN lease_until;")
        (tmp_path / "0101.add.sql").write_text("-- roll: expand\nALTER TABLE jobs ADD COLUMN more int;")
        yield dsn


def test_a_contract_migration_waits_for_the_end_of_the_upgrade(upgraded: str) -> None:
    # When an upgrade is not final, then a later expand migration is applied and the contract migration held back
    migrations = migrate(upgraded)
    assert migrations.applied == ["0101.add"]
    assert [str(file) for file in migrations.held_back] == ["0100.drop (contract, needs 0014)"]
    # When an operator finalizes it, then it is applied
    assert migrate(upgraded, finalize_upgrade=True).applied == ["0100.drop"]
