"""Rows of jobs in bulk: copies of rows that the platform wrote itself, so that they have whatever its tables require.

For measurements only: rows are copied without checking foreign keys, and removed by truncation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from models.jobs.ended_jobs import move_batch
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id

#: Rows that one statement copies.
CHUNK = 50_000

#: Accounts that share ended jobs, and the seconds over which their ends are spread. The copied job's account is one.
ENDED_ACCOUNTS, ENDED_WITHIN = 1_000, 40 * 3_600

#: Bytes that a row of `jobs` takes with its entries in all indexes, and one of `ended_jobs` without events, about.
JOB_BYTES, MOVED_BYTES = 1_500, 900

#: How long ago the job ended that is moved to be copied in `ended_jobs`.
LONG_AGO = "interval '3 days'"

#: Called with the number of rows copied so far.
OnProgress = Callable[[int], None]

#: SQL for the columns of a copy that differ from its source, by name. `number` is the copy's, `source` the copied row.
Expressions = Mapping[str, str]

# The columns of a table that an INSERT may name; each row draws its own sequence number.
COLUMNS = """
SELECT column_name AS name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %(table)s AND is_generated = 'NEVER'
  AND column_name <> 'sequence'
"""

COPY = """
INSERT INTO {table} ({names})
SELECT {values} FROM generate_series({first}, {last}) AS number, {table} AS source WHERE source.{key} = '{job_id}'
"""


def copied_id(prefix: str, number: str = "number") -> str:
    """Return SQL for the id of a copy, which is smaller than any id of the platform's own rows."""
    return f"'{prefix}_00' || lpad(to_hex({number}), 30, '0')"


def moved_id() -> str:
    """Return the id of the copy that is moved."""
    return f"job_00{MOVED:030x}"


JOB_ID, ACCOUNT_ID = copied_id("job"), copied_id("acct")

AGE = f"make_interval(secs => number % {ENDED_WITHIN})"

ENDED_JOB: Expressions = {
    "id": JOB_ID,
    "account_id": f"CASE number % {ENDED_ACCOUNTS} WHEN 0 THEN source.account_id "
    f"ELSE {copied_id('acct', f'number % {ENDED_ACCOUNTS}')} END",
    "created_at": f"source.created_at - {AGE}",
    "started_at": f"source.started_at - {AGE}",
    "finished_at": f"source.finished_at - {AGE}",
}

#: The tables of an ended turn beside `jobs` and `ended_jobs`.
DETAILS: Mapping[str, Expressions] = {
    "job_events": {"job_id": JOB_ID},
    "responses": {"id": copied_id("resp"), "job_id": JOB_ID},
    "usage_records": {"job_id": JOB_ID},
}

#: What a row of `ended_jobs` without events has.
WITHOUT_EVENTS: Expressions = {"events": "NULL", "last_sequence": "-1", "tokens": "0"}

#: The number of the copy that is moved.
MOVED = 0


@dataclass(frozen=True, slots=True)
class EndedTurns:
    """Numbers of copies of an ended turn.

    recent    in `jobs`
    moved     in `ended_jobs`
    detailed  those of the moved ones, and at most as many recent ones, that have events, a response and a bill as well
    """

    recent: int
    moved: int
    detailed: int


