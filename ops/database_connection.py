"""The database connection of the operator's commands."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import dict_row

from models.platform.database import Connection
from models.platform.errors import ConfigurationError, Unavailable
from models.platform.settings import Settings
from ops.messages import first_line

#: Seconds to wait for a connection.
CONNECT_TIMEOUT = 5


@contextmanager
def transaction(settings: Settings) -> Iterator[Connection]:
    """Open a connection with one transaction.

    Raises Unavailable when the database cannot be reached, ConfigurationError when it lacks Sangha's tables.
    """
    try:
        with Connection.connect(
            settings.postgres_dsn, connect_timeout=CONNECT_TIMEOUT, row_factory=dict_row
        ) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise Unavailable(f"cannot connect to the database ({first_line(error)}): run `sangha doctor`") from None
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError("the database does not have Sangha's tables: run `sangha migrate`") from None
