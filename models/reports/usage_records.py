"""SQL: usage records, and what was replaced in them, as rows that are added to the sums of quarter hours.

A record has the number of the transaction that has changed it last (`changed_in`), and `usage_quarters_state` the
snapshot up to which changes are in the sums (`counted`). So a visible record is in the sums if its mark is visible in
that snapshot. What a change has replaced is kept in `replaced_usage`, to be subtracted if it is in the sums.
"""

from collections.abc import Sequence
from typing import Literal

from models.reports.histograms import MEASURES, STRIDE
from models.reports.selection import QUARTER_OF

#: What usage is grouped and filtered by.
DIMENSIONS = ("account_id", "user_id", "key_id", "agent", "model", "class", "job_kind")

#: The columns by which sums are grouped, and those that are added up.
KEYS = ("account_id", "quarter", *DIMENSIONS[1:], "currency")
SUMS = ("jobs", "input_tokens", "cached_tokens", "output_tokens", "amount")

#: The columns of histograms, and all columns of `usage_quarters` that a record becomes.
HISTOGRAMS = ("buckets", "samples")
COLUMNS = (*KEYS, *SUMS, *HISTOGRAMS)

_GROUP = f"""account_id, {QUARTER_OF.format(time="created_at")} AS quarter, coalesce(billed_user_id, '') AS user_id,
    coalesce(billed_key_id, '') AS key_id, coalesce(billed_agent, '') AS agent, model,
    coalesce(usage_class, '') AS class, coalesce(usage_kind, '') AS job_kind,
    coalesce(billed_currency, '') AS currency"""

_BUCKETS = ", ".join(
    f"({number * STRIDE} + width_bucket({column}::float8, %(bounds)s::float8[]))::smallint"
    for number, column in enumerate(MEASURES.values())
)


def _row(sign: Literal[1, -1]) -> dict[str, str]:
    """Return SQL by the name of a column: a record as a row to add or to subtract.

    It has a sample in the bucket of each measure. Without a value the bucket is null.
    """
    samples = ", ".join(f"{sign}" for _ in MEASURES)
    return {
        "jobs": f"{sign}",
        **{name: f"{sign} * {name}" for name in ("input_tokens", "cached_tokens", "output_tokens")},
        "amount": f"{sign} * coalesce(billed_amount, 0)",
        "buckets": f"ARRAY[{_BUCKETS}]",
        "samples": f"ARRAY[{samples}]::bigint[]",
    }


def _expressions(sign: Literal[1, -1], columns: Sequence[str]) -> str:
    row = _row(sign)
    return ", ".join([_GROUP, *(f"{row[name]} AS {name}" for name in columns)])


def added(columns: Sequence[str]) -> str:
    """SQL: the group of a record, and these columns as they are added to it."""
    return _expressions(1, columns)


def subtracted(columns: Sequence[str]) -> str:
    """SQL: the group of what was replaced, and these columns as they are subtracted from it."""
    return _expressions(-1, columns)


#: SQL: the server and database that number the transactions.
SERVER = """(SELECT system_identifier || '/' || pg_database.oid FROM pg_control_system(), pg_database
        WHERE datname = current_database())"""

#: SQL: whether the marks are numbers of this server. A restored database may number transactions anew.
SAME_SERVER = f"""counted_on = {SERVER} AND pg_snapshot_xmax(counted) <= pg_snapshot_xmax(pg_current_snapshot())"""

#: SQL: whether the account of a row has sums. `state` is the row of `usage_quarters_state`.
COUNTED_ACCOUNT = "account_id <= coalesce((SELECT counted_accounts FROM state), account_id)"

#: SQL: whether the sums lack a visible record. The first two conditions are for the index.
UNCOUNTED = f"""changed_in >= (SELECT pg_snapshot_xmin(counted) FROM state)
      AND changed_in < pg_snapshot_xmax(pg_current_snapshot())
      AND NOT pg_visible_in_snapshot(changed_in, (SELECT counted FROM state)) AND {COUNTED_ACCOUNT}"""

#: SQL: whether the sums have what a visible change has replaced.
UNSUBTRACTED = f"""NOT pg_visible_in_snapshot(replaced_in, (SELECT counted FROM state))
      AND pg_visible_in_snapshot(changed_in, (SELECT counted FROM state)) AND {COUNTED_ACCOUNT}"""
