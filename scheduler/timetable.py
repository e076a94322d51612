"""What the platform does periodically, by the name of the job's kind."""

from collections.abc import Mapping

from apscheduler.triggers.cron import CronTrigger

#: Kind of work → when, in UTC.
TIMETABLE: Mapping[str, CronTrigger] = {
    "maintenance.prune": CronTrigger(hour=3, minute=30, timezone="UTC"),
}
