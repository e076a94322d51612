"""Given a crontab expression and a time zone, then its times are those of crontab(5), also when the clocks change."""

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.schedules import cron

BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")


def times(expression, zone, after, count):
    result = [after]
    for _ in range(count):
        result.append(cron.next_after(expression, zone, result[-1]))
    return result[1:]


def days(expression, count=4):
    """Return the first days on or after Thursday, 1 January 2026."""
    return [f"{time:%a %d.%m.}" for time in times(expression, UTC_ZONE, datetime(2025, 12, 31, 12, tzinfo=UTC), count)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * 0", ["Sun 04.01.", "Sun 11.01.", "Sun 18.01.", "Sun 25.01."]),
        ("0 0 * * 7", ["Sun 04.01.", "Sun 11.01.", "Sun 18.01.", "Sun 25.01."]),
        ("0 0 * * 1-5", ["Thu 01.01.", "Fri 02.01.", "Mon 05.01.", "Tue 06.01."]),
        ("0 0 * * fri-sun", ["Fri 02.01.", "Sat 03.01.", "Sun 04.01.", "Fri 09.01."]),
        ("0 0 * * */2", ["Thu 01.01.", "Sat 03.01.", "Sun 04.01.", "Tue 06.01."]),
        ("0 0 13 * 5", ["Fri 02.01.", "Fri 09.01.", "Tue 13.01.", "Fri 16.01."]),  # either matches
        ("0 0 * * mon-sun/3", ["Thu 01.01.", "Sun 04.01.", "Mon 05.01.", "Thu 08.01."]),
        ("0 0 * * fri-5/2", ["Fri 02.01.", "Fri 09.01.", "Fri 16.01.", "Fri 23.01."]),
        ("0 0 * * fri-05/2", ["Fri 02.01.", "Fri 09.01.", "Fri 16.01.", "Fri 23.01."]),
        ("0 0 04-4/2 * *", ["Sun 04.01.", "Wed 04.02.", "Wed 04.03.", "Sat 04.04."]),
        ("0 0 1 feb-mar *", ["Sun 01.02.", "Sun 01.03.", "Mon 01.02.", "Mon 01.03."]),
        ("0 0 29 2 *", ["Tue 29.02.", "Sun 29.02.", "Fri 29.02.", "Wed 29.02."]),
    ],
)
def test_days_match_as_in_crontab_5(expression, expected):
    assert days(expression) == expected


@pytest.mark.parametrize(
    "expression",
    ["* * * *", "@reboot", "60 * * * *", "* 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "0 0 * * foo",
     "*/0 * * * *", "5/10 * * * *", "0 0 L * *", "0 0 1 foo *", "1,,2 * * * *", "0 0 * * */0",
     "0 0 * * 5-5/0", "0 0 3-3/0 * *",
     "9-5 * * * *",
     "0 0 * * 5-2", "0 0 31 2 *", "0\n0 * * *", "0\u00a00 * * *", "-1 * * * *", "\u0661 * * * *"],
)  # fmt: skip
def test_an_invalid_expression_is_rejected_by_field(expression):
    with pytest.raises(ValueError, match="field"):
        cron.validate(expression)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 02:00 becomes 03:00 on 29 March: a skipped time counts with the offset before the change.
        ("30 2 * * *", (2026, 3, 28, 12), ["29. 01:30", "30. 00:30"]),
        ("*/30 2,3 * * *", (2026, 3, 28, 12), ["29. 01:00", "29. 01:30", "30. 00:00"]),
        ("0 3 * * *", (2026, 3, 28, 12), ["29. 01:00", "30. 01:00"]),
        ("*/30 * * * *", (2026, 3, 29, 0), ["29. 00:30", "29. 01:00", "29. 01:30", "29. 02:00"]),
        # 03:00 becomes 02:00 on 25 October: of a repeated time the first fires; `*` follows elapsed hours.
        ("30 2 * * *", (2026, 10, 24, 12), ["25. 00:30", "26. 01:30"]),
        ("30 2 * * *", (2026, 10, 25, 0, 30), ["26. 01:30"]),
        ("30 2,3 * * *", (2026, 10, 24, 12), ["25. 00:30", "25. 02:30", "26. 01:30"]),
        ("*/30 * * * *", (2026, 10, 24, 23, 59), ["25. 00:00", "25. 00:30", "25. 01:00", "25. 01:30", "25. 02:00"]),
    ],
)
def test_times_when_the_clocks_change_in_berlin(expression, after, expected):
    next_times = times(expression, BERLIN, datetime(*after, tzinfo=UTC), len(expected))

    assert [f"{time.astimezone(UTC):%d. %H:%M}" for time in next_times] == expected


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "13 */3 * * *", "5,35 1-3 * * 1-5", "0 0 1 * 1", "30 0-2 * * *"]),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Asia/Kolkata"]),
    st.integers(0, 366 * 86_400),
)
def test_the_next_time_is_later_and_the_same_from_any_moment_before_it(expression, name, seconds):
    zone, after = ZoneInfo(name), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    next_time = cron.next_after(expression, zone, after)

    assert next_time is not None
    assert next_time > after
    assert next_time.second == next_time.microsecond == 0
    assert cron.next_after(expression, zone, after + (next_time - after) / 2) == next_time
    assert cron.next_after(expression, zone, next_time - timedelta(seconds=1)) == next_time


