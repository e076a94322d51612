"""The checker: goes through all that the clients heard and through every table, and tells which promises were broken.

What it can't judge it counts: jobs that ended dead because their workers died under them again and again are what the
platform promises for such jobs, and stand in `casualties`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.chaos import heard, remembered, tables
from bench.chaos.calm import Control, calmed
from bench.chaos.faults import Struck
from bench.chaos.transcripts import Transcript
from bench.chaos.violations import Violation
from models.jobs.catalogue import CATALOGUE
from models.platform.database import Connection, Database, fetch_all
from models.platform.settings import Settings

#: Faults after which the journal's store has lost what it held.
FORGETTING = frozenset({"wipe-valkey", "wipe-with-worker"})

# Jobs of all accounts that were given up.
DEAD = "SELECT id, kind, failures, crashes, error, right(traceback, 400) AS traceback FROM jobs WHERE state = 'dead'"


def check(
    transcripts: Sequence[Transcript],
    settings: Settings,
    patience: float,
    *,
    struck: Sequence[Struck] = (),
    control: Control | None = None,
) -> Sequence[Violation]:
    """All that is wrong, once the platform is calm or so many seconds are over.

    settings  of the servers themselves, past what the adversary put before them
    control   the broker's `rabbitmqctl`: without it nobody can tell what its consumers hold
    """
    database = Database(settings.postgres_dsn, size=2, name="checker")
    try:
        return list(_violations(database, transcripts, settings, patience, struck, control))
    finally:
        database.close()


def _violations(
    database: Database,
    transcripts: Sequence[Transcript],
    settings: Settings,
    patience: float,
    struck: Sequence[Struck],
    control: Control | None,
) -> Iterator[Violation]:
    yield from calmed(database, settings, patience, control)
    forgot = any(each.name in FORGETTING for each in struck)
    for transcript in transcripts:
        yield from heard.judged(transcript, forgot=forgot)
    accounts = sorted({transcript.account for transcript in transcripts})
    with database.connection() as connection:
        yield from tables.judged(connection, transcripts, accounts)
        yield from remembered.judged(connection, transcripts, accounts)
        yield from given_up(connection)


def given_up(connection: Connection) -> Iterator[Violation]:
    """No job is dead but one whose workers died as often as its kind allows."""
    for row in fetch_all(connection, DEAD):
        if row["crashes"] < CATALOGUE[row["kind"]].attempts:
            detail = f"{row['failures']} failures, {row['crashes']} of them crashes: {row['error']} {row['traceback']}"
            yield Violation("dead", f"{row['kind']} {row['id']}", detail)


def casualties(settings: Settings) -> Mapping[str, int]:
    """Dead jobs by kind, whatever they died of."""
    database = Database(settings.postgres_dsn, size=1, name="checker")
    try:
        with database.connection() as connection:
            return Counter(row["kind"] for row in fetch_all(connection, DEAD))
    finally:
        database.close()
