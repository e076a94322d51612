"""Usage records, and reports added up from them one by one."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from models.platform.database import Connection, Database, fetch_all
from models.reports import usage_rollups
from models.reports.selection import Interval, Selection

INSERT = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, billed_amount,
                           billed_currency, billed_user_id, usage_class, usage_kind, queue_seconds, created_at)
VALUES (%(job_id)s, %(account_id)s, %(model)s, %(tokens)s, 1, 2, %(amount)s, %(currency)s, %(user_id)s, 'standard',
        'turn.run', %(tokens)s * 0.01, %(created_at)s)
ON CONFLICT (job_id) DO UPDATE SET input_tokens = excluded.input_tokens, billed_amount = excluded.billed_amount,
                                   queue_seconds = excluded.queue_seconds
"""

SELECT = """
SELECT account_id, model, input_tokens, cached_tokens, output_tokens, coalesce(billed_amount, 0) AS amount,
       coalesce(billed_currency, '') AS currency, coalesce(billed_user_id, '') AS user_id,
       coalesce(usage_class, '') AS class, coalesce(usage_kind, '') AS job_kind, created_at
FROM usage_records WHERE created_at >= %(start)s AND created_at < %(end)s
"""

SUMS = ("jobs", "input_tokens", "cached_tokens", "output_tokens", "amount")


@dataclass(frozen=True, slots=True)
class Record:
    """A usage record. One with the same number replaces it, as a replay of its job does."""

    number: int
    account: int
    model: str
    tokens: int
    created_at: datetime
    amount: Decimal | None = None
    user: str | None = None


def write(connection: Connection, record: Record) -> None:
    """Insert or replace a record."""
    row = {
        "job_id": f"job_{record.number}",
        "account_id": f"acct_{record.account}",
        "model": record.model,
        "tokens": record.tokens,
        "amount": record.amount,
        "currency": "eur" if record.amount is not None else None,
        "user_id": record.user,
        "created_at": record.created_at,
    }
    connection.execute(INSERT, row)


def add_accounts(database: Database, numbers: Iterable[int]) -> None:
    """Insert the accounts of records."""
    with database.connection() as connection:
        for number in numbers:
            connection.execute("INSERT INTO accounts (id, name) VALUES (%s, '')", (f"acct_{number}",))


def begin_of(time: datetime, interval: Interval, zone: ZoneInfo) -> datetime:
    """Return when the hour, day or month of a time begins in a zone."""
    local = time.astimezone(zone)
    if interval == "hour":
        return (local.astimezone(UTC) - (local - local.replace(minute=0, second=0, microsecond=0))).astimezone(UTC)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return (midnight if interval == "day" else midnight.replace(day=1)).astimezone(UTC)


def add_up(connection: Connection, selection: Selection) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the sums of each group, from the records."""
    zone = ZoneInfo(selection.time_zone)
    sums: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0] * len(SUMS))
    for row in fetch_all(connection, SELECT, {"start": selection.start, "end": selection.end}):
        if all(row[column] in values for column, values in selection.filters.items()):
            time = (begin_of(row["created_at"], selection.interval, zone),) if selection.interval else ()
            group = sums[(*time, *(row[column] for column in selection.groups), row["currency"])]
            for index, name in enumerate(SUMS):
                group[index] += 1 if name == "jobs" else row[name]
    return {key: tuple(values) for key, values in sums.items()}


def as_groups(rows: Sequence[dict[str, Any]], selection: Selection) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the rows of `usage_sums.usage` by group. Raises AssertionError for a group of two rows."""
    groups = {}
    for row in rows:
        time = (selection.begin_of(row["time"]),) if selection.interval else ()
        key = (*time, *(row[column] for column in selection.groups), row["currency"])
        assert key not in groups
        groups[key] = tuple(row[name] for name in SUMS)
    return groups


def update(database: Database) -> None:
    """Bring the roll-ups up to date."""
    with database.transaction() as connection:
        usage_rollups.update(connection)


def update_all(database: Database) -> None:
    """Bring the roll-ups up to date, also those of accounts without sums."""
    update(database)
    while update_next_account(database):
        pass


def update_next_account(database: Database) -> bool:
    """Sum up an account without sums."""
    with database.transaction() as connection:
        return usage_rollups.update_next_account(connection)
