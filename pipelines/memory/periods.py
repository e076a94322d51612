"""Find the times that a query names, in several languages: days, months, quarters, seasons, years, "last week".

A month, a season or a day without a year is the last one that has begun. A number alone is no year: there has to be a
word before it, as in "in 2025". Since it may be a number all the same, it stays a word of the query. Times are in UTC.
"""
# ruff: noqa: RUF001 - letters of other scripts

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import regex

from pipelines.memory.calendar_words import MONTHS, NUMBERS, RELATIVE, SEASONS, TEMPORAL, UNITS, WEEKDAYS
from pipelines.memory.languages import latin_languages
from pipelines.memory.stopwords import STOP_WORDS

Period = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class NamedTime:
    """A time that a query names.

    start, end  where, in the query
    period      None for a date that does not exist
    is_word     whether it may be something else, such as the number of a room
    """

    start: int
    end: int
    period: Period | None
    is_word: bool = False


#: Names of months that are too short, or other words too often, to be a month without a year or a day.
SHORT_MONTHS = frozenset(month for month in MONTHS if len(month) <= 3 and month.isascii()) - {"may", "mai"} | {
    "mart", "janv", "févr", "sept",
}  # fmt: skip

#: Years of the Buddhist calendar, which Thai uses, are later by this.
BUDDHIST_ERA = 543

_YEAR = r"(?:19|20|25)\d\d"
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": 4, "erstes": 1, "ersten": 1, "zweiten": 2,
             "dritten": 3, "vierten": 4, "premier": 1, "deuxième": 2, "troisième": 3, "quatrième": 4, "primer": 1,
             "segundo": 2, "tercer": 3, "cuarto": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "1": 1, "2": 2, "3": 3,
             "4": 4, "1.": 1, "2.": 2, "3.": 3, "4.": 4, "1er": 1, "2e": 2, "3e": 3, "4e": 4}  # fmt: skip

_SPACED = frozenset(phrase for phrase in RELATIVE if phrase[0] < "\u0e00")
_UNSPACED = "|".join(sorted((regex.escape(p) for p in RELATIVE if p not in _SPACED), key=len, reverse=True))
_THAI_MONTHS = "|".join(month for month in MONTHS if "\u0e00" <= month[0] <= "\u0e7f")
_INDIAN_MONTHS = frozenset(month for month in MONTHS if "\u0900" <= month[0] <= "\u097f")

