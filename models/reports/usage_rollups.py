"""Sums of the usage records by quarter of an hour, kept exact while records change.

An update adds the records that were changed since the snapshot of the update before, subtracts what they had then, and
stores its own snapshot, all in one transaction with that snapshot. So each change is counted once, and the work is
proportional to the changes. A report reads the sums and what they lack in one statement (`usage_sums`): it equals the
sum over the records at any time, whenever and however often updates run or are killed.

In a database that was restored on another server all accounts are counted again, one in a transaction.
"""

from models.platform.database import Connection, fetch_one
from models.reports.histograms import BOUNDS
from models.reports.selection import QUARTER, QUARTER_OF
from models.reports.usage_records import (
    COLUMNS,
    HISTOGRAMS,
    KEYS,
    SAME_SERVER,
    SERVER,
    SUMS,
    UNCOUNTED,
    UNSUBTRACTED,
    added,
    subtracted,
)

TABLE = "usage_quarters"

# Updates run one after the other. LOCK takes no snapshot, so that of the transaction is later than the update before.
BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
LOCK = "LOCK TABLE usage_quarters_state IN SHARE ROW EXCLUSIVE MODE"

STATE = f"SELECT counted_accounts, {SAME_SERVER} AS is_same FROM usage_quarters_state"

MOVE = f"""
UPDATE usage_quarters_state SET counted = pg_current_snapshot(), counted_on = {SERVER},
                                counted_accounts = %(counted_accounts)s
"""

#: SQL: the quarter hours that are merged: one at the end of a quarter of an hour may come in the next one.
PAST = f"quarter < {QUARTER_OF.format(time='now()')} - interval '{QUARTER}'"

_MEASURED = (*SUMS, *HISTOGRAMS)
_KEYS = ", ".join(KEYS)
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in SUMS)

# Rows are grouped twice: their amounts, and the samples of their histograms.
INSERT = f"""
WITH {{rows}}, added AS (
    SELECT {_KEYS}, {_SUMS} FROM source GROUP BY {_KEYS}
), samples AS (
    SELECT {_KEYS}, bucket, sum(count) AS count
    FROM (SELECT {_KEYS}, unnest(buckets) AS bucket, unnest(samples) AS count FROM source) AS unnested
    WHERE bucket IS NOT NULL GROUP BY {_KEYS}, bucket HAVING sum(count) <> 0
), histograms AS (
    SELECT {_KEYS}, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(count ORDER BY bucket) AS samples
    FROM samples GROUP BY {_KEYS}
)
INSERT INTO {TABLE} ({", ".join(COLUMNS)}, merged)
SELECT {_KEYS}, {", ".join(SUMS)}, coalesce(buckets, '{{{{}}}}'), coalesce(samples, '{{{{}}}}'), {PAST}
FROM added LEFT JOIN histograms USING ({_KEYS})
"""

ADD_CHANGES = INSERT.format(
    rows=f"""state AS MATERIALIZED (
    SELECT counted, counted_accounts FROM usage_quarters_state
), replaced AS (
    DELETE FROM replaced_usage
    RETURNING account_id, created_at, model, input_tokens, cached_tokens, output_tokens, billed_amount,
              billed_currency, billed_user_id, billed_key_id, billed_agent, usage_kind, usage_class, queue_seconds,
              first_token_seconds, tokens_per_second, changed_in, replaced_in
), source AS MATERIALIZED (
    SELECT {added(_MEASURED)} FROM usage_records WHERE {UNCOUNTED}
    UNION ALL
    SELECT {subtracted(_MEASURED)} FROM replaced WHERE {UNSUBTRACTED}
)"""
)

MERGE = INSERT.format(
    rows=f"""source AS (
    DELETE FROM {TABLE} WHERE NOT merged AND {PAST} RETURNING {", ".join(COLUMNS)}
)"""
)


def update(connection: Connection) -> int:
    """Add what has changed to the sums, at the start of the caller's transaction. Returns the groups that changed."""
    counted_accounts = _begin(connection)
    changed = _add_changes(connection)
    connection.execute(MOVE, {"counted_accounts": counted_accounts})
    connection.execute(MERGE)
    return changed


def _begin(connection: Connection) -> str | None:
    """Wait for other updates. Returns up to which account sums exist; None: for all."""
    connection.execute(BEGIN)
    connection.execute(LOCK)
    state = fetch_one(connection, STATE)
    assert state is not None
    if not state["is_same"]:
        connection.execute(MOVE, {"counted_accounts": ""})
        return ""
    counted_accounts: str | None = state["counted_accounts"]
    return counted_accounts


def _add_changes(connection: Connection) -> int:
    return connection.execute(ADD_CHANGES, {"bounds": list(BOUNDS)}).rowcount


NEXT_ACCOUNT = """
SELECT account_id FROM usage_records WHERE account_id > %(after)s ORDER BY account_id LIMIT 1
"""

DELETE_ACCOUNT = f"DELETE FROM {TABLE} WHERE account_id = %(account_id)s"

# The mark of a visible record is visible, unless another server has set it: then it would be counted again as soon as
# this one comes to that number.
CLEAR_FOREIGN_MARKS = """
UPDATE usage_records SET changed_in = '0'
WHERE account_id = %(account_id)s AND NOT pg_visible_in_snapshot(changed_in, pg_current_snapshot())
"""

ADD_ACCOUNT = INSERT.format(
    rows=f"""source AS NOT MATERIALIZED (
    SELECT {added(_MEASURED)} FROM usage_records WHERE account_id = %(account_id)s
)"""
)


def update_next_account(connection: Connection) -> bool:
    """Count all records of the next account that has no sums yet. Returns whether there was one. See `update`."""
    after = _begin(connection)
    if after is None:
        return False
    row = fetch_one(connection, NEXT_ACCOUNT, {"after": after})
    account_id = row["account_id"] if row else None
    _add_changes(connection)
    if account_id is not None:
        for statement in (DELETE_ACCOUNT, CLEAR_FOREIGN_MARKS, ADD_ACCOUNT):
            connection.execute(statement, {"account_id": account_id, "bounds": list(BOUNDS)})
    connection.execute(MOVE, {"counted_accounts": account_id})
    return account_id is not None
