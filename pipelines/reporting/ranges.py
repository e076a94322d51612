"""Ranges of reports by name, such as the last month, in a time zone."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

RangeName = Literal[
    "today", "this_week", "this_month", "this_quarter", "this_year",
    "yesterday", "last_week", "last_month", "last_quarter", "last_year",
    "last_7_days", "last_30_days", "last_90_days",
]  # fmt: skip

#: Months of the units that begin with a month.
MONTHS: Mapping[str, int] = {"month": 1, "quarter": 3, "year": 12}

DAYS: Mapping[str, int] = {"last_7_days": 7, "last_30_days": 30, "last_90_days": 90}


def resolve_range(name: RangeName, time_zone: str, now: datetime) -> tuple[datetime, datetime]:
    """Return the start and the end of a range at a time: midnights of the zone, of which the second is excluded.

    A week begins on Monday. `last_7_days` and its like are the days before today; a range of `this_` includes what is
    still to come.
    """
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    first, last = _local_range(name, today)
    return first.replace(tzinfo=zone), last.replace(tzinfo=zone)


def _local_range(name: RangeName, today: datetime) -> tuple[datetime, datetime]:
    """Return a range in local time, where each day has 24 hours."""
    if name in DAYS:
        return today - timedelta(days=DAYS[name]), today
    if name in ("today", "yesterday"):
        first = today if name == "today" else today - timedelta(days=1)
        return first, first + timedelta(days=1)
    which, _, unit = name.partition("_")
    if unit == "week":
        monday = today - timedelta(days=today.weekday() + (7 if which == "last" else 0))
        return monday, monday + timedelta(days=7)
    months = MONTHS[unit]
    first = today.replace(month=(today.month - 1) // months * months + 1, day=1)
    first = first if which == "this" else _add_months(first, -months)
    return first, _add_months(first, months)


def _add_months(first: datetime, months: int) -> datetime:
    years, month = divmod(first.month - 1 + months, 12)
    return first.replace(year=first.year + years, month=month + 1)