def test_a_date_that_never_occurs_has_no_next_time():
    assert cron.next_after("0 0 31 2 *", UTC_ZONE, datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_a_date_that_never_occurs_beside_a_weekday_costs_no_search():
    """A list of a hundred schedules shows five times of each: a search of years for each one would take seconds."""
    expected = [datetime(2026, 2, 2, tzinfo=UTC), datetime(2026, 2, 9, tzinfo=UTC)]
    assert times("0 0 31 2 1", UTC_ZONE, datetime(2026, 1, 1, tzinfo=UTC), 2) == expected

    begin = time.process_time()
    for _ in range(100):
        cron.next_after("0 0 31 2 1", UTC_ZONE, datetime(2026, 1, 1, tzinfo=UTC))
        cron.next_after("0 0 31 2 *", UTC_ZONE, datetime(2026, 1, 1, tzinfo=UTC))
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("0  9 * * 1-5", "0 9 * * 1-5"),
        ("0\t9 *  * *", "0 9 * * *"),
        (" 0 9 * * * \r\n", "0 9 * * *"),
        ("0 9 * * MON", "0 9 * * 1"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Annually", "0 0 1 1 *"),
    ],
)
def test_blanks_case_and_nicknames_are_those_of_crontab_5(expression, same):
    cron.validate(expression)

    after = datetime(2026, 3, 28, tzinfo=UTC)
    assert times(expression, BERLIN, after, 30) == times(same, BERLIN, after, 30)


@pytest.mark.parametrize("name", ["localtime", "Factory", "Mars/Olympus"])
def test_a_time_zone_that_depends_on_the_machine_is_not_offered(name):
    assert name not in cron.time_zones()
    assert "Europe/Berlin" in cron.time_zones()


@pytest.mark.parametrize(
    "expression", ["1 0 31 2,4,6,9,11 *", "0 0 30 2 */7", "0 0 29 2 */7", "59 23 29 2 */6", "0 0 29 2 *"]
)
def test_an_expression_that_fires_rarely_or_never_takes_milliseconds(expression):
    """29 February on a Sunday is up to 40 years away; a day that no month has is rejected by arithmetic."""
    started = time.process_time()
    try:
        cron.validate(expression)
    except ValueError as error:
        assert "day of month" in str(error)  # noqa: PT017 - either outcome is right, if it is fast
    else:
        times(expression, BERLIN, datetime(2072, 3, 1, tzinfo=UTC), 2)
    assert time.process_time() - started < 0.1
