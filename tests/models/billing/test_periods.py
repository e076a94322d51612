"""Periods that are counted from an anchor."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.billing.periods import bounds, period_start

ANCHORS = st.integers(946_684_800, 4_102_444_800).map(lambda time: datetime.fromtimestamp(time, UTC))
PERIODS = st.sampled_from(["month", "year"])


def date(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("anchor", "period", "number", "start"),
    [
        ("2026-01-31T10:30", "month", 1, "2026-02-28T10:30"),
        ("2024-01-31T10:30", "month", 1, "2024-02-29T10:30"),
        ("2026-01-31T10:30", "month", 2, "2026-03-31T10:30"),
        ("2026-01-31T10:30", "month", 3, "2026-04-30T10:30"),
        ("2025-12-15T00:00", "month", 1, "2026-01-15T00:00"),
        ("2024-02-29T00:00", "year", 1, "2025-02-28T00:00"),
        ("2024-02-29T00:00", "year", 4, "2028-02-29T00:00"),
        ("2026-01-31T10:30", "month", 0, "2026-01-31T10:30"),
    ],
)
def test_period_begins_at_the_day_of_the_anchor_or_the_last_of_a_shorter_month(anchor, period, number, start):
    assert period_start(date(anchor), period, number) == date(start)


def test_periods_are_counted_in_utc():
    # Given an anchor that is the first of a month only in its own time zone
    anchor = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))

    assert period_start(anchor, "month", 1) == date("2026-03-28T22:30")


@given(ANCHORS, PERIODS, st.integers(0, 500))
def test_periods_follow_each_other_without_gap_and_keep_the_day(anchor, period, number):
    start, end = bounds(anchor, period, number)

    assert start < end == bounds(anchor, period, number + 1)[0]
    assert end.time() == anchor.time()
    assert end.day == anchor.day or (end + timedelta(days=1)).day == 1
