"""Rules about the metrics of promises: they are 0 after a run, since its rows keep what is promised."""

from collections.abc import Iterator

from bench.chaos.violations import Violation
from models.platform.database import Database, fetch_all
from models.reports.promises import check_all


def check(database: Database) -> Iterator[Violation]:
    """Check the promises as schedulers do, without their grace: everything has ended."""
    check_all(database, grace=0, interval=0)
    with database.connection() as connection:
        for row in fetch_all(connection, "SELECT promise, unnest(breaches) AS subject FROM promise_checks"):
            yield Violation("promise", row["subject"], f"breaks the promise of no {row['promise'].replace('_', ' ')}")
