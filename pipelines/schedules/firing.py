"""Firing: a schedule whose time has come gets its firing, its job and its next time in one transaction.

Any number of processes may do this at once. Each takes a row that nobody else has, by the database's clock, and finds
it not due any more where another one was first. A clock that goes ahead makes firings that were missed; one that goes
back, times that have fired already, which the history knows.
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

#: Schedules that are looked up at a time.
BATCH = 100

#: A plan that was made so much in the future tells of a clock that went back.
SLACK = timedelta(minutes=1)

#: The longest between two rounds: a time may have come between the clock's going back and our seeing it.
ROUND = timedelta(seconds=1)

#: What somebody else holds for longer than this is left for the next round, so that it holds nobody up.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"


@dataclass(frozen=True, slots=True)
class FiredSchedule:
    """A schedule that was dealt with; `begun` is None where nothing had to be begun."""

    schedule_id: str
    started: StartedWork | None = None


@dataclass(frozen=True, slots=True)
class FiringPlan:
    """What a schedule is to fire for.

    missed_since  the first of the times that were missed; None: it is on time
    skipped       missed, and not to be made up for
    """

    fire_time: datetime
    missed_since: datetime | None = None
    skipped: bool = False


def fire_due(
    database: Database, settings: Settings, known: Sequence[str], now: datetime | None = None
) -> Iterator[FiredSchedule]:
    """Fire all that is due of the `known` kinds. Each is committed when it is told; tell the queue what it began.

    `now` stands for the database's clock, in tests. Raises Unavailable when the database does not answer.
    """
    progress = True
    while progress:
        with database.connection() as connection:
            found = schedules.list_due(connection, known, BATCH, now)
        progress = False
        for due in found:
            if (fired := fire(database, settings, due, now)) is not None:
                progress = True
                yield fired


def fire(database: Database, settings: Settings, due: DueSchedule, now: datetime | None = None) -> FiredSchedule | None:
    """Fire one schedule once. None: another process has it, or has done it, or a lock must be waited for."""
    try:
        with database.transaction() as connection:
            connection.execute(LOCK_TIMEOUT)
            standing = schedules.lock_auth_context(connection, due.account_id, due.user_id) if due.user_id else None
            schedule = schedules.lock_if_due(connection, due.id)
            now = now or schedules.database_time(connection)
            return _fire(connection, settings, schedule, standing, now) if schedule else None
    except Unavailable as error:
        if isinstance(error.__cause__, LockNotAvailable | DeadlockDetected):
            return None
        raise
    except Exception:  # it stays due; the others go on
        log.exception("the schedule %s could not fire", due.id)
        return None


def _fire(
    connection: Connection, settings: Settings, schedule: Schedule, standing: AuthContext | None, now: datetime
) -> FiredSchedule | None:
    trigger, first = trigger_from_json(schedule.trigger), schedule.next_fire_at
    assert first is not None
    if first > now:
        if schedule.planned_at <= now + SLACK:
            return None
        schedules.set_next_fire(connection, schedule.id, trigger.next_after(now - ROUND), now)
        return FiredSchedule(schedule.id)
    occasion = plan_firing(trigger, first, schedule, now)
    begun = None
    if not firings.exists(connection, schedule.id, occasion.fire_time):
        begun = _begin(connection, settings, schedule, standing, occasion, now)
    schedules.set_next_fire(connection, schedule.id, trigger.next_after(occasion.fire_time), now)
    return FiredSchedule(schedule.id, begun)


def plan_firing(trigger: Trigger, first: datetime, schedule: Schedule, now: datetime) -> FiringPlan:
    """What a schedule that was due at `first` fires for now.

    Each time that is late by no more than the grace fires for itself. The earlier ones were missed: to run them once is
    to fire for the earliest that is not, or else for the last that is.
    """
    horizon = now - timedelta(seconds=schedule.grace_seconds)
    if first >= horizon:
        return FiringPlan(first)
    missed = last_before(trigger, first, horizon)
    if schedule.if_missed == "skip":
        return FiringPlan(missed, first, skipped=True)
    following = trigger.next_after(missed)
    return FiringPlan(following if following is not None and following <= now else missed, first)


def _begin(
    connection: Connection,
    settings: Settings,
    schedule: Schedule,
    standing: AuthContext | None,
    occasion: FiringPlan,
    now: datetime,
) -> StartedWork | None:
    """Begin the work and note it, or note why not."""
    begun, error = (None, None) if occasion.skipped else _attempt(connection, settings, schedule, standing)
    fired = Firing(
        id=new_id("fire"),
        schedule_id=schedule.id,
        account_id=schedule.account_id,
        fire_time=occasion.fire_time,
        fired_at=now,
        missed_since=occasion.missed_since,
        status="started" if begun else "refused" if error else "skipped",
        job_id=begun.job_id if begun else None,
        error=error,
    )
    firings.insert(connection, fired)
    return begun


def _attempt(
    connection: Connection, settings: Settings, schedule: Schedule, standing: AuthContext | None
) -> tuple[StartedWork | None, dict[str, Any] | None]:
    """What began; or an error that is fit for its owner, and nothing of what was half begun."""
    try:
        with connection.transaction():
            if schedule.user_id is not None and standing is None:
                raise NotAllowed("Whoever this schedule acts for does not belong to the account any more.")
            return starters.start(connection, schedule, standing, settings), None
    except RequestError as error:
        return None, {"code": error.code, "message": error.message}
    except (psycopg.OperationalError, psycopg.InterfaceError):
        raise
    except Exception:  # a fault of ours must stop neither the other schedules nor this one's next time
        log.exception("the schedule %s could not start its work", schedule.id)
        return None, {"code": "server_error", "message": "The work could not be started."}
