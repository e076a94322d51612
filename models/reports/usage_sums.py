"""Usage and latency of a period: sums of whole quarter hours from the roll-ups, and records where these are not exact.

One statement reads both, in one snapshot: see `usage_rollups`.
"""

from typing import Any

from models.platform.database import Connection, fetch_all
from models.reports.histograms import BOUNDS
from models.reports.selection import Selection
from models.reports.usage_rollups import (
    AMOUNTS,
    BUCKET,
    DIMENSIONS,
    MARKED,
    MEASURES,
    QUARTER_OF_RECORD,
    RECORD,
    SAME_SERVER,
)

# A quarter hour of an account is in one of three parts: its sums are exact; a record in it has changed; the account has
# no sums yet. The ends of the period that are no whole quarter hours are read from the records.
PARTS = f"""
WITH state AS MATERIALIZED (
    SELECT watermark, CASE WHEN {SAME_SERVER} THEN rolled_up_to ELSE '' END AS rolled_up_to FROM rollup_state
), changed AS MATERIALIZED (
    SELECT DISTINCT account_id AS changed_account, {QUARTER_OF_RECORD} AS changed_quarter FROM usage_records, state
    WHERE {MARKED} AND created_at >= %(first)s AND created_at < %(last)s
      AND (%(accounts)s::text[] IS NULL OR account_id = ANY(%(accounts)s))
), unchanged AS (
    SELECT {{columns}} FROM {{rollups}}
    WHERE quarter >= %(first)s AND quarter < %(last)s
      AND NOT EXISTS (SELECT FROM changed WHERE changed_account = account_id AND changed_quarter = quarter)
      AND account_id <= coalesce((SELECT rolled_up_to FROM state), account_id){{filters}}
), records AS (
    SELECT {{columns}} FROM changed CROSS JOIN LATERAL (
        SELECT {{record}} FROM usage_records{{measures}}
        WHERE account_id = changed_account AND created_at >= changed_quarter
          AND created_at < changed_quarter + interval '15 minutes' OFFSET 0) AS record
    UNION ALL
    SELECT {{record}} FROM usage_records{{measures}}
    WHERE (SELECT rolled_up_to IS NOT NULL FROM state) AND account_id > (SELECT rolled_up_to FROM state)
      AND created_at >= %(first)s AND created_at < %(last)s
      AND NOT EXISTS (SELECT FROM changed
                      WHERE changed_account = account_id AND changed_quarter = {QUARTER_OF_RECORD})
      AND (%(accounts)s::text[] IS NULL OR account_id = ANY(%(accounts)s)){{ends}}
), parts AS (
    SELECT {{columns}} FROM unchanged
    UNION ALL
    SELECT {{columns}} FROM records WHERE true{{filters}}
)
"""

END = """
    UNION ALL
    SELECT {record} FROM (SELECT id AS owning_id FROM accounts) AS owners CROSS JOIN usage_records{measures}
    WHERE account_id = owning_id AND created_at >= {start} AND created_at < {end}
      AND (%(accounts)s::text[] IS NULL OR account_id = ANY(%(accounts)s))"""

USAGE = """
SELECT {keys}sum(jobs)::bigint AS jobs, sum(input_tokens)::bigint AS input_tokens,
       sum(cached_tokens)::bigint AS cached_tokens, sum(output_tokens)::bigint AS output_tokens, sum(amount) AS amount
FROM parts {grouping}
"""

LATENCY = "SELECT {keys}sum(samples)::bigint AS samples FROM parts {grouping}"

USAGE_COLUMNS = "currency, jobs, input_tokens, cached_tokens, output_tokens, amount"


def usage(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return a row for each group and currency: jobs, tokens and the amount."""
    grouped = selection.with_groups("currency")
    statement = _parts(selection, "usage_rollups", AMOUNTS, USAGE_COLUMNS) + USAGE.format(
        keys=grouped.keys, grouping=grouped.grouping
    )
    return fetch_all(connection, statement, selection.parameters())


def latency(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return the samples of each group, measure and bucket."""
    grouped = selection.with_groups("measure", "bucket")
    record = f"measure, {BUCKET}, 1 AS samples"
    statement = _parts(selection, "latency_rollups", record, "measure, bucket, samples", MEASURES) + LATENCY.format(
        keys=grouped.keys, grouping=grouped.grouping
    )
    return fetch_all(connection, statement, {**selection.parameters(), "bounds": list(BOUNDS)})


def _parts(selection: Selection, rollups: str, record: str, columns: str, measures: str = "") -> str:
    names = {"record": f"{RECORD}, {record}", "measures": f" {measures}" if measures else ""}
    first, last = selection.first_quarter, selection.last_quarter
    ends = [("%(start)s", "%(first)s")] if selection.start < first else []
    ends += [("%(last)s", "%(end)s")] if last < selection.end else []
    return PARTS.format(
        **names,
        rollups=rollups,
        columns=f"account_id, quarter, {', '.join(DIMENSIONS[1:])}, {columns}",  # in the order of RECORD
        filters=selection.condition(DIMENSIONS),
        ends="".join(END.format(**names, start=start, end=end) for start, end in ends),
    )
