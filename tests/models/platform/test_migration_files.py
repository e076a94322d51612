"""Headers of migration files, and the schema version of a process."""

from pathlib import Path

import pytest

from models.platform.migration_files import FIRST_VERSION, MigrationFile, process_name, read_file, read_files


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
