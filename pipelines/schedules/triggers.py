"""When a schedule fires: by a crontab line, at an interval, or once. Times are aware, in UTC, and of whole seconds."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from pipelines.schedules import cron


class Trigger(Protocol):
    """Tells times. They follow from the trigger alone, so that whoever asks is told the same."""

    def next_after(self, after: datetime) -> datetime | None:
        """The first time after a moment; None where there is none."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A crontab line of five fields, by the clocks of a time zone."""

    expression: str
    time_zone: str = "UTC"

    def next_after(self, after: datetime) -> datetime | None:
        """See Trigger."""
        return cron.next_after(self.expression, ZoneInfo(self.time_zone), after)


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds, counted from `start`, which is one of the times."""

    seconds: int
    start: datetime

    def next_after(self, after: datetime) -> datetime | None:
        """See Trigger."""
        if after < self.start:
            return self.start
        step = timedelta(seconds=self.seconds)
        return self.start + ((after - self.start) // step + 1) * step


@dataclass(frozen=True, slots=True)
class Once:
    """One time."""

    at: datetime

    def next_after(self, after: datetime) -> datetime | None:
        """See Trigger."""
        return self.at if self.at > after else None


TYPES: Mapping[str, type[Cron] | type[Interval] | type[Once]] = {"cron": Cron, "interval": Interval, "once": Once}


def trigger_to_json(trigger: Cron | Interval | Once) -> dict[str, Any]:
    """The trigger as it stands in its row; times are Unix seconds."""
    (name,) = (name for name, known in TYPES.items() if isinstance(trigger, known))
    values = {key: _seconds(value) for key, value in asdict(trigger).items()}
    return {"type": name, **values}


def _seconds(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def trigger_from_json(row: Mapping[str, Any]) -> Trigger:
    """The trigger of a row."""
    values = {key: value for key, value in row.items() if key != "type"}
    for name in ("start", "at"):
        if name in values:
            values[name] = datetime.fromtimestamp(values[name], UTC)
    return TYPES[row["type"]](**values)


def fire_times(trigger: Trigger, first: datetime | None) -> Iterator[datetime]:
    """The times from `first` on, which is one of them."""
    while first is not None:
        yield first
        first = trigger.next_after(first)


def next_fire_times(trigger: Trigger, first: datetime | None, count: int) -> list[datetime]:
    """At most `count` of them."""
    return list(islice(fire_times(trigger, first), count))


def last_before(trigger: Trigger, first: datetime, end: datetime) -> datetime:
    """The last time before `end`, where `first`, which is one, is before it. By halves: there may be very many."""
    last, high = first, end
    while (found := trigger.next_after(last)) is not None and found < high:
        last = found
        middle = last + (high - last) / 2
        later = trigger.next_after(middle)
        if later is not None and later < high:
            last = later
        else:
            high = middle + timedelta(microseconds=1)  # nothing is behind it but perhaps the middle itself
    return last
