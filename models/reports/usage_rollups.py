"""Sums of the usage records by quarter of an hour, kept exact while records change.

Every transaction that changes a record marks it with its number. An update sums up the quarter hours of an account that
have a record marked by the watermark or later, and moves the watermark to the oldest transaction that had not ended:
whatever was marked before was visible. A report reads the sums of the other quarter hours, and the records of these, in
one statement and so in one snapshot (`usage_sums`). It equals the sum over the records at any time, whenever and
however often updates run or die.

A restored database may number transactions anew. Then all accounts are summed up again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all, fetch_one
from models.reports.histograms import BOUNDS
from models.reports.selection import QUARTER_OF

#: What usage is grouped and filtered by.
DIMENSIONS = ("account_id", "user_id", "key_id", "agent", "model", "class", "job_kind")

QUARTER_OF_RECORD = QUARTER_OF.format(time="created_at")

#: SQL: a record's columns as those of `usage_rollups`.
RECORD = f"""account_id, {QUARTER_OF_RECORD} AS quarter, coalesce(billed_user_id, '') AS user_id,
    coalesce(billed_key_id, '') AS key_id, coalesce(billed_agent, '') AS agent, model,
    coalesce(usage_class, '') AS class, coalesce(usage_kind, '') AS job_kind"""

AMOUNTS = """coalesce(billed_currency, '') AS currency, 1 AS jobs, input_tokens, cached_tokens, output_tokens,
    coalesce(billed_amount, 0) AS amount"""

#: SQL: the measures of a record, and their buckets. Without a value there is no row.
MEASURES = """CROSS JOIN LATERAL (
        SELECT measure, value FROM (VALUES ('queue', queue_seconds), ('first_token', first_token_seconds),
                                           ('speed', tokens_per_second)) AS known (measure, value)
        WHERE value IS NOT NULL) AS measures"""
BUCKET = "width_bucket(value::float8, %(bounds)s::float8[])::smallint AS bucket"

#: SQL: whether the numbers of transactions are those that the watermark was taken from.
SAME_SERVER = """server = (SELECT system_identifier FROM pg_control_system())
    AND watermark <= pg_snapshot_xmax(pg_current_snapshot())"""

#: SQL: marks that an update must consider. Those above are of a server that numbered otherwise.
MARKED = "changed_in >= watermark AND changed_in < pg_snapshot_xmax(pg_current_snapshot())"

# Updates run one after the other. The state is read by another statement: the snapshot of one that has waited is older.
LOCK = "SELECT FROM rollup_state FOR UPDATE"
STATE = f"SELECT rolled_up_to, {SAME_SERVER} AS is_same FROM rollup_state"

RESTART = """
UPDATE rollup_state SET rolled_up_to = '', watermark = pg_snapshot_xmin(pg_current_snapshot()),
                        server = (SELECT system_identifier FROM pg_control_system())
"""

# A statement before the sums, so that they see at least what it has seen.
NEXT_WATERMARK = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS watermark"
MOVE_WATERMARK = "UPDATE rollup_state SET watermark = %(watermark)s::xid8"

CHANGED = f"""
SELECT DISTINCT account_id, {QUARTER_OF_RECORD} AS quarter FROM usage_records, rollup_state WHERE {MARKED}
"""

QUARTERS = "unnest(%(account_ids)s::text[], %(quarters)s::timestamptz[]) AS changed (changed_account, changed_quarter)"

DELETE = f"""
DELETE FROM {{table}} USING {QUARTERS} WHERE account_id = changed_account AND quarter = changed_quarter
"""

DELETE_ACCOUNT = "DELETE FROM {table} WHERE account_id = %(account_id)s"

TABLES = ("usage_rollups", "latency_rollups")

SUM_USAGE = f"""
INSERT INTO usage_rollups (account_id, quarter, user_id, key_id, agent, model, class, job_kind, currency, jobs,
                           input_tokens, cached_tokens, output_tokens, amount)
