"""Look at the windows of lanes during a run: no lane has more jobs of a queue in flight than threads serve it."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from bench.chaos.violations import Violation
from models.jobs.windows import SMALLEST_WINDOW
from models.platform.database import Connection, Database, fetch_all
from models.platform.errors import Unavailable

# A worker that died, and one that replaces it, count for their leases: the bound is loose while workers are killed.
# Read for all queues, also those without a job: the relay goes by what it has read a moment before it publishes.
THREADS = """
SELECT key AS queue, sum(value::int)::int AS threads FROM workers, jsonb_each_text(queue_threads) GROUP BY key
"""

IN_FLIGHT = """
SELECT queue, coalesce(lane, account_id) AS lane, count(*)::int AS jobs FROM jobs
WHERE kind = 'turn.run' AND published_at IS NOT NULL AND state IN ('queued', 'running') AND account_id <> 'platform'
GROUP BY queue, coalesce(lane, account_id)
"""


class WindowWatch:
    """The most jobs of a lane that were in flight in each queue, and the most threads that served it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: dict[tuple[str, str], int] = {}
        self._threads: dict[str, int] = {}
        self._seen_at: dict[tuple[str, str], datetime] = {}

    def look(self) -> None:
        """Read all lanes, unless Postgres is unavailable."""
        with contextlib.suppress(Unavailable), self._database.connection() as connection:
            self.read(connection)

    def read(self, connection: Connection) -> None:
        """Read the threads of all queues, and all lanes."""
        for row in fetch_all(connection, THREADS):
            self._threads[row["queue"]] = max(self._threads.get(row["queue"], 0), row["threads"])
        for row in fetch_all(connection, IN_FLIGHT):
            lane = row["queue"], row["lane"]
            if row["jobs"] > self._jobs.get(lane, 0):
                self._jobs[lane], self._seen_at[lane] = row["jobs"], datetime.now(UTC)

    def check(self, *, lost_marks: bool = False) -> Iterator[Violation]:
        """Report the lanes that had more jobs in flight than threads ever served their queue.

        lost_marks  the marks of what was published were lost: a promoted standby lacks the last commits, or a worker
                    has died, whose queues' marks are removed. At most a window of messages is then claimed beside
                    what is published again.
        """
        for (queue, lane), jobs in self._jobs.items():
            threads = max(self._threads.get(queue, 0), SMALLEST_WINDOW)
            if jobs > threads * (2 if lost_marks else 1):
                seen = f"{self._seen_at[queue, lane]:%H:%M:%S}"
                message = f"{jobs} jobs were in flight at {seen}, for {threads} threads"
                yield Violation("window", f"{lane} in {queue}", message)