#: The supported notations, the most precise first. A digit makes the names of groups distinct.
TIME_EXPRESSION = regex.compile(
    rf"""
    (?<![\p{{L}}\p{{M}}\p{{N}}_-])(?:
        (?P<iso>{_YEAR}[-/][01]?\d[-/][0-3]?\d)
      | (?P<iso_month>{_YEAR}[-/](?:0[1-9]|1[012]))
      | (?P<first>[0-3]?\d)(?P<mark>[./-])(?P<second>[0-3]?\d)(?P=mark)(?P<numeric_year>{_YEAR})
      | (?P<number_month>0?[1-9]|1[012])[./](?P<number_month_year>{_YEAR})
      | (?P<dotted_day>[0-3]?\d)\.\s?(?P<dotted_month>0?[1-9]|1[012])\.(?!\d)
      | (?:(?P<ordinal>\L<ordinals>)\s+(?:quarter|quartals?|trimestre|kwartaal|çeyrek)|[qt](?P<quarter>[1-4]))
        ,?\s+(?:of\s+|de\s+|del\s+|du\s+)?(?P<quarter_year>{_YEAR})
      | (?:(?P<day>[0-3]?\d)(?:st|nd|rd|th|er|\.|º)?\s+(?:of\s+|de\s+|di\s+)?)?(?P<month>\L<months>)\.?
        (?:\s+(?P<day_after>[0-3]?\d)(?:st|nd|rd|th)?(?!\d))?,?\s+(?:of\s+|de\s+|del\s+)?(?P<month_year>{_YEAR})
      | (?P<day2>[0-3]?\d)(?:st|nd|rd|th|er|\.|º)?\s+(?:of\s+|de\s+|di\s+)?(?P<day_month>\L<months>)
      | (?P<day_month2>\L<months>)\.?\s+(?P<day3>[0-3]?\d)(?:st|nd|rd|th)?
      | (?P<season>\L<seasons>)\s+(?:of\s+|de\s+|del\s+)?(?P<season_year>{_YEAR})
      | (?:last|letzten|letzter|vorigen|dernier|pasado|geçen|прошлым|прошлой)\s+(?P<last_season>\L<seasons>)
      | (?P<last_season2>\L<seasons>)\s+(?:dernier|pasado|passato|passado|scorso)
      | (?<=(?<!\w)\L<temporal>\s+(?:the\s+|month\s+of\s+|ayı\s+)?)(?P<lone_month>\L<months>)
      | (?P<turkish_month>\L<months>)(?:'?[td][ae]|\s+ayında)
      | (?P<indian_month>\L<indian_months>)(?=\s+(?:में|के|को))
      | (?P<relative>\L<phrases>)
      | (?P<number>\d{{1,3}}|\L<numbers>)\s+(?P<unit>\L<units>)\s+(?:ago|geleden|önce|назад|पहले|fa|atrás)
      | (?:vor|il\s+y\s+a|hace|há|قبل|منذ)\s+(?:(?P<number2>\d{{1,3}}|\L<numbers>)\s+)?(?P<unit2>\L<units>)
      | (?P<unit3>неделю|месяц|год|день)\s+назад
      | (?:last|past|letzten|vergangenen|derniers|dernières|últimos|últimas|ultimi|son|последние|последних|पिछले)\s+
        (?P<number_since>\d{{1,3}}|\L<numbers>)\s+(?P<unit_since>\L<units>)
      | (?:last|on|since|letzten|am|geçen|le|el|в|во)\s+(?P<weekday>\L<weekdays>)
      | (?<=(?<!\w)\L<temporal>\s+(?:the\s+|year\s+)?)(?P<year>{_YEAR})
      | (?P<year2>(?:19|20)\d\d)(?=\s+(?:में|yılında|году)|'?[td][ae]\b)
    )(?![\p{{L}}\p{{M}}\p{{N}}_]|[-/.]\d)
  | (?<!\d)(?:(?P<east_year>{_YEAR})\s?[年년]\s?)?(?P<east_month>1[012]|0?[1-9])\s?[月월](?!前)
    (?:\s?(?P<east_day>[0-3]?\d)\s?[日号號일])?
  | (?<!\d)(?P<east_lone_year>{_YEAR})\s?[年년]
  | (?:(?P<thai_day>[0-3]?\d)\s+)?(?P<thai_month>{_THAI_MONTHS})(?:\s*(?P<thai_year>{_YEAR}))?
  | (?P<number4>\d{{1,3}})\s?(?P<unit4>日|天|일|วัน|週間|周|주|สัปดาห์|か月|ヶ月|个月|個月|개월|เดือน|年|년|ปี)
    \s?(?:前|전|ที่แล้ว|ก่อน)
  | (?P<relative2>{_UNSPACED})
    """,
    regex.VERBOSE | regex.VERSION1,
    months=list(MONTHS), seasons=list(SEASONS), weekdays=list(WEEKDAYS), temporal=list(TEMPORAL), units=list(UNITS),
    numbers=list(NUMBERS), phrases=list(_SPACED), ordinals=list(_ORDINALS), indian_months=list(_INDIAN_MONTHS),
)  # fmt: skip

#: Words without which a query in a script with spaces names no time, apart from digits.
_HINTS = (
    frozenset(word for phrase in [*MONTHS, *SEASONS, *WEEKDAYS, *UNITS, *_SPACED] for word in phrase.split())
    - STOP_WORDS
)

_WORD = regex.compile(r"[\p{L}\p{M}]+")

_UNSPACED_HINT = regex.compile(rf"\d|{_UNSPACED}|{_THAI_MONTHS}")


def find_times(query: str, now: datetime) -> list[NamedTime]:
    """Return the times that a query, in NFKC, names at a point in time, in their order."""
    lowered = query.lower()
    if len(lowered) != len(query):  # positions must be the same
        lowered = query
    if not _may_name_time(lowered):
        return []
    french = "french" in latin_languages(_WORD.findall(lowered))
    today = now.astimezone(UTC).date()
    times = (_named_time(match, today, french=french) for match in TIME_EXPRESSION.finditer(lowered))
    return [time for time in times if time is not None]


