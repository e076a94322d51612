"""Headers of migration files, and the schema version of a process."""

from pathlib import Path

import psycopg
import pytest

from models.platform.migrate import migrate
from models.platform.migration_files import FIRST_VERSION, MigrationFile, process_name, read_file, read_files
from ops.embedded_servers import Postgres
from tests.databases import bare_database

COMPATIBILITY = """
CREATE TABLE schema_compatibility (oldest_code text);
INSERT INTO schema_compatibility VALUES ('0008');
"""


def test_each_migration_says_what_code_it_works_with() -> None:
    files = read_files()

    assert [file.number for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    assert all(file.needs is None or FIRST_VERSION < file.needs < file.number for file in files)


def test_a_migration_without_a_header_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "0100.unknown.sql"
    path.write_text("-- Drop a column.\nALTER TABLE jobs DROP COLUMN worker;")

    with pytest.raises(ValueError, match=r"0100\.unknown\.sql: add a line `-- roll: expand`"):
        read_file(path)


def test_headers_are_read(tmp_path: Path) -> None:
    expand, contract = tmp_path / "0100.add.sql", tmp_path / "0101.drop.sql"
    expand.write_text("-- roll: expand\n-- transactional: false\nSELECT 1;")
    contract.write_text("-- roll: contract 0100\nSELECT 1;")

    assert read_file(expand) == MigrationFile("0100.add", None)
    assert read_file(contract) == MigrationFile("0101.drop", "0100")
    assert [str(read_file(path)) for path in (expand, contract)] == [
        "0100.add (expand)",
        "0101.drop (contract, needs 0100)",
    ]


def test_connections_name_the_newest_migration() -> None:
    assert process_name("web") == f"sangha/{read_files()[-1].number} web"


def test_a_contract_migration_raises_the_oldest_code(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given migrations of which two need later code, the second of them less
    monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)
    (tmp_path / "0001.compatibility.sql").write_text(COMPATIBILITY)
    (tmp_path / "0102.drop.sql").write_text("-- roll: contract 0100\nSELECT 1;")
    (tmp_path / "0103.drop.sql").write_text("-- roll: contract 0099\n-- transactional: false\nSELECT 1;")
    with bare_database(postgres) as dsn:
        # When they are applied
        migrate(dsn)
        # Then the database says which code works with it
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT oldest_code FROM schema_compatibility").fetchall() == [("0100",)]
