"""`sangha schedules`: what fires when, what came of it, and which process leads."""

from collections.abc import Sequence
from datetime import datetime

import click

from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.settings import Settings
from models.schedules import schedules
from models.schedules.schedules import Schedule
from ops.operator import connected, table
from scheduler.leader import leader

#: How many schedules are shown at most.
MOST = 1000


def show_schedules(settings: Settings, *, all_of_them: bool) -> None:
    """The leader, then one line a schedule, those that fire next first."""
    with connected(settings) as connection:
        leads = leader(connection)
        found = schedules.any_schedules(connection, MOST, None if all_of_them else PLATFORM_ACCOUNT)
    click.echo(f"leader: {leads.name}, since {_time(leads.since)}" if leads else "leader: none; run `sangha scheduler`")
    if not found:
        click.echo("No schedules yet: the first leader puts the timetable in its place.")
        return
    table(["schedule", "work", "account", "when", "next", "last", "came of it"], rows(found))


def rows(found: Sequence[Schedule]) -> list[list[object]]:
    """What the lines say."""
    return [
        [
            schedule.id,
            schedule.kind,
            schedule.account_id,
            when(schedule),
            _time(schedule.next_fire_at) if schedule.next_fire_at else schedule.status,
            _time(schedule.last.fire_time) if schedule.last else "-",
            outcome(schedule),
        ]
        for schedule in found
    ]


def when(schedule: Schedule) -> str:
    """The trigger in a few words."""
    trigger = schedule.trigger
    match trigger["type"]:
        case "cron":
            return f"{trigger['expression']} {trigger['time_zone']}"
        case "interval":
            return f"every {trigger['seconds']} s"
        case _:
            return "once"


def outcome(schedule: Schedule) -> str:
    """What came of the last time."""
    last = schedule.last
    if last is None:
        return "-"
    if last.status == "started":
        return f"{last.job_id} {last.job_state or 'gone'}"
    return f"{last.status}: {last.error['code']}" if last.error else last.status


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S%z}"
