"""Usage records, and reports added up from them one by one."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from models.platform.database import Connection, Database, fetch_all
from models.reports import usage_rollups
from models.reports.histograms import BOUNDS, MEASURES
from models.reports.selection import Interval, Selection

INSERT = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, billed_amount,
                           billed_currency, billed_user_id, usage_class, usage_kind, queue_seconds,
                           first_token_seconds, tokens_per_second, created_at)
VALUES (%(job_id)s, %(account_id)s, %(model)s, %(tokens)s, 1, 2, %(amount)s, %(currency)s, %(user_id)s, 'standard',
        'turn.run', %(tokens)s * 0.01, %(first_token)s, %(speed)s, %(created_at)s)
ON CONFLICT (job_id) DO UPDATE SET model = excluded.model, input_tokens = excluded.input_tokens,
    billed_amount = excluded.billed_amount, billed_currency = excluded.billed_currency,
    billed_user_id = excluded.billed_user_id, queue_seconds = excluded.queue_seconds,
    first_token_seconds = excluded.first_token_seconds, tokens_per_second = excluded.tokens_per_second
"""

SELECT = """
SELECT account_id, model, input_tokens, cached_tokens, output_tokens, coalesce(billed_amount, 0) AS amount,
       coalesce(billed_currency, '') AS currency, coalesce(billed_user_id, '') AS user_id,
       coalesce(usage_class, '') AS class, coalesce(usage_kind, '') AS job_kind, created_at,
       queue_seconds::float8 AS queue, first_token_seconds::float8 AS first_token, tokens_per_second::float8 AS speed
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
    first_token: float | None = None
    speed: float | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """The deletion of a usage record, which need not exist."""

    number: int


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
        "first_token": record.first_token,
        "speed": record.speed,
        "created_at": record.created_at,
    }
    connection.execute(INSERT, row)


def delete(connection: Connection, deletion: Deletion) -> None:
    """Delete a record."""
    connection.execute("DELETE FROM usage_records WHERE job_id = %s", (f"job_{deletion.number}",))


def add_accounts(database: Database, numbers: Iterable[int]) -> None:
    """Insert the accounts of records."""
    with database.connection() as connection:
        for number in numbers:
            connection.execute("INSERT INTO accounts (id, name) VALUES (%s, '')", (f"acct_{number}",))


def start_of(time: datetime, interval: Interval, zone: ZoneInfo) -> datetime:
    """Return the start of the hour, day or month of a time in a zone."""
    local = time.astimezone(zone)
    if interval == "hour":
        return (local.astimezone(UTC) - (local - local.replace(minute=0, second=0, microsecond=0))).astimezone(UTC)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return (midnight if interval == "day" else midnight.replace(day=1)).astimezone(UTC)


def selected(connection: Connection, selection: Selection) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the records of a selection with their groups."""
    zone = ZoneInfo(selection.time_zone)
    for row in fetch_all(connection, SELECT, {"start": selection.start, "end": selection.end}):
        if all(row[column] in values for column, values in selection.filters.items()):
            time = (start_of(row["created_at"], selection.interval, zone),) if selection.interval else ()
            yield (*time, *(row[column] for column in selection.groups)), row


def add_up(connection: Connection, selection: Selection) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the sums of each group, from the records."""
    sums: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0] * len(SUMS))
    for key, row in selected(connection, selection):
        group = sums[(*key, row["currency"])]
        for index, name in enumerate(SUMS):
            group[index] += 1 if name == "jobs" else row[name]
    return {key: tuple(values) for key, values in sums.items()}


def count_samples(connection: Connection, selection: Selection) -> dict[tuple[Any, ...], int]:
    """Return the samples of each group, measure and bucket, from the records."""
    samples: Counter[tuple[Any, ...]] = Counter()
    for key, row in selected(connection, selection):
        values = ((measure, row[measure]) for measure in MEASURES)
        samples.update((*key, name, bisect_right(BOUNDS, value)) for name, value in values if value is not None)
    return dict(samples)


def key_of(row: Mapping[str, Any], selection: Selection, *names: str) -> tuple[Any, ...]:
    """Return the group of a row of `usage_sums`, and its values of more columns."""
    time = (selection.start_of(row["time"]),) if selection.interval else ()
    return (*time, *(row[name] for name in (*selection.groups, *names)))


def as_groups(rows: Sequence[dict[str, Any]], selection: Selection) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the rows of `usage_sums.usage` by group. Raises AssertionError for a group of two rows."""
    groups = {key_of(row, selection, "currency"): tuple(row[name] for name in SUMS) for row in rows}
    assert len(groups) == len(rows)
    return groups


def as_samples(rows: Sequence[dict[str, Any]], selection: Selection) -> dict[tuple[Any, ...], int]:
    """Return the rows of `usage_sums.latency` by group. Raises AssertionError for a group of two rows."""
    samples = {key_of(row, selection, "measure", "bucket"): row["samples"] for row in rows}
    assert len(samples) == len(rows)
    return samples


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
