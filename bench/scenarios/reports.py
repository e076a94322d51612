"""A month's report over a million turns: from the sums of quarter hours, beside one that adds up the records.

And what the roll-ups cost a turn's end: the statement that stores its usage with the index of changed records, and
without it, in rounds of one run.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from bench.figures import Figure, at_most
from bench.harness.sse import CheckFailed
from bench.scenario import Bench
from models.jobs.usage import TokenUsage, UsageSource, bill
from models.platform.database import Connection, Database, fetch_all
from models.platform.ids import new_id
from pipelines.reporting import update_rollups
from pipelines.reporting.build_report import build_report
from pipelines.reporting.report_request import ReportRequest

TURNS = 1_000_000

ACCOUNT = "acct_of_reports"

#: Turns end in October, every 2.7 seconds, by 50 users with a key each, with three models.
BEGIN, END = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)

INSERT = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, billed_amount,
                           billed_currency, billed_user_id, billed_key_id, usage_kind, usage_class, queue_seconds,
                           first_token_seconds, tokens_per_second, created_at, changed_in)
SELECT 'job_of_reports_' || number, %(account_id)s, 'model-' || number %% 3, number %% 4000, number %% 100,
       number %% 700, number %% 1000 * 0.000001, 'eur', 'user_' || number %% 50, 'key_' || number %% 50, 'turn.run',
       'standard', random(), 1 + random(), 20 + 80 * random(),
       %(begin)s::timestamptz + number * (%(end)s::timestamptz - %(begin)s) / %(turns)s, '0'
FROM generate_series(0, %(turns)s - 1) AS number
"""

BRUTE_FORCE = """
SELECT date_trunc('day', created_at AT TIME ZONE 'Europe/Berlin') AS day, billed_user_id, billed_currency, count(*),
       sum(input_tokens)::bigint AS input_tokens, sum(cached_tokens)::bigint AS cached_tokens,
       sum(output_tokens)::bigint AS output_tokens, sum(billed_amount) AS amount
FROM usage_records WHERE account_id = %(account_id)s AND created_at >= %(begin)s AND created_at < %(end)s
GROUP BY 1, 2, 3
"""

CHANGE = """
UPDATE usage_records SET input_tokens = input_tokens + 1
WHERE job_id IN (SELECT 'job_of_reports_' || number * 997 FROM generate_series(1, 1000) AS number)
"""

PARAMETERS = {"account_id": ACCOUNT, "begin": BEGIN, "end": END, "turns": TURNS}

DAYS = ReportRequest("usage", BEGIN, END, "Europe/Berlin", "day", ("user",), account_id=ACCOUNT)
MONTH = ReportRequest("usage", BEGIN, END, group_by=("model",), account_id=ACCOUNT)
LATENCY = ReportRequest("latency", BEGIN, END, interval="day", account_id=ACCOUNT)

ROUNDS, ENDS = 8, 400

DROP = "DROP INDEX usage_records_changed_in"
CREATE = "CREATE INDEX usage_records_changed_in ON usage_records (changed_in)"


def reports(bench: Bench) -> Sequence[Figure]:
    """Measure reports and their roll-ups. Raises CheckFailed if a report differs from the sum over the records."""
    with (
        bench.stack.platform(engine="scripted", script="tokens=1,rate=0") as platform,
        closing(Database(platform.settings.postgres_dsn, size=2, name="bench")) as database,
    ):
        bench.progress.step(0, 3, "a million usage records")
        insert(database)
        bench.progress.step(1, 3, "reports")
        figures = measure(database)
        bench.progress.step(2, 3, "ends of turns")
        return [*figures, *cost_of_ends(database)]


def insert(database: Database) -> None:
    """Insert the records, as from before the roll-ups."""
    with database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'reports')", (ACCOUNT,))
        connection.execute(INSERT, PARAMETERS)
        connection.execute("ANALYZE usage_records")
        connection.execute("UPDATE usage_quarters_state SET counted_accounts = ''")


def measure(database: Database) -> list[Figure]:
    """Measure reports before and after the roll-ups exist, and after a thousand late changes."""
    rows = seconds(lambda: check(database))
    summing = seconds(lambda: update_all(database))
    days = [seconds(lambda: report(database, DAYS)) for _ in range(5)]
    month = [seconds(lambda: report(database, MONTH)) for _ in range(5)]
    latency = [seconds(lambda: report(database, LATENCY)) for _ in range(5)]
    with database.connection() as connection:
        connection.execute(CHANGE)
    changed = [seconds(lambda: report(database, DAYS))]
    check(database)
    updating = [seconds(lambda: update_rollups.update(database))]
    check(database)
    return [
        Figure("a month of 1,000,000 turns by day and user", "s", days, at_most(5)),
        Figure("the same month by model", "s", month),
        Figure("its latency by day", "s", latency),
        Figure("by day and user, from the records, and added up beside", "s", [rows]),
        Figure("by day and user, after 1,000 late changes", "s", changed),
        Figure("roll-ups of these changes", "s", updating),
        Figure("roll-ups of all 1,000,000 turns", "s", [summing]),
    ]


def seconds(work: Callable[[], Any]) -> float:
    """Return how long a function takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def update_all(database: Database) -> None:
    """Sum up all accounts."""
    update_rollups.update(database)
    while update_rollups.update_next_account(database):
        pass


def report(database: Database, request: ReportRequest) -> Sequence[Sequence[Any]]:
    """Return the rows of a report."""
    with database.transaction() as connection:
        return build_report(connection, request).rows


def check(database: Database) -> None:
    """Raise CheckFailed unless the report by day and user equals the sum over the records."""
    with database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        table = build_report(connection, DAYS)
        expected = sorted(tuple(row.values())[1:] for row in fetch_all(connection, BRUTE_FORCE, PARAMETERS))
    if sorted(tuple(row)[1:] for row in table.rows) != expected:
        raise CheckFailed("the report differs from the sum over the records")


def cost_of_ends(database: Database) -> list[Figure]:
    """Measure the statement that stores a turn's usage, with the index of changed records and without it."""
    indexed, plain = [], []
    with database.connection() as connection:
        for _ in range(ROUNDS):
            indexed.append(microseconds(connection))
            connection.execute(DROP)
            plain.append(microseconds(connection))
            connection.execute(CREATE)
    ratios = [first / second for first, second in zip(indexed, plain, strict=True)]
    return [
        Figure("storing a turn's usage", "µs", indexed),
        Figure("the same ÷ without the index of changed records", "x", ratios, at_most(1.1)),
    ]


def microseconds(connection: Connection) -> float:
    """Return how long it takes to store the usage of a turn, without waiting for the disk."""
    connection.execute("CHECKPOINT")
    end_turns(connection)  # with warm caches
    return 1e6 * seconds(lambda: end_turns(connection)) / ENDS


def end_turns(connection: Connection) -> None:
    """Store the usage of turns in one transaction, so that no disk is measured."""
    source = UsageSource(user_id="user_1", key_id="key_1", kind="turn.run", queue_seconds=0.01)
    with connection.transaction():
        for _ in range(ENDS):
            bill(connection, TokenUsage(100, 0, 20), job_id=new_id("job"), account_id=ACCOUNT, model="m", source=source)
