"""The platform's periodic jobs, stored as schedules like those of users."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.database import Database
from models.schedules import schedules
from models.schedules.schedules import IfMissed, Schedule
from pipelines.schedules.triggers import Cron, Interval, trigger_to_json


@dataclass(frozen=True, slots=True)
class TimetableEntry:
    """When a kind of job is due; a firing counts as missed when it is more than `grace` seconds late."""

    trigger: Cron | Interval
    if_missed: IfMissed = "run_once"
    grace: int = 3600


#: Kind of job → its trigger.
TIMETABLE: Mapping[str, TimetableEntry] = {
    "maintenance.prune": TimetableEntry(Cron("30 3 * * *")),
    "maintenance.sweep_objects": TimetableEntry(Cron("40 4 * * *")),
    "maintenance.archive_jobs": TimetableEntry(Cron("10 * * * *"), if_missed="skip", grace=600),
    # Daily, for accounts whose subscription ended, or whose invoice was voided, since the beginning of the month.
    "usage.invoice": TimetableEntry(Cron("20 2 * * *")),
    "subscriptions.due": TimetableEntry(Cron("* * * * *"), if_missed="run_once", grace=600),
    "credits.expire": TimetableEntry(Cron("5 * * * *"), if_missed="skip", grace=600),
    "credits.top_up": TimetableEntry(Cron("* * * * *"), if_missed="skip", grace=600),
    "spending.notify": TimetableEntry(Cron("* * * * *"), if_missed="skip", grace=600),
    "rollups.update": TimetableEntry(Cron("* * * * *"), if_missed="skip", grace=600),
    "meditation.nightly": TimetableEntry(Cron("0 1 * * *"), grace=6 * 3600),
}


def schedule_id(kind: str) -> str:
    """Return the id of the schedule of a kind."""
    return f"sched_{kind}"


def store_timetable(database: Database) -> None:
    """Insert or update the timetable's schedules. An unchanged trigger keeps its next time."""
    with database.transaction() as connection:
        now = schedules.database_time(connection)
        for kind, entry in TIMETABLE.items():
            schedules.upsert_platform_schedule(
                connection,
                Schedule(
                    id=schedule_id(kind),
                    account_id=PLATFORM_ACCOUNT,
                    user_id=None,
                    name=kind,
                    kind=kind,
                    asked={},
                    plan={},
                    trigger=trigger_to_json(entry.trigger),
                    if_missed=entry.if_missed,
                    grace_seconds=entry.grace,
                    paused_at=None,
                    next_fire_at=entry.trigger.next_after(now),
                    planned_at=now,
                    created_at=now,
                    updated_at=now,
                ),
            )
