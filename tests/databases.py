"""Databases for single tests, on the session's server.

Every table has a column that this version does not know, as after a newer version's migration. So each test also shows
that the statements it runs continue to work when a newer version adds columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from models.platform import pooler
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.migrate import migrate
from models.platform.settings import Settings
from ops.embedded_servers import Postgres
from tests.pgbouncer import PgBouncer

#: The name of the migrated database that is copied.
MIGRATED = "migrated"

ADD_COLUMNS = """
DO $$ DECLARE name regclass; BEGIN
    FOR name IN SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND relname NOT LIKE '%yoyo%'
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN {column} integer NOT NULL DEFAULT 1', name);
    END LOOP;
END $$
"""


def add_columns(dsn: str, column: str = "of_a_newer_version") -> None:
    """Add a column to every table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(ADD_COLUMNS.replace("{column}", column))


def migrate_beyond(dsn: str) -> None:
    """Migrate a database to the current schema and add the columns of a newer version."""
    migrate(dsn)
    add_columns(dsn)


def create_database(postgres: Postgres) -> str:
    """Create a database as `migrate_beyond` leaves it, and return its DSN.

    It is a copy of a database that is migrated on first use: a copy takes a tenth of a migration's time.
    """
    name = new_id("test")
    with psycopg.connect(postgres.dsn, autocommit=True, dbname="postgres") as admin:
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (MIGRATED,)).fetchone():
            admin.execute(f"CREATE DATABASE {name}")
            migrate_beyond(_dsn_of(postgres, name))
            admin.execute(f"ALTER DATABASE {name} RENAME TO {MIGRATED}")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {MIGRATED}")
    return _dsn_of(postgres, name)


@contextmanager
def bare_database(postgres: Postgres) -> Iterator[str]:
    """Create a database without a schema and yield its DSN; it is dropped at the end, with its open sessions."""
    name = new_id("test")
    with psycopg.connect(postgres.dsn, autocommit=True, dbname="postgres") as admin:
        admin.execute(f"CREATE DATABASE {name}")
    with _dropped_at_the_end(_dsn_of(postgres, name)) as dsn:
        yield dsn


def _dsn_of(postgres: Postgres, name: str) -> str:
    return postgres.dsn.replace("/sangha?", f"/{name}?")


@contextmanager
def _dropped_at_the_end(dsn: str) -> Iterator[str]:
    try:
        yield dsn
    finally:
        with psycopg.connect(dsn, autocommit=True, dbname="postgres") as admin:
            admin.execute(f"DROP DATABASE {conninfo_to_dict(dsn)['dbname']} WITH (FORCE)")


def open_database(dsn: str, pgbouncer: PgBouncer | None) -> Database:
    """Open a database, through `pgbouncer` if there is one."""
    if pgbouncer is None:
        return Database(dsn)
    pooler_url = pgbouncer.url(str(conninfo_to_dict(dsn)["dbname"]))
    pooler.store_limits(Settings(database_url=dsn, database_pooler_url=pooler_url))
    return Database(dsn, pooler=pooler_url)


@contextmanager
def new_database(postgres: Postgres, *, durable: bool = True, pgbouncer: PgBouncer | None = None) -> Iterator[Database]:
    """Create an empty database with the current schema, behind `pgbouncer` if there is one.

    Without `durable`, commits do not wait for the disk.
    """
    with _dropped_at_the_end(create_database(postgres)) as dsn:
        if not durable:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = off")
        database = open_database(dsn, pgbouncer)
        try:
            yield database
        finally:
            database.close()
