"""Check all that the clients received, and every table, and report the violated guarantees."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from bench.chaos import memory_rules, stream_rules, table_rules
from bench.chaos.faults import InjectedFault
from bench.chaos.quiescence import RabbitmqCtl, wait_for_quiescence
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from models.jobs.catalogue import CATALOGUE
from models.platform.database import Connection, Database, fetch_all
from models.platform.settings import Settings

#: Faults that delete the journal.
JOURNAL_LOSSES = frozenset({"wipe-valkey", "wipe-with-worker"})

DEAD = "SELECT id, kind, failures, crashes, error, right(traceback, 400) AS traceback FROM jobs WHERE state = 'dead'"


def check(
    transcripts: Sequence[ClientTranscript],
    settings: Settings,
    patience: float,
    *,
    injected: Sequence[InjectedFault] = (),
    rabbitmqctl: RabbitmqCtl | None = None,
) -> Sequence[Violation]:
    """Wait until the platform is idle, for `patience` seconds at most, and report all violations.

    settings  lead to the servers directly, not through links
    """
    with closing(Database(settings.postgres_dsn, size=2, name="checker")) as database:
        return [
            *wait_for_quiescence(database, settings, patience, rabbitmqctl),
            *_check(database, transcripts, journal_lost=any(each.name in JOURNAL_LOSSES for each in injected)),
        ]


def _check(database: Database, transcripts: Sequence[ClientTranscript], *, journal_lost: bool) -> Iterator[Violation]:
    for transcript in transcripts:
        yield from stream_rules.check(transcript, journal_lost=journal_lost)
    accounts = sorted({transcript.account for transcript in transcripts})
    with database.connection() as connection:
        yield from table_rules.check(connection, transcripts, accounts)
        yield from memory_rules.check(connection, transcripts, accounts)
        yield from check_dead_jobs(connection)


def check_dead_jobs(connection: Connection) -> Iterator[Violation]:
    """Check that no job is dead, except one whose workers crashed as often as its kind allows."""
    for row in fetch_all(connection, DEAD):
        if row["crashes"] < CATALOGUE[row["kind"]].attempts:
            detail = f"{row['failures']} failures, {row['crashes']} of them crashes: {row['error']} {row['traceback']}"
            yield Violation("dead", f"{row['kind']} {row['id']}", detail)
