"""Fire due schedules: insert the firing and its job, and set the next time, in one transaction.

Any number of processes may fire at once. Each locks a row that no other process has locked, and checks by the
database's clock that it is still due. If that clock jumps ahead, times are missed; if it jumps back, times come again,
and the history shows that they have fired.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from models.access.auth_context import AuthContext
from models.platform.database import Connection, Database
from models.platform.errors import NotAllowed, RequestError, Unavailable
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.schedules import firings, schedules
from models.schedules.firings import Firing
from models.schedules.schedules import DueSchedule, Schedule
from pipelines.schedules import starters
from pipelines.schedules.starters import StartedWork
from pipelines.schedules.triggers import Trigger, last_before, trigger_from_json

log = logging.getLogger(__name__)

#: Schedules that one query returns.
BATCH = 100

#: A schedule that was planned this far in the future shows that the clock has jumped back.
CLOCK_TOLERANCE = timedelta(minutes=1)

#: At least the interval of `fire_due`, so that no time since the clock jumped back is left out.
LOOK_BACK = timedelta(seconds=1)

#: A schedule whose account another transaction locks for longer is left for the next call.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"


@dataclass(frozen=True, slots=True)
class FiredSchedule:
    """A schedule that was handled; `started` is None if it started no work."""

    schedule_id: str
    started: StartedWork | None = None


@dataclass(frozen=True, slots=True)
class FiringPlan:
    """The time for which a schedule fires.

    missed_since  the first of the missed times; None if it fires in time
    skipped       the missed times are not made up for
    """

    fire_time: datetime
    missed_since: datetime | None = None
    skipped: bool = False


def fire_due(
    database: Database, settings: Settings, kinds: Sequence[str], now: datetime | None = None
) -> Iterator[FiredSchedule]:
    """Fire all due schedules of these kinds. Each is committed when it is yielded; announce its work to the queue.

    `now` replaces the database's clock in tests. Raises Unavailable.
    """
    progress = True
    while progress:
        with database.connection() as connection:
            due_schedules = schedules.list_due(connection, kinds, BATCH, now)
        progress = False
        for due in due_schedules:
            if (fired := fire(database, settings, due, now)) is not None:
                progress = True
                yield fired


def fire(database: Database, settings: Settings, due: DueSchedule, now: datetime | None = None) -> FiredSchedule | None:
    """Fire one schedule once. Returns None if another process has locked or fired it, or a lock times out."""
    try:
        with database.transaction() as connection:
            connection.execute(LOCK_TIMEOUT)
            auth_context = schedules.lock_auth_context(connection, due.account_id, due.user_id) if due.user_id else None
            schedule = schedules.lock_if_due(connection, due.id)
            now = now or schedules.database_time(connection)
            return _fire(connection, settings, schedule, auth_context, now) if schedule else None
    except LockNotAvailable:
        return None
    except Unavailable as error:
        if isinstance(error.__cause__, DeadlockDetected):
            return None
        raise
    except Exception:  # the schedule stays due; the others must fire
        log.exception("Schedule %s: cannot fire", due.id)
        return None


def _fire(
    connection: Connection, settings: Settings, schedule: Schedule, auth_context: AuthContext | None, now: datetime
) -> FiredSchedule | None:
    trigger, first = trigger_from_json(schedule.trigger), schedule.next_fire_at
    assert first is not None
    if first > now:
        if schedule.planned_at <= now + CLOCK_TOLERANCE:
            return None
        schedules.set_next_fire(connection, schedule.id, trigger.next_after(now - LOOK_BACK), now)
        return FiredSchedule(schedule.id)
    plan = plan_firing(trigger, first, schedule, now)
    started = None
    if not firings.exists(connection, schedule.id, plan.fire_time):
        started = _start_and_record(connection, settings, schedule, auth_context, plan, now)
    schedules.set_next_fire(connection, schedule.id, trigger.next_after(plan.fire_time), now)
    return FiredSchedule(schedule.id, started)


def plan_firing(trigger: Trigger, first: datetime, schedule: Schedule, now: datetime) -> FiringPlan:
    """Return the time for which a schedule that was due at `first` fires now.

    Each time that is late by at most the grace period fires by itself. Earlier ones were missed. `run_once` makes up
    for them by firing for the next time that is due and not missed, or otherwise for the last missed one.
    """
    horizon = now - timedelta(seconds=schedule.grace_seconds)
    if first >= horizon:
        return FiringPlan(first)
    last_missed = last_before(trigger, first, horizon)
    if schedule.if_missed == "skip":
        return FiringPlan(last_missed, first, skipped=True)
    following = trigger.next_after(last_missed)
    return FiringPlan(following if following is not None and following <= now else last_missed, first)


def _start_and_record(
    connection: Connection,
    settings: Settings,
    schedule: Schedule,
    auth_context: AuthContext | None,
    plan: FiringPlan,
    now: datetime,
) -> StartedWork | None:
    """Start the work, unless it is skipped, and insert the firing."""
    started, error = (
        (None, None) if plan.skipped else _start(connection, settings, schedule, auth_context, plan.fire_time)
    )
    firing = Firing(
        id=new_id("fire"),
        schedule_id=schedule.id,
        account_id=schedule.account_id,
        fire_time=plan.fire_time,
        fired_at=now,
        missed_since=plan.missed_since,
        status="started" if started else "refused" if error else "skipped",
        job_id=started.job_id if started else None,
        error=error,
    )
    firings.insert(connection, firing)
    return started


def _start(
    connection: Connection,
    settings: Settings,
    schedule: Schedule,
    auth_context: AuthContext | None,
    fire_time: datetime,
) -> tuple[StartedWork | None, dict[str, Any] | None]:
    """Start the work. Returns it, or the error for the schedule's owner, after rolling back what was inserted."""
    try:
        with connection.transaction():
            if schedule.user_id is not None and auth_context is None:
                raise NotAllowed("The user of this schedule is no longer a member of the account.")
            return starters.start(connection, schedule, auth_context, settings, fire_time), None
    except RequestError as error:
        return None, {"code": error.code, "message": error.message}
    except (psycopg.OperationalError, psycopg.InterfaceError):
        raise
    except Exception:  # an internal error must stop neither other schedules nor this one's next time
        log.exception("Schedule %s: cannot start its work", schedule.id)
        return None, {"code": "server_error", "message": "The work could not be started because of an internal error."}
