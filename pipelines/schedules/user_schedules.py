"""Schedules of users: made, changed, paused and forgotten by who they act for; admins see, pause and forget all.

Only who a schedule acts for says what it does: anybody else would speak in their name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from models.accounts.accounts import Caller, Role
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotFound
from models.schedules import schedules
from models.schedules.schedules import IfMissed, Schedule
from pipelines.schedules.triggers import Cron, Interval, Once, trigger_from_json, trigger_to_json

#: Schedules that a member may have in an account.
MAX_SCHEDULES = 100


@dataclass(frozen=True, slots=True)
class ScheduledWork:
    """What is to happen: its kind, the words it was asked in, and its plan. `check` raises RequestError for what the
    account doesn't have."""

    kind: str
    asked: Mapping[str, Any]
    plan: Mapping[str, Any]
    check: Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class ScheduleChanges:
    """What is to be another; None: it stays."""

    name: str | None = None
    trigger: Cron | Interval | Once | None = None
    work: ScheduledWork | None = None
    if_missed: IfMissed | None = None
    grace_seconds: int | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """What is asked for."""

    name: str
    trigger: Cron | Interval | Once
    work: ScheduledWork
    if_missed: IfMissed
    grace_seconds: int
    paused: bool


def owner_filter(caller: Caller) -> str | None:
    """Whose schedules the caller sees: None for all of the account."""
    return None if caller.role.covers(Role.ADMIN) else caller.user_id


def find(connection: Connection, caller: Caller, schedule_id: str) -> Schedule:
    """A schedule that the caller may see. Raises NotFound."""
    found = schedules.read(connection, schedule_id, caller.account_id, user_id=owner_filter(caller))
    if found is None:
        raise _missing(schedule_id)
    return found


def create(database: Database, caller: Caller, new: NewSchedule, schedule_id: str) -> Schedule:
    """A new schedule; under an id that is there already, that one.

    Raises InvalidRequest for a trigger without a next time, Conflict `too_many_schedules`, and what its work's check
    does.
    """
    with database.transaction() as connection:
        if (found := schedules.read(connection, schedule_id, caller.account_id, user_id=caller.user_id)) is not None:
            return found
        new.work.check(connection)
        if schedules.lock_and_count(connection, caller.account_id, caller.user_id) >= MAX_SCHEDULES:
            raise Conflict(f"You have {MAX_SCHEDULES} schedules; delete one first.", code="too_many_schedules")
        made = _made(caller, new, schedule_id, schedules.database_time(connection))
        schedules.insert(connection, made)
    return made


def _made(caller: Caller, new: NewSchedule, schedule_id: str, now: datetime) -> Schedule:
    next_fire_at = _next(new.trigger, now)
    return Schedule(
        id=schedule_id,
        account_id=caller.account_id,
        user_id=caller.user_id,
        name=new.name,
        kind=new.work.kind,
        asked=dict(new.work.asked),
        plan=dict(new.work.plan),
        trigger=trigger_to_json(new.trigger),
        if_missed=new.if_missed,
        grace_seconds=new.grace_seconds,
        paused_at=now if new.paused else None,
        next_fire_at=None if new.paused else next_fire_at,
        planned_at=now,
        created_at=now,
        updated_at=now,
    )


def change(database: Database, caller: Caller, schedule_id: str, changes: ScheduleChanges) -> Schedule:
    """The caller's schedule with other words, times or work. Raises NotFound, InvalidRequest, and the work's check."""
    with database.transaction() as connection:
        schedule = schedules.lock(connection, schedule_id, caller.account_id, user_id=caller.user_id)
        if schedule is None:
            raise _missing(schedule_id)
        if changes.work is not None:
            changes.work.check(connection)
        now = schedules.database_time(connection)
        changed = _replanned(_reworded(schedule, changes), changes.trigger, now)
        schedules.update(connection, _paused(changed, changes.paused, now))
        return find(connection, caller, schedule_id)


def pause(database: Database, caller: Caller, schedule_id: str, *, paused: bool) -> Schedule:
    """A schedule that does not fire until it is resumed; it makes up for nothing then. Raises NotFound.

    An admin may pause any; who it acts for resumes it.
    """
    user_id = owner_filter(caller) if paused else caller.user_id
    with database.transaction() as connection:
        schedule = schedules.lock(connection, schedule_id, caller.account_id, user_id=user_id)
        if schedule is None:
            raise _missing(schedule_id)
        schedules.update(connection, _paused(schedule, paused, schedules.database_time(connection)))
        return find(connection, caller, schedule_id)


def delete(database: Database, caller: Caller, schedule_id: str) -> None:
    """Forget a schedule with its history; jobs that it started go on. Raises NotFound."""
    with database.connection() as connection:
        if not schedules.delete(connection, schedule_id, caller.account_id, user_id=owner_filter(caller)):
            raise _missing(schedule_id)


def _reworded(schedule: Schedule, changes: ScheduleChanges) -> Schedule:
    work = changes.work
    return replace(
        schedule,
        name=changes.name or schedule.name,
        if_missed=changes.if_missed or schedule.if_missed,
        grace_seconds=changes.grace_seconds or schedule.grace_seconds,
        kind=work.kind if work else schedule.kind,
        asked=dict(work.asked) if work else schedule.asked,
        plan=dict(work.plan) if work else schedule.plan,
    )


def _replanned(schedule: Schedule, trigger: Cron | Interval | Once | None, now: datetime) -> Schedule:
    if trigger is None:
        return schedule
    next_fire_at = _next(trigger, now)
    planned = None if schedule.paused_at else next_fire_at
    return replace(schedule, trigger=trigger_to_json(trigger), next_fire_at=planned, planned_at=now)


def _paused(schedule: Schedule, paused: bool | None, now: datetime) -> Schedule:
    if paused is None or paused == (schedule.paused_at is not None):
        return schedule
    if paused:
        return replace(schedule, paused_at=now, next_fire_at=None, planned_at=now)
    next_fire_at = trigger_from_json(schedule.trigger).next_after(now)
    return replace(schedule, paused_at=None, next_fire_at=next_fire_at, planned_at=now)


def _next(trigger: Cron | Interval | Once, now: datetime) -> datetime:
    found = trigger.next_after(now)
    if found is None:
        param = "trigger.at" if isinstance(trigger, Once) else "trigger.expression"
        raise InvalidRequest(f"Invalid value for '{param}': there is no such time from now on.", param=param)
    return found


def _missing(schedule_id: str) -> NotFound:
    return NotFound(f"Schedule with id '{schedule_id[:100]}' not found.", param="schedule_id")