class JobRows:
    """Copies rows of jobs over a connection of its own."""

    def __init__(self, connection: Connection, on_progress: OnProgress = lambda number: None) -> None:
        self._connection = connection
        self._on_progress = on_progress

    def spread(self, kind: str, rows: int, accounts: int, delay: timedelta = timedelta()) -> None:
        """Insert jobs that are due after a delay, spread over so many accounts."""
        self._create_accounts(accounts)
        template = self._enqueue(kind, PLATFORM_ACCOUNT, run_at=datetime.now(UTC) + delay)
        account = copied_id("acct", f"1 + number % {accounts}")
        self._copy("jobs", template, {"id": JOB_ID, "account_id": account}, rows)

    def block(self, kind: str, conversations: int, rows: int) -> None:
        """Insert jobs of one account behind an unfinished one of their conversation, `rows` in each conversation."""
        self._create_accounts(1)
        account_id = f"acct_00{1:030x}"
        for number in range(conversations):
            serial_key = new_id("conv")
            head = self._enqueue(kind, account_id, serial_key=serial_key)
            self._execute(f"UPDATE jobs SET state = 'waiting', pending_children = 1 WHERE id = '{head}'")
            template = self._enqueue(kind, account_id, serial_key=serial_key)
            self._copy("jobs", template, {"id": copied_id("job", f"number + {number * rows}")}, rows)

    def end(self, job_id: str, turns: EndedTurns) -> None:
        """Copy an ended turn so many times, the moved ones as the platform moves them."""
        self._create_accounts(ENDED_ACCOUNTS)
        self._move_copy(job_id)
        detailed = min(turns.recent, turns.detailed)
        self._copy("jobs", job_id, ENDED_JOB, turns.recent)
        for table, expressions in DETAILS.items():
            self._copy(table, job_id, expressions, detailed)
        first, moved = turns.recent + 1, moved_id()
        for table in ("responses", "usage_records"):
            self._copy(table, job_id, DETAILS[table], turns.detailed, first)
        self._copy("ended_jobs", moved, ENDED_JOB, turns.detailed, first)
        self._copy("ended_jobs", moved, {**ENDED_JOB, **WITHOUT_EVENTS}, turns.moved - turns.detailed,
                   first + turns.detailed)  # fmt: skip

    def _move_copy(self, job_id: str) -> None:
        """Move a copy of the turn to `ended_jobs`."""
        aged = {"id": JOB_ID, "finished_at": f"source.finished_at - {LONG_AGO}"}
        self._copy("jobs", job_id, aged, 1, MOVED)
        self._copy("job_events", job_id, DETAILS["job_events"], 1, MOVED)
        with self._connection.transaction():
            self._execute("SET LOCAL session_replication_role = origin")  # deletes its events by cascade
            move_batch(self._connection, 1)

    def detail_bytes(self, job_id: str) -> int:
        """Return how many bytes an ended turn takes beside its row of `jobs`, about, entries in indexes included."""
        sizes = [self._size(table, job_id) for table in DETAILS]
        return sum(sizes) * 3 // 2

    def analyse(self) -> None:
        """Refresh the planner's statistics of the filled tables, as autovacuum does after a while.

        Without those of `accounts`, each request would read them all: its statement was planned when there were few.
        """
        for table in ("accounts", "jobs", "ended_jobs", *DETAILS):
            self._execute(f"VACUUM ANALYZE {table}")

    def clear(self) -> None:
        """Remove all jobs, whatever refers to them, and the accounts of copies. Call it while no job is running."""
        self._execute("TRUNCATE jobs, ended_jobs, responses CASCADE")
        self._execute("DELETE FROM accounts WHERE name = 'copied'")
        self.analyse()

    def _create_accounts(self, count: int) -> None:
        self._execute(
            f"INSERT INTO accounts (id, name) SELECT {ACCOUNT_ID}, 'copied' FROM generate_series(1, {count}) AS number "
            "ON CONFLICT DO NOTHING"
        )

    def _enqueue(self, kind: str, account_id: str, **options: Any) -> str:
        job = NewJob(kind, account_id, **options)
        with self._connection.transaction():
            enqueue(self._connection, job)
        return job.id

    def _copy(self, table: str, job_id: str, expressions: Expressions, rows: int, first: int = 1) -> None:
        """Copy the rows of a job in a table; the copies are numbered from `first`."""
        names: Sequence[str] = [row["name"] for row in fetch_all(self._connection, COLUMNS, {"table": table})]
        parts = {
            "table": table, "names": ", ".join(names), "job_id": job_id, "key": "job_id" if table in DETAILS else "id",
            "values": ", ".join(expressions.get(name, f"source.{name}") for name in names),
        }  # fmt: skip
        for done in range(0, rows, CHUNK):
            last = first + min(rows, done + CHUNK) - 1
            self._execute(COPY.format(first=first + done, last=last, **parts))
            self._on_progress(last)

    def _size(self, table: str, job_id: str) -> int:
        row = fetch_one(
            self._connection, f"SELECT coalesce(sum(pg_column_size(t.*)), 0)::int AS size FROM {table} AS t "
            "WHERE job_id = %(job_id)s", {"job_id": job_id},
        )  # fmt: skip
        return int(row["size"]) if row else 0

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())


@contextmanager
def job_rows(dsn: str, on_progress: OnProgress = lambda number: None) -> Iterator[JobRows]:
    """Open the connection until the end of the block, and clear the tables."""
    options = "-c session_replication_role=replica -c synchronous_commit=off -c lock_timeout=60s"
    with Connection.connect(dsn, autocommit=True, row_factory=dict_row, options=options) as connection:
        rows = JobRows(connection, on_progress)
        try:
            yield rows
        finally:
            rows.clear()
