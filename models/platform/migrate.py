"""Migrate a database to the present schema: numbered SQL files, applied one at a time by yoyo.

An advisory lock on a separate connection serialises concurrent migrations. Unlike yoyo's lock table it is released when
its process dies. A migration commits together with the record that it was applied. One with `transactional: false`
in its header cannot: its statements are written so that the file can be applied again after an interruption.
`migration_files` has the header's other line, the code that the migration works with. A contract migration is applied
once the upgrade to the version that it needs is finalized (see `compatibility`).
"""

import logging
import random
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.rows import dict_row

from models.platform.compatibility import finalize, oldest_code
from models.platform.database import Connection
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.migration_files import FOLDER, MigrationFile, read_file

log = logging.getLogger(__name__)

#: Key of the advisory lock: an arbitrary number, the first eight letters of "sangha m".
LOCK = 0x73616E676861206D

#: Seconds between two requests for the advisory lock.
LOCK_POLL = 0.2

#: Postgres ends the statements of a migration whose process was killed.
DEAD_CLIENT = "-c client_connection_check_interval=2s -c client_min_messages=warning"

#: A migration waits for a lock on a table for less than Postgres's `deadlock_timeout` of a second. So it neither blocks
#: the application for longer, nor makes Postgres cancel a statement of the application to end a deadlock.
OPTIONS = f"-c lock_timeout=800ms -c statement_timeout=300s {DEAD_CLIENT}"

#: Seconds for which a migration is tried again while it gets no lock.
LOCK_RETRIES = 120.0

#: A statement outside a transaction, such as CREATE INDEX CONCURRENTLY, blocks nobody while it runs or waits for
#: transactions that began before it.
CONCURRENT_OPTIONS = f"-c lock_timeout=1h -c statement_timeout=0 {DEAD_CLIENT}"


#: Later than any schema version.
NEVER = "~"


@dataclass(frozen=True, slots=True)
class Migrations:
    """Names of the migrations that were applied, and contract migrations that wait for the end of an upgrade."""

    applied: Sequence[str]
    held_back: Sequence[MigrationFile]


def migrate(dsn: str, *, finalize_upgrade: bool = False) -> Migrations:
    """Apply the missing migrations: in order those that expand, then the contract ones that no old version forbids.

    A new database, or `finalize_upgrade`, excludes earlier versions for good. Raises Unavailable if the database cannot
    be reached or a table cannot be locked, and ConfigurationError if the server lacks pgvector, or if the upgrade
    cannot be finalized because an earlier version runs.
    """
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as guard:
            _lock(guard)
            return _apply(dsn, finalize_upgrade)
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable(f"A migration was rolled back ({_first_line(error)}): run `sangha migrate` again.") from error
    except psycopg.OperationalError as error:
        raise Unavailable(f"Cannot connect to the database: {_first_line(error)}") from error
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
        reason = error.diag.message_primary or ""
        if "extension" not in reason:
            raise
        raise ConfigurationError(f"Install pgvector on the machine of the Postgres server: {reason}") from error


def pending_migrations(dsn: str) -> list[str]:
    """Return the names of the migrations that the database lacks and this code needs."""
    backend, missing, _ = _open(dsn)
    with backend:
        return [migration.id for migration in missing if _needs(migration) is None]


def _lock(guard: psycopg.Connection[Any]) -> None:
    """Wait for the advisory lock by polling.

    A session that waits in pg_advisory_lock holds a snapshot, for whose end a concurrent index build would wait.
    """
    query, waiting = "SELECT pg_try_advisory_lock(%s)", False
    while not (guard.execute(query, (LOCK,)).fetchone() or (False,))[0]:
        if not waiting:
            log.info("Waiting for another migration to end")
        waiting = True
        time.sleep(LOCK_POLL)


def _apply(dsn: str, finalize_upgrade: bool) -> Migrations:
    backend, missing, is_new = _open(dsn)
    with backend:
        expand = [migration for migration in missing if _needs(migration) is None]
        _apply_all(dsn, expand)
        oldest = _oldest_code(dsn, raise_it=is_new or finalize_upgrade)
        contract = [migration for migration in missing if (_needs(migration) or NEVER) <= oldest]
        _apply_all(dsn, contract)
    applied = [*expand, *contract]
    held_back = [read_file(Path(migration.path)) for migration in missing if migration not in applied]
    return Migrations([migration.id for migration in applied], held_back)


def _oldest_code(dsn: str, *, raise_it: bool) -> str:
    """Return the oldest version that has to work with the database, after raising it to this one or not."""
    with Connection.connect(dsn, autocommit=True, row_factory=dict_row, connect_timeout=10) as connection:
        if raise_it:
            finalize(connection)
        return oldest_code(connection)


def _apply_all(dsn: str, migrations: Sequence[Any]) -> None:
    for migration in migrations:
        log.info("Applying migration %s", migration.id)
        _apply_until_locked(dsn, migration)


def _apply_until_locked(dsn: str, migration: Any) -> None:
    """Apply a migration, again if it waited too long for a lock."""
    migration.load()
    end = time.monotonic() + LOCK_RETRIES
    while True:
        try:
            return _apply_one(dsn, migration)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if not migration.use_transactions or time.monotonic() > end:
                raise
        log.info("Trying migration %s again: a table is locked", migration.id)
        time.sleep(random.uniform(0.2, 1.0))


def _apply_one(dsn: str, migration: Any) -> None:
    """Apply a migration and record it, in one transaction unless the file forbids it."""
    in_transaction = migration.use_transactions
    with (
        _connect(dsn, OPTIONS if in_transaction else CONCURRENT_OPTIONS) as backend,
        backend.transaction() if in_transaction else nullcontext(),
    ):
        migration.process_steps(backend, "apply")
        backend.log_migration(migration, "apply")
        backend.mark_one(migration, log=False)


def _open(dsn: str) -> tuple[Any, Any, bool]:
    """Connect to the database. Returns yoyo's backend, the missing migrations in order, and whether all are missing."""
    backend = _connect(dsn, OPTIONS)
    from yoyo import read_migrations

    known = read_migrations(str(FOLDER))
    missing = backend.to_apply(known)
    return backend, missing, len(missing) == len(known)


def _needs(migration: Any) -> str | None:
    return read_file(Path(migration.path)).needs


def _connect(dsn: str, options: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from yoyo import get_backend

    logging.getLogger("yoyo").setLevel(logging.WARNING)
    return get_backend(_for_yoyo(dsn, options))


def _first_line(error: psycopg.Error) -> str:
    return str(error).partition("\n")[0]


def _for_yoyo(dsn: str, options: str) -> str:
    """Return the DSN with yoyo's scheme for psycopg 3 and the limits of a migration."""
    parts = urlsplit(dsn)
    query = urlencode([*parse_qsl(parts.query), ("options", options)])
    return urlunsplit(("postgresql+psycopg", parts.netloc, parts.path, query, ""))
