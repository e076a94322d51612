"""Billing periods: months or years that are counted from an anchor, in UTC.

Period n begins n months or years after the anchor, at its time of day. A day that a month lacks is its last day, and
every period is computed from the anchor, so 31 January is followed by 28 February and then by 31 March.
"""

from calendar import monthrange
from datetime import UTC, datetime
from typing import Literal

Period = Literal["month", "year"]

#: Months of a period.
MONTHS: dict[Period, int] = {"month": 1, "year": 12}


def period_start(anchor: datetime, period: Period, number: int) -> datetime:
    """Return when period `number` begins. Period 0 begins at the anchor."""
    return _add_months(anchor.astimezone(UTC), MONTHS[period] * number)


def bounds(anchor: datetime, period: Period, number: int) -> tuple[datetime, datetime]:
    """Return the beginning and the end of period `number`. The end is the beginning of the next one."""
    return period_start(anchor, period, number), period_start(anchor, period, number + 1)


def _add_months(time: datetime, months: int) -> datetime:
    year, month = divmod(time.year * 12 + time.month - 1 + months, 12)
    return time.replace(year=year, month=month + 1, day=min(time.day, monthrange(year, month + 1)[1]))
