"""The command line prints help fast, and errors as one line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models.jobs.catalogue import POOLS
from models.platform.database import Database
from models.platform.migration_files import schema_version
from models.platform.settings import Settings
from ops import preflight
from ops.cli import main
from ops.up import first_call


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SANGHA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ops.logs.configure_logging", lambda **_: None)


def sangha(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_command_has_help() -> None:
    for name in main.commands:
        result = sangha(name, "--help")
        assert result.exit_code == 0
        assert result.output.startswith("Usage: ")


def test_help_of_worker_names_every_pool() -> None:
    text = sangha("worker", "--help").output
    assert all(pool in text for pool in POOLS)


def test_help_imports_no_pipeline() -> None:
    program = (
        "import sys; from ops.cli import main; main(['--help'], standalone_mode=False);"
        "print([name for name in sys.modules if name.split('.')[0] in ('pydantic', 'pipelines', 'tasks', 'web')])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")


def test_malformed_setting_prints_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANGHA_BROKER_URL", "kafka://x")
    for command in (["up"], ["web"], ["worker", "inference"], ["scheduler"], ["migrate"], ["doctor"]):
        result = sangha(*command)
        assert result.exit_code == 2
        assert result.stderr.startswith("sangha: SANGHA_BROKER_URL is 'kafka://x': it should be amqp://… or ")
        assert result.stderr.count("\n") == 1


def test_processes_of_a_release_that_the_database_excludes_do_not_start(installation: Database) -> None:
    with installation.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '9000'")

    for command in (["web", "--port", "0"], ["worker", "memory"], ["scheduler"]):
        result = sangha(*command)

        assert result.exit_code == 2, command
        assert result.stderr.startswith("sangha: The database needs schema version 9000 or later")
        assert result.stderr.count("\n") == 1


def test_migrate_says_what_it_holds_back_and_what_it_has_finalized(
    installation: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an upgrade that is not finalized, and a migration that waits for that
    with installation.connection() as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_code = '0008'")
        connection.execute("DELETE FROM _yoyo_migration WHERE migration_id LIKE '0016%'")
    # When it is migrated, and finalized
    migrated, finalized = sangha("migrate"), sangha("migrate", "--finalize")
    # Then both say so
    version = schema_version()
    assert migrated.output == (
        "held back 0016.drop-job-indexes (contract, needs 0013) until the upgrade is finalized\n"
    )
    assert finalized.output == (
        "applied 0016.drop-job-indexes\n"
        f"finalized: versions before schema {version} no longer work with this database\n"
    )


def test_unreachable_database_prints_one_line(tmp_path: Path) -> None:
    result = sangha("migrate", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith("sangha: Cannot connect to the database")
    assert result.stderr.count("\n") == 1


def test_missing_package_prints_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "models.platform.settings")
    result = sangha("migrate")
    assert result.stderr == "sangha: the Python package pydantic is missing: run `make install`\n"


def test_up_checks_the_port_before_it_starts_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = sangha("up", "--port", str(port), "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == (
        f"sangha: cannot listen on 127.0.0.1:{port} (Address already in use): "
        "choose another port with --port or SANGHA_PORT\n"
    )
    assert not (tmp_path / "postgres").exists()


def test_second_up_in_a_data_folder_is_refused(tmp_path: Path) -> None:
    with preflight.data_folder_lock(tmp_path):
        result = sangha("up", "--port", "0", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"sangha: {tmp_path} is in use by another `sangha up` (pid {os.getpid()})")


def test_up_needs_free_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MIN_FREE_DISK", 1 << 60)
    result = sangha("up", "--port", "0", "--data-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "MB free" in result.stderr
    assert result.stderr.count("\n") == 1


def test_data_folder_that_cannot_be_created_prints_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = sangha("up", "--data-dir", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert "Not a directory" in result.stderr


def test_first_call_has_an_address_that_this_machine_can_connect_to() -> None:
    assert "http://127.0.0.1:8001/signup" in first_call(Settings(host="0.0.0.0", port=8001))
    assert "http://[::1]:8001/v1" in first_call(Settings(host="::", port=8001))