SELECT account_id, quarter, user_id, key_id, agent, model, class, job_kind, currency, sum(jobs), sum(input_tokens),
       sum(cached_tokens), sum(output_tokens), sum(amount)
FROM {{each}}(SELECT {RECORD}, {AMOUNTS} FROM usage_records WHERE {{condition}}) AS record
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""

SUM_LATENCY = f"""
INSERT INTO latency_rollups (account_id, quarter, user_id, key_id, agent, model, class, job_kind, measure, bucket,
                             samples)
SELECT account_id, quarter, user_id, key_id, agent, model, class, job_kind, measure, bucket, count(*)
FROM {{each}}(SELECT {RECORD}, measure, {BUCKET} FROM usage_records {MEASURES} WHERE {{condition}}) AS record
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""

# The records of each quarter hour are found by an index. OFFSET 0 keeps the planner from a join of all with all.
OF_QUARTERS = {
    "each": f"{QUARTERS} CROSS JOIN LATERAL ",
    "condition": """account_id = changed_account AND created_at >= changed_quarter
      AND created_at < changed_quarter + interval '15 minutes' OFFSET 0""",
}
OF_ACCOUNT = {"each": "", "condition": "account_id = %(account_id)s"}


@dataclass(frozen=True, slots=True)
class Changed:
    """A quarter of an hour of an account, in which records have changed."""

    account_id: str
    quarter: datetime


def update(connection: Connection) -> int:
    """Sum up the quarter hours that have changed, in the caller's transaction. Returns their number.

    The transaction must be one of READ COMMITTED, where a statement sees what was committed before it.
    """
    _lock(connection)
    row = fetch_one(connection, NEXT_WATERMARK)
    assert row is not None
    changed = [Changed(**each) for each in fetch_all(connection, CHANGED)]
    _sum_up(connection, changed)
    connection.execute(MOVE_WATERMARK, {"watermark": row["watermark"]})
    return len(changed)


def _lock(connection: Connection) -> str | None:
    """Wait for other updates. Returns up to which account sums exist; None: for all."""
    connection.execute(LOCK)
    state = fetch_one(connection, STATE)
    assert state is not None
    if not state["is_same"]:
        connection.execute(RESTART)
        return ""
    rolled_up_to: str | None = state["rolled_up_to"]
    return rolled_up_to


def _sum_up(connection: Connection, changed: Sequence[Changed]) -> None:
    parameters = {
        "account_ids": [each.account_id for each in changed],
        "quarters": [each.quarter for each in changed],
        "bounds": list(BOUNDS),
    }
    for table in TABLES:
        connection.execute(DELETE.format(table=table), parameters)
    for statement in (SUM_USAGE, SUM_LATENCY):
        connection.execute(statement.format(**OF_QUARTERS), parameters)


NEXT_ACCOUNT = """
SELECT account_id FROM usage_records WHERE account_id > %(after)s ORDER BY account_id LIMIT 1
"""

MOVE_ACCOUNT = "UPDATE rollup_state SET rolled_up_to = %(account_id)s"


def update_next_account(connection: Connection) -> bool:
    """Sum up all records of the next account that has no sums yet. Returns whether there was one.

    Records that change meanwhile have marks from the watermark on.
    """
    after = _lock(connection)
    if after is None:
        return False
    row = fetch_one(connection, NEXT_ACCOUNT, {"after": after})
    account_id = row["account_id"] if row else None
    parameters = {"account_id": account_id, "bounds": list(BOUNDS)}
    if account_id is not None:
        for table in TABLES:
            connection.execute(DELETE_ACCOUNT.format(table=table), parameters)
        for statement in (SUM_USAGE, SUM_LATENCY):
            connection.execute(statement.format(**OF_ACCOUNT), parameters)
    connection.execute(MOVE_ACCOUNT, parameters)
    return account_id is not None
