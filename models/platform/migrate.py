"""Bring a database to the present schema: numbered plain SQL files, applied by yoyo, one at a time.

An advisory lock on a connection of its own makes it safe from two machines at once; unlike yoyo's own lock table it
goes with the process that holds it, however that dies. Each migration waits for table locks only briefly, so that it
fails rather than stand in front of the traffic; and each works with the code before it.
"""

import logging
import warnings
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg

from models.platform.errors import ConfigurationError, Unavailable

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "migrations"

#: Any number will do, as long as nobody else takes it: the first eight letters of "sangha m".
LOCK = 0x73616E676861206D

#: What a migration may wait for a table's lock, and take in all.
OPTIONS = "-c lock_timeout=5s -c statement_timeout=300s -c client_min_messages=warning"


def migrate(dsn: str) -> list[str]:
    """Apply what is missing, in order, and return the names of what was applied.

    Raises ConfigurationError when the database can't be reached or has no pgvector.
    """
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as guard:
            guard.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            return _apply(dsn)
    except psycopg.OperationalError as error:
        raise Unavailable(f"The database does not answer: {str(error).splitlines()[0]}") from error
    except psycopg.errors.UndefinedFile as error:
        raise ConfigurationError(f"The database has no pgvector extension to load: {error}") from error


def pending_migrations(dsn: str) -> list[str]:
    """The names of the migrations that the database lacks."""
    backend, missing = _open(dsn)
    with backend:
        return [migration.id for migration in missing]


def _apply(dsn: str) -> list[str]:
    backend, missing = _open(dsn)
    with backend:
        for migration in missing:
            log.info("applying migration %s", migration.id)
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
    """The DSN with yoyo's name for psycopg 3 and the limits of a migration."""
    parts = urlsplit(dsn)
    query = urlencode([*parse_qsl(parts.query), ("options", OPTIONS)])
    return urlunsplit(("postgresql+psycopg", parts.netloc, parts.path, query, ""))
