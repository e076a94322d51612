"""The partitions of `ended_jobs`, a week each by the time after which their jobs are deleted, created and dropped.

Creating and dropping them locks neither readers nor writers of the table out: a partition is created as a table of its
own and then attached, and detached concurrently before it is dropped.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from psycopg import sql

from models.jobs.ended_jobs import ACCOUNT_JOB_DAYS
from models.platform.database import Connection, Database, fetch_all, fetch_one

WEEK = timedelta(days=7)

#: For how long jobs are moved to partitions that exist already: their retention, and a week in which no job may run.
AHEAD = timedelta(days=ACCOUNT_JOB_DAYS) + WEEK

#: A partition is named by the Monday on which it begins, at midnight UTC.
NAME = re.compile(r"ended_jobs_(?P<monday>\d{8})")

# Two movers at once do not create the same one.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ended_jobs partitions', 0))"

CREATE = sql.SQL("""
CREATE TABLE {name} (LIKE ended_jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)
""")
ATTACH = sql.SQL("ALTER TABLE ended_jobs ATTACH PARTITION {name} FOR VALUES FROM ({begin}) TO ({end})")

# Also those that an interrupted drop has left detached, half or entirely.
LIST = """
SELECT relname AS name, inhrelid IS NOT NULL AS attached, coalesce(inhdetachpending, false) AS pending
FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE 'ended\\_jobs\\_%'
ORDER BY relname
"""

NOW = "SELECT now() AS now"

DETACH = sql.SQL("ALTER TABLE ended_jobs DETACH PARTITION {name} CONCURRENTLY")
FINALIZE = sql.SQL("ALTER TABLE ended_jobs DETACH PARTITION {name} FINALIZE")
DROP = sql.SQL("DROP TABLE {name}")


def create_missing(database: Database) -> list[str]:
    """Create the partitions from the present week on to AHEAD. Returns the names of those created."""
    with database.transaction() as connection:
        existing = set(_partitions(connection))
        missing = [monday for monday in _mondays(_now(connection)) if _name(monday) not in existing]
    return [_name(monday) for monday in missing if _create(database, monday)]


def drop_expired(database: Database) -> list[str]:
    """Drop the partitions whose jobs' time is over. Returns their names. An interrupted drop is completed."""
    with database.connection() as connection:
        today = _now(connection)
        expired = [name for name in _partitions(connection) if _end(name) <= today]
        for name in expired:
            _drop(connection, name)
    return expired


def _create(database: Database, monday: date) -> bool:
    name = _name(monday)
    with database.transaction() as connection:
        connection.execute(LOCK)
        if name in _partitions(connection):
            return False
        bounds = {"begin": sql.Literal(_midnight(monday)), "end": sql.Literal(_midnight(monday + WEEK))}
        connection.execute(CREATE.format(name=sql.Identifier(name)))
        connection.execute(ATTACH.format(name=sql.Identifier(name), **bounds))
    return True


def _drop(connection: Connection, name: str) -> None:
    """Detach a partition and drop it, each by itself. Needs a connection in autocommit."""
    identifier, state = sql.Identifier(name), _partitions(connection)[name]
    if state["pending"]:
        connection.execute(FINALIZE.format(name=identifier))
    elif state["attached"]:
        connection.execute(DETACH.format(name=identifier))
    connection.execute(DROP.format(name=identifier))


def _partitions(connection: Connection) -> dict[str, dict[str, bool]]:
    """Return the weekly partitions by name, with the state of each."""
    return {row["name"]: row for row in fetch_all(connection, LIST) if NAME.fullmatch(row["name"])}


def _now(connection: Connection) -> datetime:
    row = fetch_one(connection, NOW)
    assert row is not None
    now: datetime = row["now"]
    return now.astimezone(UTC)


def _mondays(now: datetime) -> Iterator[date]:
    monday = now.date() - timedelta(days=now.weekday())
    while monday <= (now + AHEAD).date():
        yield monday
        monday += WEEK


def _name(monday: date) -> str:
    return f"ended_jobs_{monday:%Y%m%d}"


def _end(name: str) -> datetime:
    match = NAME.fullmatch(name)
    assert match is not None
    return _midnight(datetime.strptime(match["monday"], "%Y%m%d").replace(tzinfo=UTC).date() + WEEK)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
