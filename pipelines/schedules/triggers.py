"""Triggers: a schedule fires by a crontab expression, at an interval, or once. Times are in UTC, in whole seconds."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from pipelines.schedules import cron


class Trigger(Protocol):
    """Computes times, which depend on nothing but the trigger."""

    def next_after(self, after: datetime) -> datetime | None:
        """Return the first time after a moment, or None if there is none."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A crontab expression of five fields, in a time zone."""

    expression: str
    time_zone: str = "UTC"

    def next_after(self, after: datetime) -> datetime | None:
        """Return the first time after a moment; see Trigger."""
        return cron.next_after(self.expression, ZoneInfo(self.time_zone), after)


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds from `start`, which is the first time."""

    seconds: int
    start: datetime

    def next_after(self, after: datetime) -> datetime | None:
        """Return the first time after a moment; see Trigger."""
        if after < self.start:
            return self.start
        step = timedelta(seconds=self.seconds)
        return self.start + ((after - self.start) // step + 1) * step


@dataclass(frozen=True, slots=True)
class Once:
    """A single time."""

    at: datetime

    def next_after(self, after: datetime) -> datetime | None:
        """Return the first time after a moment; see Trigger."""
        return self.at if self.at > after else None


TYPES: Mapping[str, type[Cron] | type[Interval] | type[Once]] = {"cron": Cron, "interval": Interval, "once": Once}


def trigger_to_json(trigger: Cron | Interval | Once) -> dict[str, Any]:
    """Return the trigger as it is stored; times are Unix seconds."""
    (name,) = (name for name, trigger_type in TYPES.items() if isinstance(trigger, trigger_type))
    values = {key: _seconds(value) for key, value in asdict(trigger).items()}
    return {"type": name, **values}


def _seconds(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def trigger_from_json(row: Mapping[str, Any]) -> Trigger:
    """Return the trigger from its stored form."""
    values = {key: value for key, value in row.items() if key != "type"}
    for name in ("start", "at"):
        if name in values:
            values[name] = datetime.fromtimestamp(values[name], UTC)
    return TYPES[row["type"]](**values)


def fire_times(trigger: Trigger, first: datetime | None) -> Iterator[datetime]:
    """Yield the times from `first` on, which is one of them."""
    while first is not None:
        yield first
        first = trigger.next_after(first)


def next_fire_times(trigger: Trigger, first: datetime | None, count: int) -> list[datetime]:
    """Return at most `count` times from `first` on."""
    return list(islice(fire_times(trigger, first), count))


def last_before(trigger: Trigger, first: datetime, end: datetime) -> datetime:
    """Return the last time before `end`; `first` is an earlier time. Bisects, since there may be many in between."""
    last, high = first, end
    while (following := trigger.next_after(last)) is not None and following < high:
        last = following
        middle = last + (high - last) / 2
        later = trigger.next_after(middle)
        if later is not None and later < high:
            last = later
        else:
            high = middle + timedelta(microseconds=1)  # no later time, except perhaps the middle itself
    return last
