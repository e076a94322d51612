"""Gauges that every process has: its version, and its connections to Postgres."""

import importlib.metadata
import os
from collections.abc import Sequence

from models.platform import metrics
from models.platform.database import Database
from models.platform.exposition import Exposition, Values

#: Set by the image.
COMMIT = "SANGHA_COMMIT"


def install(exposition: Exposition, databases: Sequence[Database] = ()) -> None:
    """Register the gauges."""
    exposition.read(metrics.BUILD_INFO, build_info)
    if databases:
        exposition.read(metrics.DATABASE_POOL_CONNECTIONS, lambda: pool_connections(databases))
        exposition.read(metrics.DATABASE_POOL_WAITING, lambda: pool_waiting(databases))


def build_info() -> Values:
    """Return 1 for the version and the commit of the code; a commit that is not known is empty."""
    try:
        version = importlib.metadata.version("sangha")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return {(version, os.environ.get(COMMIT, "")): 1.0}


def pool_connections(databases: Sequence[Database]) -> Values:
    """Return the connections by pool and state."""
    return {
        (database.name, state): float(count)
        for database in databases
        for size in [database.pool_size()]
        for state, count in (("busy", size.busy), ("idle", size.idle))
    }


def pool_waiting(databases: Sequence[Database]) -> Values:
    """Return the waiting threads by pool."""
    return {(database.name,): float(database.pool_size().waiting) for database in databases}
