"""Given a crontab line and a time zone, then its times are crontab(5)'s, also when the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.schedules import cron

BERLIN = ZoneInfo("Europe/Berlin")


def times(expression, zone, after, count):
    found = [after]
    for _ in range(count):
        found.append(cron.next_after(expression, zone, found[-1]))
    return found[1:]


def days(expression, count=4):
    """From Thursday, 1 January 2026, on."""
    return [f"{time:%a %d.%m.}" for time in times(expression, UTC_ZONE, datetime(2025, 12, 31, 12, tzinfo=UTC), count)]


UTC_ZONE = ZoneInfo("UTC")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * 0", ["Sun 04.01.", "Sun 11.01.", "Sun 18.01.", "Sun 25.01."]),
        ("0 0 * * 7", ["Sun 04.01.", "Sun 11.01.", "Sun 18.01.", "Sun 25.01."]),
        ("0 0 * * 1-5", ["Thu 01.01.", "Fri 02.01.", "Mon 05.01.", "Tue 06.01."]),
        ("0 0 * * fri-sun", ["Fri 02.01.", "Sat 03.01.", "Sun 04.01.", "Fri 09.01."]),
        ("0 0 * * */2", ["Thu 01.01.", "Sat 03.01.", "Sun 04.01.", "Tue 06.01."]),
        ("0 0 13 * 5", ["Fri 02.01.", "Fri 09.01.", "Tue 13.01.", "Fri 16.01."]),  # either will do
        ("0 0 1 feb-mar *", ["Sun 01.02.", "Sun 01.03.", "Mon 01.02.", "Mon 01.03."]),
        ("0 0 29 2 *", ["Tue 29.02.", "Sun 29.02.", "Fri 29.02.", "Wed 29.02."]),
    ],
)
def test_days_are_those_of_a_crontab(expression, expected):
    assert days(expression) == expected


@pytest.mark.parametrize(
    "expression",
    ["* * * *", "@daily", "60 * * * *", "* 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "0 0 * * foo",
     "*/0 * * * *", "5/10 * * * *", "0 0 L * *", "0 0 1 foo *", "1,,2 * * * *", "0  0 * * *", "0 0 * * */0",
     "9-5 * * * *",
     "0 0 * * 5-2", "-1 * * * *", "\u0661 * * * *"],
)  # fmt: skip
def test_what_is_no_crontab_line_is_refused(expression):
    with pytest.raises(ValueError, match="field"):
        cron.validate(expression)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 02:00 becomes 03:00 on 29 March: what is left out comes as long after 01:59 as ever.
        ("30 2 * * *", (2026, 3, 28, 12), ["29. 01:30", "30. 00:30"]),
        ("*/30 2,3 * * *", (2026, 3, 28, 12), ["29. 01:00", "29. 01:30", "30. 00:00"]),
        ("0 3 * * *", (2026, 3, 28, 12), ["29. 01:00", "30. 01:00"]),
        ("*/30 * * * *", (2026, 3, 29, 0), ["29. 00:30", "29. 01:00", "29. 01:30", "29. 02:00"]),
        # 03:00 becomes 02:00 on 25 October: of what comes twice, the first counts; hours pass as ever.
        ("30 2 * * *", (2026, 10, 24, 12), ["25. 00:30", "26. 01:30"]),
        ("30 2 * * *", (2026, 10, 25, 0, 30), ["26. 01:30"]),
        ("30 2,3 * * *", (2026, 10, 24, 12), ["25. 00:30", "25. 02:30", "26. 01:30"]),
        ("*/30 * * * *", (2026, 10, 24, 23, 59), ["25. 00:00", "25. 00:30", "25. 01:00", "25. 01:30", "25. 02:00"]),
    ],
)
def test_when_the_clocks_change_in_berlin(expression, after, expected):
    found = times(expression, BERLIN, datetime(*after, tzinfo=UTC), len(expected))

    assert [f"{time.astimezone(UTC):%d. %H:%M}" for time in found] == expected


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "13 */3 * * *", "5,35 1-3 * * 1-5", "0 0 1 * 1", "30 0-2 * * *"]),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Asia/Kolkata"]),
    st.integers(0, 366 * 86_400),
)
def test_times_only_go_on_and_whoever_asks_later_hears_the_same(expression, name, seconds):
    zone, after = ZoneInfo(name), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    found = cron.next_after(expression, zone, after)

    assert found is not None
    assert found > after
    assert found.second == found.microsecond == 0
    assert cron.next_after(expression, zone, after + (found - after) / 2) == found
    assert cron.next_after(expression, zone, found - timedelta(seconds=1)) == found


def test_a_day_that_never_comes_has_no_time():
    assert cron.next_after("0 0 31 2 *", UTC_ZONE, datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_of_two_ways_one_that_never_comes_is_not_looked_for_again_and_again():
    """It would take a quarter of a second each time, and a list shows five times of each of a hundred schedules."""
    assert len(cron._triggers("0 0 31 2 1")) == 1
    assert times("0 0 31 2 1", UTC_ZONE, datetime(2026, 1, 1, tzinfo=UTC), 2) == [
        datetime(2026, 2, 2, tzinfo=UTC), datetime(2026, 2, 9, tzinfo=UTC),
    ]  # fmt: skip
