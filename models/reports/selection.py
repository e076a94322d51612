"""What a statement on the sums of quarter hours selects: a period, groups and filters.

A quarter of an hour lies within one hour, day and month of every time zone: their offsets from UTC are multiples of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

Interval = Literal["hour", "day", "month"]

QUARTER = timedelta(minutes=15)

#: SQL: the quarter of an hour of a time.
QUARTER_OF = "date_bin('15 minutes', {time}, '2000-01-01 00:00+00')"

#: SQL: the interval of a quarter. An hour is a point in time, since an hour is repeated when summer time ends. A day is
#: that of the calendar, without an offset.
INTERVALS: Mapping[Interval, str] = {
    "hour": "date_trunc('hour', quarter, %(time_zone)s)",
    "day": "date_trunc('day', quarter AT TIME ZONE %(time_zone)s)",
    "month": "date_trunc('month', quarter AT TIME ZONE %(time_zone)s)",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of sums to read, and how they are grouped.

    groups    columns of the sums
    filters   the values that a column may have
    """

    start: datetime
    end: datetime
    time_zone: str = "UTC"
    interval: Interval | None = None
    groups: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def first_quarter(self) -> datetime:
        """The first quarter of an hour that the period has entirely, unless it is shorter."""
        return min(-(-(self.start - EPOCH) // QUARTER) * QUARTER + EPOCH, self.end)

    @property
    def last_quarter(self) -> datetime:
        """The end of the last quarter of an hour that the period has entirely, unless it is shorter."""
        return max((self.end - EPOCH) // QUARTER * QUARTER + EPOCH, self.first_quarter)

    def with_groups(self, *groups: str) -> "Selection":
        """Return the selection with more groups."""
        return replace(self, groups=(*self.groups, *groups))

    def with_filter(self, column: str, values: Sequence[str]) -> "Selection":
        """Return the selection with one more filter."""
        return replace(self, filters={**self.filters, column: values})

    def without_interval(self) -> "Selection":
        """Return the selection of the period as a whole."""
        return replace(self, interval=None)

    @property
    def keys(self) -> str:
        """SQL: the columns by which rows are grouped, each followed by a comma."""
        interval = f"{INTERVALS[self.interval]} AS time, " if self.interval else ""
        return interval + "".join(f"{group}, " for group in self.groups)

    @property
    def names(self) -> str:
        """SQL: the names of the columns of `keys`, each followed by a comma."""
        return ("time, " if self.interval else "") + "".join(f"{group}, " for group in self.groups)

    @property
    def group_by(self) -> str:
        """SQL: the clause that groups by `keys`; empty without any."""
        numbers = range(1, len(self.groups) + (self.interval is not None) + 1)
        return f"GROUP BY {', '.join(map(str, numbers))}" if numbers else ""

    @property
    def grouping(self) -> str:
        """SQL: the clause that groups by `keys`. Without keys there is a row only if something was selected."""
        return self.group_by or "HAVING count(*) > 0"

    def condition(self, columns: Sequence[str]) -> str:
        """SQL: the filters, of which all must be columns, as conditions that begin with AND."""
        assert set(self.filters) <= set(columns)
        return "".join(f" AND {column} = ANY(%(only_{column})s)" for column in self.filters)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of a statement."""
        return {
            "start": self.start,
            "end": self.end,
            "first": self.first_quarter,
            "last": self.last_quarter,
            "time_zone": self.time_zone,
            **{f"only_{column}": list(values) for column, values in self.filters.items()},
            "accounts": list(self.filters["account_id"]) if "account_id" in self.filters else None,
        }

    def start_of(self, time: datetime) -> datetime:
        """Return the start of an interval that a statement has returned: of a day, the first of two midnights."""
        if time.tzinfo is not None:
            return time.astimezone(UTC)
        return time.replace(tzinfo=ZoneInfo(self.time_zone)).astimezone(UTC)


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
