"""Days, months, seasons and years that a query names are parsed as periods; others refer to the present."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.memory.periods import parse_period


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("What did she do in May 2023?", "2023-05-01", "2023-06-01"),
        ("in december, 2023", "2023-12-01", "2024-01-01"),
        ("Sept. 2023", "2023-09-01", "2023-10-01"),
        ("on 7 May 2023", "2023-05-07", "2023-05-08"),
        ("on the 31st of December 2023", "2023-12-31", "2024-01-01"),
        ("on May 7th, 2023", "2023-05-07", "2023-05-08"),
        ("on 2023-05-07", "2023-05-07", "2023-05-08"),
        ("in the summer of 2022", "2022-06-01", "2022-09-01"),
        ("winter 2022", "2022-12-01", "2023-03-01"),
        ("back in 1999", "1999-01-01", "2000-01-01"),
        ("between May 2023 and July 2023", "2023-05-01", "2023-08-01"),
    ],
)
def test_time_expression_is_a_period(query: str, start: str, end: str) -> None:
    assert parse_period(query) == (day(start), day(end))


#: A Friday.
NOW = day("2026-11-27") + timedelta(hours=12)


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("in March", "2026-03-01", "2026-04-01"),
        ("in December", "2025-12-01", "2026-01-01"),
        ("on 14 March", "2026-03-14", "2026-03-15"),
        ("on 14.03.2026", "2026-03-14", "2026-03-15"),
        ("am 14.3.", "2026-03-14", "2026-03-15"),
        ("3/14/2026", "2026-03-14", "2026-03-15"),
        ("14/03/2026", "2026-03-14", "2026-03-15"),
        ("in 03/2026", "2026-03-01", "2026-04-01"),
        ("in 2026-03", "2026-03-01", "2026-04-01"),
        ("in the first quarter of 2026", "2026-01-01", "2026-04-01"),
        ("Q3 2026", "2026-07-01", "2026-10-01"),
        ("today", "2026-11-27", "2026-11-28"),
        ("yesterday", "2026-11-26", "2026-11-27"),
        ("last week", "2026-11-16", "2026-11-23"),
        ("last weekend", "2026-11-21", "2026-11-23"),
        ("last month", "2026-10-01", "2026-11-01"),
        ("last summer", "2026-06-01", "2026-09-01"),
        ("last autumn", "2025-09-01", "2025-12-01"),
        ("last Friday", "2026-11-20", "2026-11-21"),
        ("two weeks ago", "2026-11-11", "2026-11-16"),
        ("a month ago", "2026-10-18", "2026-11-08"),
        ("the last 3 days", "2026-11-24", "2026-11-28"),
        ("im März 2026", "2026-03-01", "2026-04-01"),
        ("en mars 2026", "2026-03-01", "2026-04-01"),
        ("2026年3月", "2026-03-01", "2026-04-01"),
        ("2026年3月14日に", "2026-03-14", "2026-03-15"),
        ("im März", "2026-03-01", "2026-04-01"),
        ("Qu'est-ce que j'ai fait hier ?", "2026-11-26", "2026-11-27"),
        ("la semana pasada", "2026-11-16", "2026-11-23"),
        ("geçen hafta", "2026-11-16", "2026-11-23"),
        ("Mart'ta", "2026-03-01", "2026-04-01"),
        ("на прошлой неделе", "2026-11-16", "2026-11-23"),
        ("في مارس 2026", "2026-03-01", "2026-04-01"),
        ("पिछले हफ्ते", "2026-11-16", "2026-11-23"),
        ("昨日何をした", "2026-11-26", "2026-11-27"),
        ("上个月", "2026-10-01", "2026-11-01"),
        ("มีนาคม 2569", "2026-03-01", "2026-04-01"),
        ("지난주에 뭐 했어?", "2026-11-16", "2026-11-23"),
    ],
)
def test_time_without_a_year_and_in_other_languages_refers_to_now(query: str, start: str, end: str) -> None:
    assert parse_period(query, NOW) == (day(start), day(end))


def test_29_february_without_a_year_is_in_the_last_leap_year() -> None:
    assert parse_period("on 29 February", NOW) == (day("2024-02-29"), day("2024-03-01"))


@pytest.mark.parametrize(
    "query",
    [
        "Whose locker has the code 1938?",
        "Who booked room 1902?",
        "Where is part 1988-4471?",
        "code 1938",
        "Was liegt hier?",
        "march to the beach",
        "a may tree",
        "31.02.2026",
    ],
)
def test_number_or_word_that_may_be_something_else_is_no_time(query: str) -> None:
    assert parse_period(query, NOW) is None


@pytest.mark.parametrize("query", ["", "may I?", "room 20234", "31 February 2023", "2023-13-01", "19 apples"])
def test_text_without_a_full_date_has_no_period(query: str) -> None:
    assert parse_period(query) is None
