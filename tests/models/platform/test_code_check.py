"""Whether this code still works with the database."""

import pytest

from models.platform import code_check
from models.platform.code_check import OutdatedWarning, check_code, check_code_at_start
from models.platform.database import Database
from models.platform.errors import ConfigurationError
from models.platform.migration_files import schema_version


def exclude_this_version(database: Database) -> None:
    with database.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '9000'")


def test_code_that_the_database_excludes_does_not_start(empty_database: Database) -> None:
    check_code_at_start(empty_database.dsn)
    exclude_this_version(empty_database)

    with pytest.raises(ConfigurationError) as caught:
        check_code_at_start(empty_database.dsn)

    expected = f"The database needs schema version 9000 or later, and this release has {schema_version()}: "
    assert str(caught.value) == expected + "install a later release."


def test_a_process_may_start_before_the_database() -> None:
    check_code_at_start("host=127.0.0.1 port=1")


def test_a_running_process_logs_once_that_it_is_too_old(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(code_check, "REFRESH_INTERVAL", 0.0)
    warning = OutdatedWarning()

    with empty_database.connection() as connection:
        warning.look(connection)
        exclude_this_version(empty_database)
        for _ in range(3):
            warning.look(connection)

    assert caplog.text.count("This process has to be replaced") == 1


def test_a_database_without_the_table_excludes_nothing(empty_database: Database) -> None:
    with empty_database.connection() as connection:
        connection.execute("DROP TABLE schema_compatibility")
        check_code(connection)
