"""`sangha doctor --release`: whether this release can be rolled out beside the processes that run.

Each process names its schema version in the names of its connections. Run the checks before `sangha migrate`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep

import psycopg

from models.platform.migration_files import FIRST_VERSION, read_files, schema_version
from models.platform.settings import Settings
from ops.doctor.finding import Check, Finding

Connection = psycopg.Connection[tuple[str, ...]]

#: Seconds to wait for an answer.
TIMEOUT = 3

#: Seconds for which connections are watched behind a pooler, where a process has one only while it uses it, and seconds
#: between two looks.
WATCH, INTERVAL = 10.0, 0.25

#: Names of connections: with a schema version, and those of versions that did not state it.
VERSIONED = re.compile(r"sangha/(?P<version>\d{4}) (?P<name>.+)")
UNVERSIONED = re.compile(r"(?:sangha )?(?P<name>web|scheduler|worker .+|dead-worker-releaser)")

CONNECTIONS = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"

APPLIED = "SELECT migration_id FROM _yoyo_migration ORDER BY migration_id"

HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"

OLDEST_CODE = "SELECT oldest_code FROM schema_compatibility"

# Without those that are being built.
INVALID_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index
WHERE NOT indisvalid AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index) ORDER BY 1
"""

UNVALIDATED = """
SELECT format('%s of %s', conname, conrelid::regclass),
       format('ALTER TABLE %s VALIDATE CONSTRAINT %I', conrelid::regclass, conname)
FROM pg_constraint WHERE NOT convalidated ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Process:
    """Processes with connections of this name, and their schema version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def schema(settings: Settings) -> Finding:
    """Compare the database's schema with this release: what is pending, and what a newer release has applied."""
    with _connect(settings) as connection:
        applied, oldest = _applied(connection), _oldest_code(connection)
    pending = [file for file in read_files() if file.name not in applied]
    newer = [name for name in applied if name[:4] > schema_version()]
    if oldest > schema_version():
        detail = f"a newer release has applied {newer[-1]}; the schema needs code of {oldest} or later"
        return Finding("FAIL", "schema", f"{detail}, and this is {schema_version()}", "install a later release")
    if newer:
        detail = f"a newer release has applied {', '.join(newer)}; this one ({schema_version()}) works with it"
        return Finding("ok", "schema", detail)
    if pending:
        detail = f"pending: {', '.join(map(str, pending))}"
        return Finding("ok", "schema", detail, "run `sangha migrate` before this release's processes")
    return Finding("ok", "schema", f"{schema_version()}, no migration pending")


def processes(settings: Settings) -> Finding:
    """Check that the running processes work with the schema, now and when pending migrations have been applied."""
    with _connect(settings) as connection:
        running, applied = _running(connection, pooled=settings.database_pooler_url is not None), _applied(connection)
        oldest = _oldest_code(connection)
    if outdated := [process for process in running if process.version < oldest]:
        detail = f"{_join(outdated)} cannot work with the schema, which needs {oldest} or later"
        return Finding("FAIL", "processes", detail, "stop them")
    for file in read_files():
        early = [process for process in running if process.version < (file.needs or "")]
        if early and file.name not in applied:
            remedy = f"first roll out a release with migration {file.needs} that lacks {file.number}, or stop them"
            return Finding("FAIL", "processes", f"{file} would break {_join(early)}", remedy)
    return Finding("ok", "processes", _join(running) or "none running")


def indexes(settings: Settings) -> Finding:
    """Check that no index was left invalid by an interrupted build."""
    with _connect(settings) as connection:
        invalid = [row[0] for row in connection.execute(INVALID_INDEXES)]
        pending = len(_applied(connection)) < len(read_files())
    if invalid:
        rebuild = "; ".join(f"REINDEX INDEX CONCURRENTLY {name}" for name in invalid)
        remedy = f"run `sangha migrate`, or {rebuild}" if pending else rebuild
        return Finding("FAIL", "indexes", f"invalid: {', '.join(invalid)}", remedy)
    return Finding("ok", "indexes", "all valid")


def constraints(settings: Settings) -> Finding:
    """Check that every constraint has been validated."""
    with _connect(settings) as connection:
        rows = connection.execute(UNVALIDATED).fetchall()
    if rows:
        names, statements = ", ".join(row[0] for row in rows), "; ".join(row[1] for row in rows)
        return Finding("warn", "constraints", f"not validated: {names}", f"run `sangha migrate`, or {statements}")
    return Finding("ok", "constraints", "all validated")


RELEASE_CHECKS: Sequence[Check] = (schema, processes, indexes, constraints)


def _connect(settings: Settings) -> Connection:
    return psycopg.connect(settings.postgres_dsn, connect_timeout=TIMEOUT, autocommit=True)


def _applied(connection: Connection) -> list[str]:
    """Return the names of the applied migrations."""
    return [row[0] for row in connection.execute(APPLIED)] if _has_table(connection, "_yoyo_migration") else []


def _oldest_code(connection: Connection) -> str:
    """Return the oldest schema version that works with the database."""
    if not _has_table(connection, "schema_compatibility"):
        return FIRST_VERSION
    row = connection.execute(OLDEST_CODE).fetchone()
    return row[0] if row else FIRST_VERSION


def _has_table(connection: Connection, name: str) -> bool:
    row = connection.execute(HAS_TABLE, (name,)).fetchone()
    return bool(row and row[0])


def _running(connection: Connection, *, pooled: bool) -> list[Process]:
    """Return the processes that are connected, watching for a while if a pooler shares their connections."""
    names: set[str] = set()
    end = monotonic() + (WATCH if pooled else 0)
    while True:
        names |= {row[0] for row in connection.execute(CONNECTIONS)}
        if monotonic() >= end:
            return sorted(filter(None, map(_process, names)), key=str)
        sleep(INTERVAL)


def _process(name: str) -> Process | None:
    """Parse the name of a connection; None if it belongs to no process of ours."""
    if versioned := VERSIONED.fullmatch(name):
        return Process(versioned["name"], versioned["version"])
    unversioned = UNVERSIONED.fullmatch(name)
    return Process(unversioned["name"], FIRST_VERSION) if unversioned else None


def _join(running: Sequence[Process]) -> str:
    return ", ".join(map(str, running))
