"""Compute the times of a crontab expression in a time zone.

cronsim finds the dates and times of the calendar; this module adds the time zone and its clock changes.

Where day of month and day of week are both restricted, either may match, and Sunday is 0 or 7, as crontab(5) says.

When the clocks change, an expression that names its hours fires once at each of its times: a time that is skipped
counts with the offset before the change (02:30 becomes 03:30), and of a time that occurs twice the first is meant
(RFC 5545, 3.3.5). cronsim follows Debian's cron instead, which fires a skipped 02:30 at 03:00. An expression for every
hour (`*`) follows elapsed hours: it fires in no skipped hour, and twice in a repeated one.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

#: Expressions are parsed relative to some time; which one does not matter.
ANY_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim takes the time that a clock on the wall shows

FIELDS = ("minute", "hour", "day of month", "month", "day of week")

#: A part of a field: `*` or a range, with an optional step, or a single value. cronsim would take more, such as `L`.
PART = re.compile(r"(?:\*|(?:[0-9]{1,2}|[a-z]{3})-(?:[0-9]{1,2}|[a-z]{3}))(?:/[0-9]{1,2})?|[0-9]{1,2}|[a-z]{3}")

WEEKDAYS = {"sun": "0", "mon": "1", "tue": "2", "wed": "3", "thu": "4", "fri": "5", "sat": "6"}

#: A range of weekdays that ends with Sunday, which must be 7 for cronsim: `5-0`, but not `0-0`.
UNTIL_SUNDAY = re.compile(r"(?<!0)-00?(?![0-9])")

#: A range of one value with a step: cronsim would continue it to the end of the field.
RANGE_OF_ONE = re.compile(r"\b0*([0-9]+|[a-z]+)-0*\1/0*[1-9][0-9]*")

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

#: Names that the time zone database has, but that mean another zone on each machine.
AMBIGUOUS_ZONES = {"localtime", "Factory"}


@lru_cache(maxsize=1)
def time_zones() -> frozenset[str]:
    """Return the time zone names that a schedule may have."""
    return frozenset(available_timezones() - AMBIGUOUS_ZONES)


def validate(expression: str) -> None:
    """Raise ValueError, naming the field, unless this is a crontab expression that has a time."""
    fields = _fields(expression)
    for index, (name, text) in enumerate(zip(FIELDS, fields, strict=True)):
        alone = ["*"] * len(FIELDS)
        alone[index] = text
        if not all(PART.fullmatch(part) for part in text.split(",")) or _simulate(alone, ANY_TIME) is None:
            raise ValueError(f"the field {name} cannot be '{text}'")
    if _simulate(fields, ANY_TIME) is None:
        raise ValueError(f"the field day of month cannot be '{fields[2]}' in the month '{fields[3]}'")


def next_after(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Return the first time after a moment, in UTC, or None if there is none. The expression must be valid."""
    fields = _fields(expression)
    earliest, last_wall_time = None, None
    # No clock of the zone shows less than this from `after` on.
    start = _without_zone(after) + min(_offsets(zone, after)) + SECOND
    for wall_time in _wall_times(fields, start):
        moments = [moment for moment in _moments(fields, zone, wall_time) if moment > after]
        if moments and (earliest is None or moments[0] < earliest):
            earliest = moments[0]
        if earliest is not None and last_wall_time is None:
            # Near a clock change, a later wall time may be an earlier moment.
            offsets = _offsets(zone, earliest)
            last_wall_time = wall_time + (max(offsets) - min(offsets))
        if last_wall_time is not None and wall_time >= last_wall_time:
            break
    return earliest


def _fields(expression: str) -> list[str]:
    """Split an expression at blanks and expand nicknames. Raises ValueError for another number of fields than five."""
    text = expression.strip(" \t\r\n").lower()
    fields = re.split(r"[ \t]+", NICKNAMES.get(text, text))
    if len(fields) != len(FIELDS):
        raise ValueError(f"it needs {len(FIELDS)} fields ({', '.join(FIELDS)}), not {len(fields)}")
    return fields


def _simulate(fields: list[str], start: datetime) -> CronSim | None:
    """Return an iterator over the wall times after `start`, or None where the fields are invalid or never match."""
    try:
        weekdays = re.sub("[a-z]+", lambda name: WEEKDAYS.get(name[0], name[0]), fields[4])
        expression = " ".join([*fields[:4], UNTIL_SUNDAY.sub("-7", weekdays)])
        return CronSim(RANGE_OF_ONE.sub(r"\1", expression), start)
    except CronSimError:
        return None


def _wall_times(fields: list[str], start: datetime) -> Iterator[datetime]:
    """Yield the matching wall times from `start` on, as if the clocks never changed."""
    yield from _simulate(fields, start - SECOND) or ()


def _offsets(zone: ZoneInfo, moment: datetime) -> list[timedelta]:
    """Return the zone's UTC offsets a day before, at, and a day after a moment."""
    nearby = (moment - DAY, moment, moment + DAY)
    return [offset for time in nearby if (offset := time.astimezone(zone).utcoffset()) is not None]


def _without_zone(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _moments(fields: list[str], zone: ZoneInfo, wall_time: datetime) -> list[datetime]:
    """Return the moments at which a wall time fires, in order."""
    first, second = (wall_time.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if fields[1] != "*":
        return [first]
    return sorted({moment for moment in (first, second) if moment.astimezone(zone).replace(tzinfo=None) == wall_time})
