"""Usage and latency of a period: the sums of whole quarter hours, and the records that these lack.

One statement reads both, in one snapshot: see `usage_rollups`.
"""

from collections.abc import Sequence
from typing import Any

from models.platform.database import Connection, fetch_all
from models.reports.histograms import BOUNDS, measure_of
from models.reports.selection import Selection
from models.reports.usage_records import (
    COUNTED_ACCOUNT,
    DIMENSIONS,
    HISTOGRAMS,
    KEYS,
    SAME_SERVER,
    SUMS,
    UNCOUNTED,
    UNSUBTRACTED,
    added,
    subtracted,
)

_IN_PERIOD = """created_at >= %(first)s AND created_at < %(last)s
      AND (%(accounts)s::text[] IS NULL OR account_id = ANY(%(accounts)s))"""

# The sums, the records that were changed since and what these had before, and the records of accounts without sums.
# The ends of the period that are no whole quarter hours are read from the records.
PARTS = f"""
WITH state AS MATERIALIZED (
    SELECT counted, CASE WHEN {SAME_SERVER} THEN counted_accounts ELSE '' END AS counted_accounts
    FROM usage_quarters_state
), records AS (
    SELECT {{added}} FROM usage_records WHERE {UNCOUNTED} AND {_IN_PERIOD}
    UNION ALL
    SELECT {{subtracted}} FROM replaced_usage WHERE {UNSUBTRACTED} AND {_IN_PERIOD}
    UNION ALL
    SELECT {{added}} FROM usage_records
    WHERE (SELECT counted_accounts IS NOT NULL FROM state) AND account_id > (SELECT counted_accounts FROM state)
      AND {_IN_PERIOD}{{ends}}
), parts AS (
    SELECT {{columns}} FROM usage_quarters
    WHERE quarter >= %(first)s AND quarter < %(last)s AND {COUNTED_ACCOUNT}{{filters}}
    UNION ALL
    SELECT {{columns}} FROM records WHERE true{{filters}}
)
"""

END = """
    UNION ALL
    SELECT {added} FROM (SELECT id AS owning_id FROM accounts) AS owners CROSS JOIN usage_records
    WHERE account_id = owning_id AND created_at >= {start} AND created_at < {end}
      AND (%(accounts)s::text[] IS NULL OR account_id = ANY(%(accounts)s))"""

# A group whose records have all changed to another one has no job.
USAGE = """
SELECT {keys}sum(jobs)::bigint AS jobs, sum(input_tokens)::bigint AS input_tokens,
       sum(cached_tokens)::bigint AS cached_tokens, sum(output_tokens)::bigint AS output_tokens, sum(amount) AS amount
FROM parts {group_by} HAVING sum(jobs) > 0
"""

# The time and the groups of a row are the same for all its buckets: OFFSET 0 has them computed once.
LATENCY = """
SELECT {names}bucket, sum(count)::bigint AS samples
FROM (SELECT {names}unnest(buckets) AS bucket, unnest(samples) AS count
      FROM (SELECT {keys}buckets, samples FROM parts OFFSET 0) AS histograms) AS counts
WHERE bucket IS NOT NULL GROUP BY {names}bucket HAVING sum(count) > 0
"""


def usage(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return a row for each group and currency: jobs, tokens and the amount."""
    grouped = selection.with_groups("currency")
    statement = _parts(selection, SUMS) + USAGE.format(keys=grouped.keys, group_by=grouped.group_by)
    return fetch_all(connection, statement, _parameters(selection))


def latency(connection: Connection, selection: Selection) -> list[dict[str, Any]]:
    """Return the samples of each group, measure and bucket."""
    statement = _parts(selection, HISTOGRAMS) + LATENCY.format(keys=selection.keys, names=selection.names)
    rows = fetch_all(connection, statement, _parameters(selection))
    return [{**row, **measure_of(row["bucket"])} for row in rows]


def _parts(selection: Selection, measured: Sequence[str]) -> str:
    first, last = selection.first_quarter, selection.last_quarter
    ends = [("%(start)s", "%(first)s")] if selection.start < first else []
    ends += [("%(last)s", "%(end)s")] if last < selection.end else []
    return PARTS.format(
        columns=", ".join((*KEYS, *measured)),
        added=added(measured),
        subtracted=subtracted(measured),
        filters=selection.condition(DIMENSIONS),
        ends="".join(END.format(added=added(measured), start=start, end=end) for start, end in ends),
    )


def _parameters(selection: Selection) -> dict[str, Any]:
    return {**selection.parameters(), "bounds": list(BOUNDS)}
