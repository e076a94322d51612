"""Times by a crontab line in a time zone. APScheduler finds the days and minutes; what a wall clock does is ours.

Two things that APScheduler's own crontab takes otherwise are as crontab(5) has them: Sunday is 0 and 7, and where both
the day of the month and the day of the week are restricted, either will do.

When the clocks change, a line that names its hours fires once at each of its times: a time that is left out counts by
the offset before the change (02:30 becomes 03:30), and of a time that comes twice the first is meant (RFC 5545, 3.3.5).
A line for every hour (`*`) goes by hours that pass: it fires in none that is left out, and twice in one that is twice.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from apscheduler.triggers.cron import CronTrigger

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

#: A line that has no time from here on never has one: there is no year in it.
SOME_TIME = datetime(2000, 1, 1, tzinfo=UTC)

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

FIELDS = ("minute", "hour", "day", "month", "day_of_week")

#: A part of a field: `*` or a value or a range of them; a step behind the first and the last of these.
PART = re.compile(r"(?:\*|([0-9]{1,2}|[a-z]{3})-([0-9]{1,2}|[a-z]{3}))(?:/([0-9]{1,2}))?|([0-9]{1,2}|[a-z]{3})")


@lru_cache(maxsize=1)
def time_zones() -> frozenset[str]:
    """The names that a time zone may have."""
    return frozenset(available_timezones())


def validate(expression: str) -> None:
    """Raise ValueError, saying what is wrong, unless this is a crontab line."""
    _triggers(expression)


def next_after(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first time after a moment, in UTC; None where there is none."""
    found, until = None, None
    # No wall shows an earlier time then: whatever comes later shows more than this.
    for wall in _walls(expression, _naive(after) + min(_offsets(zone, after)) + SECOND):
        later = [moment for moment in _moments(expression, zone, wall) if moment > after]
        if later and (found is None or later[0] < found):
            found = later[0]
        if found is not None and until is None:
            # Close to a change of the clocks, a later time on the wall may come sooner.
            offsets = _offsets(zone, found)
            until = wall + (max(offsets) - min(offsets))
        if until is not None and wall >= until:
            break
    return found


def _offsets(zone: ZoneInfo, moment: datetime) -> list[timedelta]:
    near = (moment - DAY, moment, moment + DAY)
    return [offset for when in near if (offset := when.astimezone(zone).utcoffset()) is not None]


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _moments(expression: str, zone: ZoneInfo, wall: datetime) -> list[datetime]:
    """When the clocks on the wall show a time, or what counts as that, in order."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if expression.split()[1] != "*":
        return [first]
    shown = {moment for moment in (first, second) if moment.astimezone(zone).replace(tzinfo=None) == wall}
    return sorted(shown)


def _walls(expression: str, start: datetime) -> Iterator[datetime]:
    """The times on the wall from `start` on, as if the clocks never changed."""
    triggers, at = _triggers(expression), start
    while True:
        found = [trigger.get_next_fire_time(None, at.replace(tzinfo=UTC)) for trigger in triggers]
        times = [time.replace(tzinfo=None) for time in found if time is not None]
        if not times:
            return
        yield min(times)
        at = min(times) + SECOND


@lru_cache(maxsize=1024)
def _triggers(expression: str) -> tuple[CronTrigger, ...]:
    """APScheduler's triggers of a line: each of its times is one of theirs.

    One that never fires, as for the 31st of February, is left out: it looks through eight thousand years each time.
    """
    return tuple(trigger for trigger in _either(expression) if trigger.get_next_fire_time(None, SOME_TIME) is not None)


def _either(expression: str) -> tuple[CronTrigger, ...]:
    given = expression.split(" ")
    if len(given) != len(FIELDS):
        raise ValueError(f"it should have {len(FIELDS)} fields with one space between them, not {len(given)}")
    values = {name: _field(name, text) for name, text in zip(FIELDS, given, strict=True)}
    if given[2].startswith("*") or given[4].startswith("*"):
        return (CronTrigger(**values, timezone=UTC),)
    return tuple(CronTrigger(**{**values, name: "*"}, timezone=UTC) for name in ("day", "day_of_week"))


def _field(name: str, text: str) -> str:
    """A field in APScheduler's words."""
    matches = [PART.fullmatch(part) for part in text.lower().split(",")]
    if not all(matches):
        raise ValueError(f"the field {name} can't be '{text}'")
    if name != "day_of_week":
        return _checked(name, text.lower())
    days = sorted({day for match in matches if match is not None for day in _weekdays(match, text)})
    return _checked(name, ",".join(str((day - 1) % 7) for day in days))


def _checked(name: str, text: str) -> str:
    try:
        CronTrigger(**{name: text}, timezone=UTC)
    except ValueError as error:
        raise ValueError(f"the field {name} is wrong: {error}") from None
    return text


def _weekdays(match: re.Match[str], text: str) -> list[int]:
    """The days of a part, from 0 for Sunday to 6."""
    first, last, step, single = match.groups()
    if single is not None:
        return [_weekday(single, text) % 7]
    begin, end = (0, 6) if first is None else (_weekday(first, text), _weekday(last, text) or 7 * (first not in "0sun"))
    if begin > end or step == "0":
        raise ValueError(f"the field day_of_week can't be '{text}'")
    return [day % 7 for day in range(begin, end + 1, int(step or 1))]


def _weekday(name: str, text: str) -> int:
    day = WEEKDAYS.index(name) if name in WEEKDAYS else int(name) if name.isdigit() else len(WEEKDAYS) + 1
    if day > len(WEEKDAYS):
        raise ValueError(f"the field day_of_week can't be '{text}'")
    return day
