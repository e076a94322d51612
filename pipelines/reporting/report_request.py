"""What a report is asked for, in the form that its job stores: all of it is decided, no name and no relative period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipelines.reporting.report_table import Interval

ReportKind = Literal["usage", "revenue", "latency", "errors", "memory"]

#: What rows are grouped by, beside hours, days or months.
Grouping = Literal["account", "user", "key", "agent", "model", "class", "kind"]


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A report to build.

    start, end  the period, from `start` until before `end`
    time_zone   the IANA name of the zone of hours, days and months
    interval    groups by time; None: one row for the whole period
    group_by    what else rows are grouped by, in the order of the columns
    filters     the ids or names that a grouping may have; those of different groupings must all match
    account_id  only this account; None: all accounts, for operators
    user_id     only what is this user's own; None: everybody's
    """

    kind: ReportKind
    start: datetime
    end: datetime
    time_zone: str = "UTC"
    interval: Interval | None = None
    group_by: Sequence[Grouping] = ()
    filters: Mapping[Grouping, Sequence[str]] = field(default_factory=dict)
    account_id: str | None = None
    user_id: str | None = None


def to_json(request: ReportRequest) -> dict[str, Any]:
    """Return a request as its row stores it. Times are Unix seconds."""
    return {
        "kind": request.kind,
        "start": int(request.start.timestamp()),
        "end": int(request.end.timestamp()),
        "time_zone": request.time_zone,
        "interval": request.interval,
        "group_by": list(request.group_by),
        "filters": {name: list(values) for name, values in request.filters.items()},
        "account_id": request.account_id,
        "user_id": request.user_id,
    }


def from_json(row: Mapping[str, Any]) -> ReportRequest:
    """Return a request from its stored form."""
    times = {name: datetime.fromtimestamp(row[name], UTC) for name in ("start", "end")}
    return ReportRequest(**{**row, **times, "group_by": tuple(row["group_by"])})
