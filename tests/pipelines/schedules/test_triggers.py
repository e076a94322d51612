"""Given a trigger, then it computes its times, survives being stored, and its last time before another is found."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.schedules.triggers import (
    Cron,
    Interval,
    Once,
    last_before,
    next_fire_times,
    trigger_from_json,
    trigger_to_json,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def later(**duration):
    return NOON + timedelta(**duration)


@pytest.mark.parametrize("trigger", [Cron("0 9 * * 1-5", "Europe/Berlin"), Interval(90, NOON), Once(NOON)])
def test_a_trigger_survives_being_stored(trigger):
    assert trigger_from_json(trigger_to_json(trigger)) == trigger


def test_an_interval_counts_from_its_start():
    trigger = Interval(90, NOON)

    assert trigger.next_after(later(days=-1)) == NOON
    assert trigger.next_after(NOON) == later(seconds=90)
    assert trigger.next_after(later(seconds=89, milliseconds=999)) == later(seconds=90)
    assert trigger.next_after(later(seconds=90)) == later(seconds=180)


def test_a_single_time_has_no_next_one():
    assert next_fire_times(Once(NOON), Once(NOON).next_after(later(seconds=-1)), 5) == [NOON]
    assert Once(NOON).next_after(NOON) is None


@pytest.mark.parametrize(
    ("trigger", "end", "last"),
    [
        (Interval(1, NOON), later(days=3650), later(days=3650, seconds=-1)),
        (Interval(1, NOON), later(seconds=1), NOON),
        (Cron("* * * * *"), later(days=3650), later(days=3650, minutes=-1)),
        (Cron("* * 1 1 *"), later(days=300), datetime(2026, 1, 1, 23, 59, tzinfo=UTC)),  # its times end long before
        (Cron("0 12 1 1 *"), later(days=300), NOON),
        (Once(NOON), later(days=1), NOON),
    ],
)
def test_the_last_time_before_a_moment_is_found(trigger, end, last):
    assert last_before(trigger, NOON, end) == last
