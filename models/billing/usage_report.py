"""Usage of an account by day, model, API key, member or agent, from the usage records."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from models.platform.database import Connection, fetch_all

Grouping = Literal["day", "model", "key", "member", "agent"]

#: What a group is named by. The names are fixed, so they are part of the statement.
KEYS: Mapping[Grouping, str] = {
    "day": "to_char(created_at AT TIME ZONE %(time_zone)s, 'YYYY-MM-DD')",
    "model": "model",
    "key": "coalesce(billed_key_id, '')",
    "member": "coalesce(billed_user_id, '')",
    "agent": "coalesce(billed_agent, '')",
}


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """The usage of a group. `amount` is what is charged for it; zero for what is free."""

    key: str
    jobs: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    amount: Decimal


# Ordered by bytes, as the key of the last group is compared.
REPORT = """
SELECT key COLLATE "C" AS key, count(*) AS jobs, sum(input_tokens)::bigint AS input_tokens,
       sum(cached_tokens)::bigint AS cached_tokens, sum(output_tokens)::bigint AS output_tokens,
       coalesce(sum(billed_amount), 0) AS amount
FROM (SELECT {key} AS key, input_tokens, cached_tokens, output_tokens, billed_amount FROM usage_records
      WHERE account_id = %(account_id)s AND created_at >= %(start)s AND created_at < %(end)s
        AND (%(user_id)s::text IS NULL OR billed_user_id = %(user_id)s)) AS used
WHERE %(after)s::text IS NULL OR key COLLATE "C" > %(after)s
GROUP BY 1 ORDER BY 1 LIMIT %(limit)s
"""


def report(
    connection: Connection,
    account_id: str,
    grouping: Grouping,
    start: datetime,
    end: datetime,
    *,
    user_id: str | None = None,
    time_zone: str = "UTC",
    after: str | None = None,
    limit: int = 20,
) -> list[UsageGroup]:
    """Return at most `limit` groups beyond the key `after`, of the jobs that ended from `start` until before `end`.

    user_id    only the jobs of this user; None: those of all
    time_zone  of the days, by its IANA name
    """
    parameters = {
        "account_id": account_id,
        "start": start,
        "end": end,
        "user_id": user_id,
        "time_zone": time_zone,
        "after": after,
        "limit": limit,
    }
    rows = fetch_all(connection, REPORT.format(key=KEYS[grouping]), parameters)
    return [UsageGroup(**row) for row in rows]
