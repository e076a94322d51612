"""Days, months, seasons and years that a query names are parsed as periods; times without a year are not."""

from datetime import UTC, datetime

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


@pytest.mark.parametrize("query", ["", "in May", "may I?", "room 20234", "31 February 2023", "2023-13-01", "19 apples"])
def test_text_without_a_full_date_has_no_period(query: str) -> None:
    assert parse_period(query) is None
