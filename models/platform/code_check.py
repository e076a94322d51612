"""Check that this code works with the database: a later version may have finalized an upgrade that excludes it."""

import logging
import time

import psycopg
from psycopg.rows import dict_row

from models.platform.compatibility import REFRESH_INTERVAL, oldest_code
from models.platform.database import Connection
from models.platform.errors import ConfigurationError
from models.platform.migration_files import schema_version

log = logging.getLogger(__name__)

#: Seconds to wait for a connection at the start of a process.
TIMEOUT = 5


def check_code(connection: Connection) -> None:
    """Raise ConfigurationError if the database needs a later version than this one."""
    oldest = oldest_code(connection)
    if oldest > schema_version():
        raise ConfigurationError(
            f"The database needs schema version {oldest} or later, and this release has {schema_version()}: "
            "install a later release."
        )


def check_code_at_start(dsn: str) -> None:
    """Raise ConfigurationError if the database needs a later version.

    Does nothing while the database cannot be reached: a process may be started before it.
    """
    try:
        with Connection.connect(dsn, autocommit=True, row_factory=dict_row, connect_timeout=TIMEOUT) as connection:
            check_code(connection)
    except psycopg.OperationalError:
        return


class OutdatedWarning:
    """Logs once that a running process is too old for the database. It stops nothing: it is about to be replaced."""

    def __init__(self) -> None:
        self._look_at = 0.0

    def look(self, connection: Connection) -> None:
        """Look at most every REFRESH_INTERVAL, until the warning has been logged."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + REFRESH_INTERVAL
        try:
            check_code(connection)
        except ConfigurationError as error:
            log.error("This process has to be replaced: %s", error)
            self._look_at = float("inf")
