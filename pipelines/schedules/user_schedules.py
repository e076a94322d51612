"""Create, change, pause and delete users' schedules.

A schedule acts as its creator, so only they can change or resume it. Admins see, pause and delete all of the account's.
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
    """The work that a schedule starts.

    asked  the request as the user sent it, which is shown again
    plan   the validated request, from which the work is started
    check  raises RequestError if the request names something that the account does not have
    """

    kind: str
    asked: Mapping[str, Any]
    plan: Mapping[str, Any]
    check: Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class ScheduleChanges:
    """The changed fields of a schedule; None leaves a field as it is."""

    name: str | None = None
    trigger: Cron | Interval | Once | None = None
    work: ScheduledWork | None = None
    if_missed: IfMissed | None = None
    grace_seconds: int | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """The fields of a schedule to create."""

    name: str
    trigger: Cron | Interval | Once
    work: ScheduledWork
    if_missed: IfMissed
    grace_seconds: int
    paused: bool


def owner_filter(caller: Caller) -> str | None:
    """Return the user whose schedules the caller sees; None for an admin, who sees all of the account's."""
    return None if caller.role.covers(Role.ADMIN) else caller.user_id


def find(connection: Connection, caller: Caller, schedule_id: str) -> Schedule:
    """Return a schedule that the caller may see. Raises NotFound."""
    schedule = schedules.read(connection, schedule_id, caller.account_id, user_id=owner_filter(caller))
    if schedule is None:
        raise _not_found(schedule_id)
    return schedule


def create(database: Database, caller: Caller, new: NewSchedule, schedule_id: str) -> Schedule:
    """Create a schedule, or return the existing one with this id.

    Raises InvalidRequest for a trigger without a next time, Conflict `too_many_schedules`, and the errors of the
    work's check.
    """
    with database.transaction() as connection:
        existing = schedules.read(connection, schedule_id, caller.account_id, user_id=caller.user_id)
        if existing is not None:
            return existing
        new.work.check(connection)
        if schedules.lock_and_count(connection, caller.account_id, caller.user_id) >= MAX_SCHEDULES:
            message = f"You have {MAX_SCHEDULES} schedules, which is the limit. Delete one first."
            raise Conflict(message, code="too_many_schedules")
        schedule = _new_schedule(caller, new, schedule_id, schedules.database_time(connection))
        schedules.insert(connection, schedule)
    return schedule


def _new_schedule(caller: Caller, new: NewSchedule, schedule_id: str, now: datetime) -> Schedule:
    next_fire_at = _next_time(new.trigger, now)
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
    """Change a schedule of the caller. Raises NotFound, InvalidRequest, and the errors of the work's check."""
    with database.transaction() as connection:
        schedule = schedules.lock(connection, schedule_id, caller.account_id, user_id=caller.user_id)
        if schedule is None:
            raise _not_found(schedule_id)
        if changes.work is not None:
            changes.work.check(connection)
        now = schedules.database_time(connection)
        changed = _with_trigger(_with_fields(schedule, changes), changes.trigger, now)
        schedules.update(connection, _with_paused(changed, changes.paused, now))
        return find(connection, caller, schedule_id)


def pause(database: Database, caller: Caller, schedule_id: str, *, paused: bool) -> Schedule:
    """Pause or resume a schedule. Times while it was paused are not made up for. Raises NotFound.

    An admin may pause any schedule of the account; only its creator may resume it.
    """
    user_id = owner_filter(caller) if paused else caller.user_id
    with database.transaction() as connection:
        schedule = schedules.lock(connection, schedule_id, caller.account_id, user_id=user_id)
        if schedule is None:
            raise _not_found(schedule_id)
        schedules.update(connection, _with_paused(schedule, paused, schedules.database_time(connection)))
        return find(connection, caller, schedule_id)


def delete(database: Database, caller: Caller, schedule_id: str) -> None:
    """Delete a schedule with its history; jobs that it started continue. Raises NotFound."""
    with database.connection() as connection:
        if not schedules.delete(connection, schedule_id, caller.account_id, user_id=owner_filter(caller)):
            raise _not_found(schedule_id)


def _with_fields(schedule: Schedule, changes: ScheduleChanges) -> Schedule:
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


def _with_trigger(schedule: Schedule, trigger: Cron | Interval | Once | None, now: datetime) -> Schedule:
    if trigger is None:
        return schedule
    next_fire_at = _next_time(trigger, now)
    next_unless_paused = None if schedule.paused_at else next_fire_at
    return replace(schedule, trigger=trigger_to_json(trigger), next_fire_at=next_unless_paused, planned_at=now)


def _with_paused(schedule: Schedule, paused: bool | None, now: datetime) -> Schedule:
    if paused is None or paused == (schedule.paused_at is not None):
        return schedule
    if paused:
        return replace(schedule, paused_at=now, next_fire_at=None, planned_at=now)
    next_fire_at = trigger_from_json(schedule.trigger).next_after(now)
    return replace(schedule, paused_at=None, next_fire_at=next_fire_at, planned_at=now)


def _next_time(trigger: Cron | Interval | Once, now: datetime) -> datetime:
    next_time = trigger.next_after(now)
    if next_time is None:
        param = "trigger.at" if isinstance(trigger, Once) else "trigger.expression"
        raise InvalidRequest(f"Invalid value for '{param}': it has no time in the future.", param=param)
    return next_time


def _not_found(schedule_id: str) -> NotFound:
    return NotFound(f"Schedule with id '{schedule_id[:100]}' not found.", param="schedule_id")
