"""`sangha schedules`: each schedule with its next time and its last result."""

from datetime import datetime

import click

from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.settings import Settings
from models.schedules import schedules
from models.schedules.schedules import Schedule
from ops.database_connection import transaction
from ops.table import align_columns

#: Schedules that are listed at most.
MAX_SCHEDULES = 1000

HEADINGS = ("schedule", "kind", "account", "trigger", "next", "last", "result")


def show_schedules(settings: Settings, *, all_accounts: bool) -> None:
    """Print one line per schedule, the next to fire first."""
    with transaction(settings) as connection:
        rows = schedules.list_all(connection, MAX_SCHEDULES, None if all_accounts else PLATFORM_ACCOUNT)
    if not rows:
        click.echo("No schedules. `sangha scheduler` stores the timetable when it starts.")
        return
    click.echo("\n".join(align_columns([HEADINGS, *map(schedule_row, rows)])))


def schedule_row(schedule: Schedule) -> list[object]:
    """Return the cells of a schedule's line."""
    return [
        schedule.id,
        schedule.kind,
        schedule.account_id,
        describe_trigger(schedule),
        _time(schedule.next_fire_at) if schedule.next_fire_at else schedule.status,
        _time(schedule.last.fire_time) if schedule.last else "-",
        describe_last_firing(schedule),
    ]


def describe_trigger(schedule: Schedule) -> str:
    """`30 3 * * * UTC`, `every 60 s` or `once`."""
    trigger = schedule.trigger
    match trigger["type"]:
        case "cron":
            return f"{trigger['expression']} {trigger['time_zone']}"
        case "interval":
            return f"every {trigger['seconds']} s"
        case _:
            return "once"


def describe_last_firing(schedule: Schedule) -> str:
    """Return the job of the last firing and its state, or why none was started."""
    last = schedule.last
    if last is None:
        return "-"
    if last.status == "started":
        return f"{last.job_id} {last.job_state or 'deleted'}"
    return f"{last.status}: {last.error['code']}" if last.error else last.status


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S%z}"