def _may_name_time(query: str) -> bool:
    return bool(_UNSPACED_HINT.search(query)) or not _HINTS.isdisjoint(_WORD.findall(query))


def period_of(times: Sequence[NamedTime]) -> Period | None:
    """Return the period from the earliest to the end of the latest of some times; None if there are none."""
    periods = [time.period for time in times if time.period]
    if not periods:
        return None
    return min(start for start, _ in periods), max(end for _, end in periods)


def parse_period(query: str, now: datetime | None = None) -> Period | None:
    """Return the period that a query names; None if it names none."""
    return period_of(find_times(query, now or datetime.now(UTC)))


def _named_time(match: regex.Match[str], today: date, *, french: bool) -> NamedTime | None:
    """Return the time of a match; None if it is none after all."""
    groups = {name: value for name, value in match.groupdict().items() if value is not None}
    if groups.get("relative") == "hier" and not french:  # "here" in German
        return None
    if groups.get("lone_month") in SHORT_MONTHS:
        return None
    name = next(iter(groups))
    try:
        period = _PERIODS[name](groups, today)
    except (ValueError, OverflowError):
        period = None
    return NamedTime(
        match.start(), match.end(), period, is_word=name in ("year", "year2", "iso_month") or period is None
    )


def _iso(groups: Mapping[str, str], _: date) -> Period:
    year, month, day = map(int, regex.split("[-/]", groups["iso"]))
    return _day(date(year, month, day))


def _iso_month(groups: Mapping[str, str], _: date) -> Period:
    year, month = map(int, regex.split("[-/]", groups["iso_month"]))
    return _months(year, month, 1)


def _numeric(groups: Mapping[str, str], _: date) -> Period:
    """Read 14.3.2026, 14/3/2026 and 3/14/2026. Of two numbers up to 12 the first is the month before `/`."""
    first, second, year = int(groups["first"]), int(groups["second"]), _gregorian(groups["numeric_year"])
    if second > 12 or (groups["mark"] == "/" and first <= 12):
        first, second = second, first
    return _day(date(year, second, first))


def _number_month(groups: Mapping[str, str], _: date) -> Period:
    return _months(_gregorian(groups["number_month_year"]), int(groups["number_month"]), 1)


def _dotted(groups: Mapping[str, str], today: date) -> Period:
    return _day(_last_date(int(groups["dotted_month"]), int(groups["dotted_day"]), today))


def _quarter(groups: Mapping[str, str], _: date) -> Period:
    number = int(groups["quarter"]) if "quarter" in groups else _ORDINALS[groups["ordinal"]]
    return _months(_gregorian(groups["quarter_year"]), 3 * number - 2, 3)


def _month_of_year(groups: Mapping[str, str], _: date) -> Period:
    year, month = _gregorian(groups["month_year"]), MONTHS[groups["month"]]
    day = groups.get("day") or groups.get("day_after")
    return _day(date(year, month, int(day))) if day else _months(year, month, 1)


def _day_of_month(groups: Mapping[str, str], today: date) -> Period:
    month = groups.get("day_month") or groups["day_month2"]
    return _day(_last_date(MONTHS[month], int(groups.get("day2") or groups["day3"]), today))


def _season(groups: Mapping[str, str], _: date) -> Period:
    return _months(_gregorian(groups["season_year"]), SEASONS[groups["season"]], 3)


def _last_season(groups: Mapping[str, str], today: date) -> Period:
    """Return the last season of the name that has ended."""
    month = SEASONS[groups.get("last_season") or groups["last_season2"]]
    periods = [_months(year, month, 3) for year in (today.year - 2, today.year - 1, today.year)]
    return max(period for period in periods if period[1].date() <= today)


def _lone_month(groups: Mapping[str, str], today: date) -> Period:
    month = next(MONTHS[groups[name]] for name in ("lone_month", "turkish_month", "indian_month") if name in groups)
    return _months(today.year if month <= today.month else today.year - 1, month, 1)


def _relative(groups: Mapping[str, str], today: date) -> Period:
    unit, count = RELATIVE[groups.get("relative") or groups["relative2"]]
    if unit == "day":
        return _day(today - timedelta(days=count))
    if unit == "year":
        return _months(today.year - count, 1, 12)
    if unit == "month":
        return _months(today.year, today.month - count, 1)
    monday = today - timedelta(days=today.weekday() + 7 * count)
    start, end = _day(monday)
    return (start, end + timedelta(days=6)) if unit == "week" else (start + timedelta(days=5), end + timedelta(days=6))


