"""`sangha doctor --release` on databases of this, an earlier and a later release, beside running processes."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from models.platform.database import Database
from models.platform.migrate import FOLDER, migrate
from models.platform.migration_files import FIRST_VERSION, process_name, schema_version
from models.platform.settings import Settings
from ops.doctor.finding import Finding, run_check
from ops.doctor.release import RELEASE_CHECKS, constraints, indexes, processes, schema
from ops.embedded_servers import Postgres
from tests.databases import bare_database
from tests.ops.commands import sangha

LATEST = schema_version()

#: A later migration.
NEXT = f"{int(LATEST) + 1:04}"


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """The DSN of a database that was upgraded from the first version to the schema of this release."""
    with bare_database(postgres) as dsn:
        migrate(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE schema_compatibility SET oldest_code = %s", (FIRST_VERSION,))
        yield dsn


@pytest.fixture
def own_settings(settings: Settings, dsn: str) -> Settings:
    """The settings of that database."""
    return settings.model_copy(update={"database_url": dsn})


@pytest.fixture
def add_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`add_migration(header)` adds a migration to this release."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    schema_version.cache_clear()

    def add_migration(header: str) -> None:
        (tmp_path / f"{NEXT}.next.sql").write_text(f"{header}\nSELECT 1;")
        monkeypatch.setattr("models.platform.migration_files.FOLDER", tmp_path)
        monkeypatch.setattr("models.platform.migrate.FOLDER", tmp_path)

    yield add_migration
    monkeypatch.undo()
    schema_version.cache_clear()


@pytest.fixture
def run_process(own_settings: Settings):
    """`run_process(name)` → a connected process with this name."""

    def run_process(name: str) -> "closing[Database]":
        database = Database(own_settings.postgres_dsn, size=1, name=name)
        with database.connection():
            return closing(database)

    return run_process


def apply_of_a_later_release(dsn: str, oldest_code: str) -> None:
    """Record a migration that this release does not know."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) VALUES ('x', %s, now())",
            (f"{NEXT}.of_a_later_release",),
        )
        connection.execute("UPDATE schema_compatibility SET oldest_code = %s", (oldest_code,))


def test_an_up_to_date_database_passes(own_settings):
    assert [str(run_check(check, own_settings)) for check in RELEASE_CHECKS] == [
        f"ok   schema: {LATEST}, no migration pending",
        "ok   processes: none running",
        "ok   indexes: all valid",
        "ok   constraints: all validated",
    ]


def test_an_empty_database_has_every_migration_pending(settings, postgres):
    with bare_database(postgres) as dsn:
        findings = [run_check(check, settings.model_copy(update={"database_url": dsn})) for check in RELEASE_CHECKS]

    assert {finding.verdict for finding in findings} == {"ok"}
    assert findings[0].detail.startswith("pending: 0001.accounts (expand), ")
    assert findings[0].remedy == "run `sangha migrate` before this release's processes"


def test_an_expand_migration_may_be_applied_beside_earlier_processes(own_settings, add_migration, run_process):
    # Given a pending migration that works with the code before it
    add_migration("-- roll: expand")
    # When processes of earlier releases run
    with run_process("sangha web"), run_process("sangha/0012 worker memory"):
        finding = processes(own_settings)
    # Then nothing is refused
    assert schema(own_settings).detail == f"pending: {NEXT}.next (expand)"
    assert finding == Finding("ok", "processes", "web 0008, worker memory 0012")


def test_a_contract_migration_is_held_back_until_the_upgrade_is_finalized(own_settings, add_migration, run_process):
    # Given a pending migration that needs that all processes know the last one of this release
    with run_process("sangha/0012 worker memory+recall"):
        add_migration(f"-- roll: contract {LATEST}")
        # When a process runs that does not know it
        findings = [schema(own_settings), processes(own_settings)]
    # Then it is announced, and breaks nothing
    assert [finding.verdict for finding in findings] == ["ok", "ok"]
    assert findings[0].detail == f"pending when the upgrade is finalized: {NEXT}.next (contract, needs {LATEST})"
    assert "sangha migrate --finalize" in findings[0].remedy


def test_an_earlier_release_may_run_on_a_later_schema_that_works_with_it(own_settings, dsn):
    apply_of_a_later_release(dsn, oldest_code=LATEST)

    detail = f"a newer release has applied {NEXT}.of_a_later_release; this one ({LATEST}) works with it"
    assert schema(own_settings) == Finding("ok", "schema", detail)


def test_an_earlier_release_is_refused_when_the_schema_needs_later_code(own_settings, dsn, run_process):
    # Given a schema that needs the code of a later release
    apply_of_a_later_release(dsn, oldest_code=NEXT)
    # When this release is checked, and runs
    with run_process(process_name("web")):
        findings = [schema(own_settings), processes(own_settings)]
    # Then both are refused
    assert [str(finding) for finding in findings] == [
        f"FAIL schema: a newer release has applied {NEXT}.of_a_later_release; the schema needs code of {NEXT} or "
        f"later, and this is {LATEST} — install a later release",
        f"FAIL processes: web {LATEST} cannot work with the schema, which needs {NEXT} or later — stop them",
    ]


def test_an_invalid_index_is_reported_with_the_statement_that_rebuilds_it(own_settings, dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('a', 'same'), ('b', 'same')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY accounts_name ON accounts (name)")

    remedy = "REINDEX INDEX CONCURRENTLY accounts_name"
    assert indexes(own_settings) == Finding("FAIL", "indexes", "invalid: accounts_name", remedy)


def test_an_unvalidated_constraint_is_reported(own_settings, dsn):
    with psycopg.connect(dsn) as connection:
        connection.execute("ALTER TABLE accounts ADD CONSTRAINT named CHECK (name <> '') NOT VALID")

    remedy = "run `sangha migrate`, or ALTER TABLE accounts VALIDATE CONSTRAINT named"
    assert constraints(own_settings) == Finding("warn", "constraints", "not validated: named of accounts", remedy)


def test_a_process_behind_a_pooler_is_found_when_it_uses_a_connection(own_settings, dsn, monkeypatch, run_process):
    # Given a pooler, behind which a process has a connection only while it uses it
    monkeypatch.setattr("ops.doctor.release.WATCH", 1.0)
    with ExitStack() as stack:
        connect = iter([lambda: stack.enter_context(run_process("sangha/0012 web"))])
        monkeypatch.setattr("ops.doctor.release.sleep", lambda _: next(connect, lambda: None)())
        # When it connects between two looks of the doctor
        finding = processes(own_settings.model_copy(update={"database_pooler_url": dsn}))
    # Then it is found
    assert finding.detail == "web 0012"


def test_processes_of_this_release_name_their_schema_version(own_settings):
    with closing(Database.open(own_settings, size=1, name="worker inference+recall")) as database:
        with database.connection():
            pass
        assert processes(own_settings) == Finding("ok", "processes", f"worker inference+recall {LATEST}")


def test_the_command_exits_with_1_when_a_check_fails(dsn, monkeypatch, tmp_path):
    monkeypatch.setenv("SANGHA_DATABASE_URL", dsn)
    accepted = sangha("doctor", "--release", "--data-dir", str(tmp_path))
    apply_of_a_later_release(dsn, oldest_code=NEXT)
    refused = sangha("doctor", "--release", "--data-dir", str(tmp_path))

    assert accepted.exit_code == 0
    assert [line.split(":")[0] for line in accepted.output.splitlines()] == [
        "ok   schema",
        "ok   processes",
        "ok   indexes",
        "ok   constraints",
    ]
    assert refused.exit_code == 1
    assert refused.output.startswith("FAIL schema: ")
