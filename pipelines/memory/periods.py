"""Times that a question names: a day, a month or a season of a year, or a year. Times without a year are left alone."""

import re
from calendar import month_name
from datetime import UTC, date, datetime, timedelta

MONTHS = {name[:3].lower(): number for number, name in enumerate(month_name) if name}

#: The northern ones; the winter of a year begins with its December.
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|"
    r"aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_YEAR = r"(?:19|20)\d\d"
_DAY = r"[0-3]?\d(?:st|nd|rd|th)?"

#: Each way to write one, with the most exact first.
TIME_EXPRESSION = re.compile(
    rf"""\b(?:
        (?P<iso>{_YEAR}-[01]\d-[0-3]\d)
      | (?:(?P<day>{_DAY})\ (?:of\ )?)?(?P<month>{_MONTH})(?:\ (?P<day_after>{_DAY}))?
        ,?\ (?:of\ )?(?P<month_year>{_YEAR})
      | (?P<season>{"|".join(SEASONS)})\ (?:of\ )?(?P<season_year>{_YEAR})
      | (?P<year>{_YEAR})
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def parse_period(query: str) -> tuple[datetime, datetime] | None:
    """The time that a text names, from the earliest to the end of the latest; None without any."""
    periods = [period for found in TIME_EXPRESSION.finditer(query) if (period := _period(found))]
    if not periods:
        return None
    return min(since for since, _ in periods), max(until for _, until in periods)


def _period(found: re.Match[str]) -> tuple[datetime, datetime] | None:
    """None for a day that no calendar has."""
    try:
        if found["iso"]:
            return _days(date.fromisoformat(found["iso"]))
        if found["month"]:
            return _in_month(found)
        if found["season"]:
            return _months(int(found["season_year"]), SEASONS[found["season"].lower()], 3)
        return _months(int(found["year"]), 1, 12)
    except ValueError:
        return None


def _in_month(found: re.Match[str]) -> tuple[datetime, datetime]:
    year, month = int(found["month_year"]), MONTHS[found["month"][:3].lower()]
    day = found["day"] or found["day_after"]
    return _days(date(year, month, int(day.rstrip("stndrh")))) if day else _months(year, month, 1)


def _days(day: date) -> tuple[datetime, datetime]:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return since, since + timedelta(days=1)


def _months(year: int, month: int, count: int) -> tuple[datetime, datetime]:
    after = month - 1 + count
    return datetime(year, month, 1, tzinfo=UTC), datetime(year + after // 12, after % 12 + 1, 1, tzinfo=UTC)
