"""Limits of connections that a pooler in transaction mode opens to Postgres.

Such a pooler refuses or ignores settings that are sent when connecting, and a SET would change some other transaction's
connection. So the limits are stored in Postgres, as defaults of the pooler's role in this database. They apply to
connections that the pooler opens afterwards.
"""

import psycopg
from psycopg import sql

from models.platform.database import LIMITS
from models.platform.errors import Unavailable
from models.platform.settings import Settings

#: Seconds to connect.
CONNECT_TIMEOUT = 5

#: Key of the advisory lock: an arbitrary number, the first eight letters of "sangha pooler".
LOCK = 0x73616E6768612070

STORE = sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {database} SET {name} = {value}")


def store_limits(settings: Settings) -> None:
    """Store the limits, if a pooler is used. Raises Unavailable."""
    if settings.database_pooler_url is None:
        return
    try:
        with _connect(settings.database_pooler_url) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))  # ALTER ROLE fails beside another one
            row = connection.execute("SELECT current_database()").fetchone()
            database = sql.Identifier(row[0] if row else "")
            for name, value in LIMITS.items():
                connection.execute(STORE.format(database=database, name=sql.Identifier(name), value=sql.Literal(value)))
    except psycopg.OperationalError as error:
        raise Unavailable(f"Cannot connect to SANGHA_DATABASE_POOLER_URL: {str(error).splitlines()[0]}") from error


def missing_limits(pooler_url: str) -> list[str]:
    """Return the limits that a connection of the pooler lacks. Raises psycopg.OperationalError."""
    with _connect(pooler_url) as connection:
        rows = {name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in LIMITS}
    return [name for name, row in rows.items() if row != (LIMITS[name],)]


def _connect(pooler_url: str) -> psycopg.Connection:
    return psycopg.connect(pooler_url, prepare_threshold=None, connect_timeout=CONNECT_TIMEOUT)
