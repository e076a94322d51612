"""Which versions of the code the database has to work with, and when an upgrade is final.

During a rolling deploy processes of two versions run, and after a rollback the earlier one alone. So a version reads a
new format from its first start, but writes it only once the upgrade is *finalized*: no earlier version may return. The
oldest version that works with the database is `schema_compatibility.oldest_code`. It is raised a day after the last
process of an earlier version was seen, by `sangha migrate --finalize`, or at once in a new database.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from models.platform.database import Connection, Database, fetch_all, fetch_one
from models.platform.errors import ConfigurationError
from models.platform.migration_files import FIRST_VERSION, schema_version

#: Seconds without a process of an earlier version after which the scheduler finalizes an upgrade: time to roll back.
ROLLBACK_TIME = 86_400.0

#: Seconds between two looks of a process at whether the upgrade has been finalized.
REFRESH_INTERVAL = 30.0

#: Names of connections: with a schema version, and those of versions that did not state it.
VERSIONED = re.compile(r"sangha/(?P<version>\d{4}) (?P<name>.+)")
UNVERSIONED = re.compile(r"(?:sangha )?(?P<name>web|scheduler|worker .+|dead-worker-releaser)")

CONNECTIONS = "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database()"

HAS_TABLE = "SELECT to_regclass('schema_compatibility') IS NOT NULL AS has_table"

OLDEST_CODE = "SELECT oldest_code FROM schema_compatibility"

OLDER_SEEN = "UPDATE schema_compatibility SET older_seen_at = now()"

FINALIZE = "UPDATE schema_compatibility SET oldest_code = greatest(oldest_code, %(version)s)"

FINALIZE_WHEN_DUE = f"""
{FINALIZE}
WHERE oldest_code < %(version)s AND older_seen_at < now() - make_interval(secs => %(rollback_time)s)
"""


@dataclass(frozen=True, slots=True)
class Process:
    """Processes with connections of this name, and their schema version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def running_processes(connection: Connection) -> set[Process]:
    """Return the processes that are connected. Behind a pooler a process is, only while it uses its connection."""
    return set(filter(None, (_process(row["name"]) for row in fetch_all(connection, CONNECTIONS))))


def _process(name: str) -> Process | None:
    """Parse the name of a connection; None if it belongs to no process of ours."""
    if versioned := VERSIONED.fullmatch(name):
        return Process(versioned["name"], versioned["version"])
    unversioned = UNVERSIONED.fullmatch(name)
    return Process(unversioned["name"], FIRST_VERSION) if unversioned else None


def join_names(processes: Iterable[Process]) -> str:
    """Return the processes as text, in the order of their names."""
    return ", ".join(sorted(map(str, processes)))


def oldest_code(connection: Connection) -> str:
    """Return the oldest schema version that works with the database."""
    row = fetch_one(connection, OLDEST_CODE) if _has_table(connection) else None
    return str(row["oldest_code"]) if row else FIRST_VERSION


def _has_table(connection: Connection) -> bool:
    row = fetch_one(connection, HAS_TABLE)
    return bool(row and row["has_table"])


def finalize(connection: Connection) -> None:
    """Finalize the upgrade to this version. Raises ConfigurationError if an earlier version runs."""
    earlier = [process for process in running_processes(connection) if process.version < schema_version()]
    if earlier:
        raise ConfigurationError(f"{join_names(earlier)} would not work with a finalized {schema_version()}: stop them")
    if _has_table(connection):
        connection.execute(FINALIZE, {"version": schema_version()})


def finalize_when_due(connection: Connection) -> bool:
    """Finalize the upgrade to this version if no earlier one has run for ROLLBACK_TIME. Returns whether it did now.

    Call it about once a minute: it also stores when an earlier version was seen.
    """
    if any(process.version < schema_version() for process in running_processes(connection)):
        connection.execute(OLDER_SEEN)
        return False
    due = {"version": schema_version(), "rollback_time": ROLLBACK_TIME}
    return connection.execute(FINALIZE_WHEN_DUE, due).rowcount > 0


EARLIER_SEEN = "SELECT older_seen_at > now() - make_interval(days => %(days)s) AS seen FROM schema_compatibility"


def earlier_seen(connection: Connection, days: int) -> bool:
    """Return whether a process of an earlier version has run within the last days."""
    row = fetch_one(connection, EARLIER_SEEN, {"days": days})
    return bool(row and row["seen"])


class Compatibility:
    """What a process may write. One for each process; threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._oldest = FIRST_VERSION
        self._refresh_at = 0.0

    def at_least(self, version: str) -> bool:
        """Return whether no code older than this schema version has to work with what is written now.

        Once true it stays so. Until then it costs a statement every REFRESH_INTERVAL. Raises Unavailable.
        """
        if self._oldest < version and time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + REFRESH_INTERVAL
            with self._database.connection() as connection:
                self._oldest = oldest_code(connection)
        return self._oldest >= version