def _ago(groups: Mapping[str, str], today: date) -> Period:
    """Return the time about a number of days, weeks, months or years ago: a third of a unit before and after."""
    number, unit = _number_of_units(groups)
    days = _DAYS[unit]
    middle, slack = today - timedelta(days=number * days), timedelta(days=days // 3)
    return _day(middle - slack)[0], _day(middle + slack)[1]


def _since(groups: Mapping[str, str], today: date) -> Period:
    number, unit = _number_of_units(groups)
    return _day(today - timedelta(days=number * _DAYS[unit]))[0], _day(today)[1]


def _number_of_units(groups: Mapping[str, str]) -> tuple[int, str]:
    unit = next(value for name, value in groups.items() if name.startswith("unit"))
    number = next((value for name, value in groups.items() if name.startswith("number")), "1")
    return int(number) if number.isdecimal() else NUMBERS[number], UNITS[unit]


def _weekday(groups: Mapping[str, str], today: date) -> Period:
    """Return the last day of the name before today."""
    days = (today.weekday() - WEEKDAYS[groups["weekday"]]) % 7 or 7
    return _day(today - timedelta(days=days))


def _year(groups: Mapping[str, str], _: date) -> Period:
    return _months(
        _gregorian(next(groups[name] for name in ("year", "year2", "east_lone_year") if name in groups)), 1, 12
    )


def _east(groups: Mapping[str, str], today: date) -> Period:
    """Read 2026年3月14日, and the same without a year or a day."""
    month, day = int(groups["east_month"]), groups.get("east_day")
    if year := groups.get("east_year"):
        return _day(date(int(year), month, int(day))) if day else _months(int(year), month, 1)
    if day:
        return _day(_last_date(month, int(day), today))
    return _months(today.year if month <= today.month else today.year - 1, month, 1)


def _thai(groups: Mapping[str, str], today: date) -> Period:
    month, day, year = MONTHS[groups["thai_month"]], groups.get("thai_day"), groups.get("thai_year")
    if year:
        return _day(date(_gregorian(year), month, int(day))) if day else _months(_gregorian(year), month, 1)
    if day:
        return _day(_last_date(month, int(day), today))
    return _months(today.year if month <= today.month else today.year - 1, month, 1)


def _gregorian(year: str) -> int:
    number = int(year)
    return number - BUDDHIST_ERA if number >= 2500 else number


def _last_date(month: int, day: int, today: date) -> date:
    """Return the last day of this month and day that has begun; for 29 February in the last leap year."""
    for year in range(today.year, today.year - 8, -1):
        try:
            if (day_of_year := date(year, month, day)) <= today:
                return day_of_year
        except ValueError:
            if (month, day) != (2, 29):
                raise
    raise ValueError("no such day")


def _day(day: date) -> Period:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


def _months(year: int, month: int, count: int) -> Period:
    first, last = month - 1, month - 1 + count
    return (
        datetime(year + first // 12, first % 12 + 1, 1, tzinfo=UTC),
        datetime(year + last // 12, last % 12 + 1, 1, tzinfo=UTC),
    )


#: Days of a unit, roughly.
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}

#: What reads a match, by the first group that it has.
_PERIODS: Mapping[str, Callable[[Mapping[str, str], date], Period]] = {
    "iso": _iso, "iso_month": _iso_month, "first": _numeric, "number_month": _number_month, "dotted_day": _dotted,
    "ordinal": _quarter, "quarter": _quarter, "day": _month_of_year, "month": _month_of_year, "day2": _day_of_month,
    "day_month2": _day_of_month, "season": _season, "last_season": _last_season, "last_season2": _last_season,
    "lone_month": _lone_month, "turkish_month": _lone_month, "indian_month": _lone_month, "relative": _relative,
    "relative2": _relative, "number": _ago, "unit2": _ago, "number2": _ago, "unit3": _ago, "number4": _ago,
    "number_since": _since, "weekday": _weekday, "year": _year, "year2": _year, "east_year": _east, "east_month": _east,
    "east_lone_year": _year, "thai_day": _thai, "thai_month": _thai,
}  # fmt: skip
