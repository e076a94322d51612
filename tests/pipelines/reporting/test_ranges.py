"""Ranges by name: whole days, weeks, months, quarters and years of a zone, before or around a time."""

from datetime import UTC, datetime

import pytest

from pipelines.reporting.ranges import resolve_range

#: A Sunday, on which summer time ends in Berlin.
NOW = datetime(2026, 10, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("today", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        ("yesterday", "2026-10-24T00:00:00+02:00", "2026-10-25T00:00:00+02:00"),
        ("this_week", "2026-10-19T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        ("last_week", "2026-10-12T00:00:00+02:00", "2026-10-19T00:00:00+02:00"),
        ("this_month", "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00"),
        ("last_month", "2026-09-01T00:00:00+02:00", "2026-10-01T00:00:00+02:00"),
        ("this_quarter", "2026-10-01T00:00:00+02:00", "2027-01-01T00:00:00+01:00"),
        ("last_quarter", "2026-07-01T00:00:00+02:00", "2026-10-01T00:00:00+02:00"),
        ("this_year", "2026-01-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00"),
        ("last_year", "2025-01-01T00:00:00+01:00", "2026-01-01T00:00:00+01:00"),
        ("last_7_days", "2026-10-18T00:00:00+02:00", "2026-10-25T00:00:00+02:00"),
        ("last_30_days", "2026-09-25T00:00:00+02:00", "2026-10-25T00:00:00+02:00"),
    ],
)
def test_a_range_begins_and_ends_at_midnights_of_the_zone(name, first, last):
    assert tuple(time.isoformat() for time in resolve_range(name, "Europe/Berlin", NOW)) == (first, last)


def test_the_first_of_a_month_in_the_zone_has_the_month_before():
    # Given a time at which it is the 1st in Auckland and still the 31st in UTC
    first_of_month = datetime(2026, 12, 31, 11, 30, tzinfo=UTC)

    start, end = resolve_range("last_month", "Pacific/Auckland", first_of_month)

    assert (start.isoformat(), end.isoformat()) == ("2026-12-01T00:00:00+13:00", "2027-01-01T00:00:00+13:00")


def test_a_leap_day_has_a_last_month_and_a_last_year():
    leap_day = datetime(2028, 2, 29, tzinfo=UTC)

    assert resolve_range("last_month", "UTC", leap_day)[0] == datetime(2028, 1, 1, tzinfo=UTC)
    assert resolve_range("last_year", "UTC", leap_day)[0] == datetime(2027, 1, 1, tzinfo=UTC)
