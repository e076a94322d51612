"""Migrate a database to the present schema: numbered SQL files, applied by yoyo one at a time.

An advisory lock on a separate connection serialises concurrent migrations. Unlike yoyo's lock table it is released when
its process dies. Each migration waits for table locks only briefly, so that it fails instead of blocking traffic, and
each works with the code before and after it.
"""

import logging
import warnings
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg

from models.platform.errors import ConfigurationError, Unavailable

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "migrations"

#: Key of the advisory lock: an arbitrary number, the first eight letters of "sangha m".
LOCK = 0x73616E676861206D

#: Limits of a migration: its wait for a table lock, and its duration.
OPTIONS = "-c lock_timeout=5s -c statement_timeout=300s -c client_min_messages=warning"


def migrate(dsn: str) -> list[str]:
    """Apply the missing migrations in order. Returns the names of those applied.

    Raises Unavailable if the database cannot be reached, and ConfigurationError if it lacks pgvector.
    """
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as guard:
            guard.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            return _apply(dsn)
    except psycopg.OperationalError as error:
        raise Unavailable(f"Cannot connect to the database: {str(error).splitlines()[0]}") from error
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
        reason = error.diag.message_primary or ""
        if "extension" not in reason:
            raise
        raise ConfigurationError(f"Install pgvector on the machine of the Postgres server: {reason}") from error


def pending_migrations(dsn: str) -> list[str]:
    """Return the names of the migrations that the database lacks."""
    backend, missing = _open(dsn)
    with backend:
        return [migration.id for migration in missing]


def _apply(dsn: str) -> list[str]:
    backend, missing = _open(dsn)
    with backend:
        for migration in missing:
            log.info("Applying migration %s", migration.id)
        backend.apply_migrations(missing)
        return [migration.id for migration in missing]


def _open(dsn: str):  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from yoyo import get_backend, read_migrations

    logging.getLogger("yoyo").setLevel(logging.WARNING)
    backend = get_backend(_for_yoyo(dsn))
    return backend, backend.to_apply(read_migrations(str(FOLDER)))


def _for_yoyo(dsn: str) -> str:
    """Return the DSN with yoyo's scheme for psycopg 3 and the limits of a migration."""
    parts = urlsplit(dsn)
    query = urlencode([*parse_qsl(parts.query), ("options", OPTIONS)])
    return urlunsplit(("postgresql+psycopg", parts.netloc, parts.path, query, ""))
