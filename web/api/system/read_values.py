"""Read the values of a gauge from the database."""

import logging
from collections.abc import Callable

import psycopg

from models.platform.database import Connection, Database
from models.platform.errors import Unavailable
from models.platform.exposition import Values

log = logging.getLogger(__name__)


def read_values(database: Database, read: Callable[[Connection], Values], name: str) -> Values:
    """Read the values of a gauge of this name; none while Postgres is down, so that the other metrics are served."""
    try:
        with database.connection() as connection:
            return read(connection)
    except (Unavailable, psycopg.Error) as error:
        log.warning("Cannot read %s: %s", name, error)
        return {}
