"""`sangha doctor --release`: whether this release can be rolled out beside the processes that run.

Each process names its schema version in the names of its connections. Run the checks before `sangha migrate`.
"""

from collections.abc import Sequence
from time import monotonic, sleep

from psycopg.rows import dict_row

from models.platform.compatibility import Process, join_names, oldest_code, running_processes
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.migration_files import read_files, schema_version
from models.platform.settings import Settings
from ops.doctor.finding import Check, Finding

#: Seconds to wait for an answer.
TIMEOUT = 3

#: Seconds for which connections are watched behind a pooler, where a process has one only while it uses it, and seconds
#: between two looks.
WATCH, INTERVAL = 10.0, 0.25

#: What to do about contract migrations.
FINALIZE = "none; to rule out a rollback within the next day, run `sangha migrate --finalize` after the last restart"

APPLIED = "SELECT migration_id FROM _yoyo_migration ORDER BY migration_id"

HAS_APPLIED = "SELECT to_regclass('_yoyo_migration') IS NOT NULL AS has_table"

# Without those that are being built.
INVALID_INDEXES = """
SELECT indexrelid::regclass::text AS name FROM pg_index
WHERE NOT indisvalid AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index) ORDER BY 1
"""

UNVALIDATED = """
SELECT format('%s of %s', conname, conrelid::regclass) AS name,
       format('ALTER TABLE %s VALIDATE CONSTRAINT %I', conrelid::regclass, conname) AS statement
FROM pg_constraint WHERE NOT convalidated ORDER BY 1
"""


def schema(settings: Settings) -> Finding:
    """Compare the database's schema with this release: what is pending, and what a newer release has applied."""
    with _connect(settings) as connection:
        applied, oldest = _applied(connection), oldest_code(connection)
    pending = [file for file in read_files() if file.name not in applied]
    newer = [name for name in applied if name[:4] > schema_version()]
    if oldest > schema_version():
        detail = f"a newer release has applied {newer[-1]}; the schema needs code of {oldest} or later"
        return Finding("FAIL", "schema", f"{detail}, and this is {schema_version()}", "install a later release")
    if newer:
        detail = f"a newer release has applied {', '.join(newer)}; this one ({schema_version()}) works with it"
        return Finding("ok", "schema", detail)
    if expand := [file for file in pending if file.needs is None]:
        detail = f"pending: {', '.join(map(str, expand))}"
        return Finding("ok", "schema", detail, "run `sangha migrate` before this release's processes")
    if pending:
        detail = f"pending when the upgrade is finalized: {', '.join(map(str, pending))}"
        return Finding("ok", "schema", detail, FINALIZE)
    return Finding("ok", "schema", f"{schema_version()}, no migration pending")


def processes(settings: Settings) -> Finding:
    """Check that the running processes work with the schema, now and when pending migrations have been applied.

    Contract migrations do not count: `sangha migrate` holds them back until the upgrade is finalized.
    """
    with _connect(settings) as connection:
        running = _running(connection, pooled=settings.database_pooler_url is not None)
        oldest = oldest_code(connection)
    if outdated := [process for process in running if process.version < oldest]:
        detail = f"{join_names(outdated)} cannot work with the schema, which needs {oldest} or later"
        return Finding("FAIL", "processes", detail, "stop them")
    return Finding("ok", "processes", join_names(running) or "none running")


def indexes(settings: Settings) -> Finding:
    """Check that no index was left invalid by an interrupted build."""
    with _connect(settings) as connection:
        invalid = [row["name"] for row in fetch_all(connection, INVALID_INDEXES)]
        pending = {file.name for file in read_files()} > set(_applied(connection))
    if invalid:
        rebuild = "; ".join(f"REINDEX INDEX CONCURRENTLY {name}" for name in invalid)
        remedy = f"run `sangha migrate`, or {rebuild}" if pending else rebuild
        return Finding("FAIL", "indexes", f"invalid: {', '.join(invalid)}", remedy)
    return Finding("ok", "indexes", "all valid")


def constraints(settings: Settings) -> Finding:
    """Check that every constraint has been validated."""
    with _connect(settings) as connection:
        rows = fetch_all(connection, UNVALIDATED)
    if rows:
        names, statements = ", ".join(row["name"] for row in rows), "; ".join(row["statement"] for row in rows)
        return Finding("warn", "constraints", f"not validated: {names}", f"run `sangha migrate`, or {statements}")
    return Finding("ok", "constraints", "all validated")


RELEASE_CHECKS: Sequence[Check] = (schema, processes, indexes, constraints)


def _connect(settings: Settings) -> Connection:
    return Connection.connect(settings.postgres_dsn, connect_timeout=TIMEOUT, autocommit=True, row_factory=dict_row)


def _applied(connection: Connection) -> list[str]:
    """Return the names of the applied migrations."""
    row = fetch_one(connection, HAS_APPLIED)
    has_table = bool(row and row["has_table"])
    return [row["migration_id"] for row in fetch_all(connection, APPLIED)] if has_table else []


def _running(connection: Connection, *, pooled: bool) -> set[Process]:
    """Return the processes that are connected, watching for a while if a pooler shares their connections."""
    processes: set[Process] = set()
    end = monotonic() + (WATCH if pooled else 0)
    while True:
        processes |= running_processes(connection)
        if monotonic() >= end:
            return processes
        sleep(INTERVAL)
