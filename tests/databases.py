"""Databases for single tests, on the session's server."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.migrate import migrate
from ops.embedded_servers import Postgres


@contextmanager
def bare_database(postgres: Postgres) -> Iterator[str]:
    """Create a database without a schema and yield its DSN; it is dropped at the end, with its open sessions."""
    name = new_id("test")
    with psycopg.connect(postgres.dsn, autocommit=True, dbname="postgres") as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield postgres.dsn.replace("/sangha?", f"/{name}?")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def new_database(postgres: Postgres, *, durable: bool = True) -> Iterator[Database]:
    """Create an empty database with the current schema; without `durable`, commits do not wait for the disk."""
    with bare_database(postgres) as dsn:
        migrate(dsn)
        if not durable:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = off")
        database = Database(dsn)
        try:
            yield database
        finally:
            database.close()
