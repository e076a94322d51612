"""Parse the periods that a query names: a day, a month or a season of a year, or a year.

Times without a year, such as "in May", are ignored.
"""

import re
from calendar import month_name
from datetime import UTC, date, datetime, timedelta

MONTHS = {name[:3].lower(): number for number, name in enumerate(month_name) if name}

#: The first month of each northern season; the winter of a year begins in its December.
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|"
    r"aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_YEAR = r"(?:19|20)\d\d"
_DAY = r"[0-3]?\d(?:st|nd|rd|th)?"

#: The supported notations, the most precise first.
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
    """Return the period from the earliest to the end of the latest time that a query names; None if it names none."""
    periods = [period for match in TIME_EXPRESSION.finditer(query) if (period := _period(match))]
    if not periods:
        return None
    return min(start for start, _ in periods), max(end for _, end in periods)


def _period(match: re.Match[str]) -> tuple[datetime, datetime] | None:
    """Return the period of one time expression; None for a date that does not exist."""
    try:
        if match["iso"]:
            return _day(date.fromisoformat(match["iso"]))
        if match["month"]:
            return _day_or_month(match)
        if match["season"]:
            return _months(int(match["season_year"]), SEASONS[match["season"].lower()], 3)
        return _months(int(match["year"]), 1, 12)
    except ValueError:
        return None


def _day_or_month(match: re.Match[str]) -> tuple[datetime, datetime]:
    year, month = int(match["month_year"]), MONTHS[match["month"][:3].lower()]
    day = match["day"] or match["day_after"]
    return _day(date(year, month, int(day.rstrip("stndrh")))) if day else _months(year, month, 1)


def _day(day: date) -> tuple[datetime, datetime]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


def _months(year: int, month: int, count: int) -> tuple[datetime, datetime]:
    last = month - 1 + count
    return datetime(year, month, 1, tzinfo=UTC), datetime(year + last // 12, last % 12 + 1, 1, tzinfo=UTC)
