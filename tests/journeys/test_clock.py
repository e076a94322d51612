"""Given three schedulers, when the leader is killed or frozen again and again, then each time fires once."""

import os
import signal
import time

import pytest

from models.accounts import accounts
from models.platform.database import Database
from models.platform.ids import new_id
from models.schedules import schedules
from models.schedules.schedules import Schedule
from ops.services import SchedulerProcess
from pipelines.chat.start import NewTurn
from pipelines.schedules import turns
from pipelines.schedules.triggers import Interval, trigger_to_json
from scheduler.leader import leader
from tests.journeys.stack import ON_REDIS, PATIENCE, Stack, named
from tests.pipelines.schedules.test_firing import HELLO, REQUEST
from tests.waiting import eventually

#: Times that the leader is killed: as soon as it has fired something.
KILLS = 8


def every_second(database: Database) -> str:
    """A schedule that fires each second, more often than anybody may ask for."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        now = schedules.clock(connection)
        trigger = Interval(1, now.replace(microsecond=0))
        schedule = Schedule(
            id=new_id("sched"), account_id=member.account_id, user_id=member.user_id, name="a test", kind="turn",
            asked={}, plan=turns.turn_plan(NewTurn(REQUEST, [HELLO]), any_model=True), trigger=trigger_to_json(trigger),
            if_missed="run_once", grace_seconds=3600, paused_at=None, next_fire_at=trigger.next_after(now),
            planned_at=now, created_at=now, updated_at=now,
        )  # fmt: skip
        schedules.insert(connection, schedule)
    return schedule.id


def leading(stack: Stack) -> int:
    """The pid of who leads, or 0."""
    with stack.database.connection() as connection:
        found = leader(connection)
    return int(found.name.partition("@")[0]) if found else 0


def fired(stack: Stack, schedule_id: str):
    statement = """
        SELECT extract(epoch FROM fire_time)::bigint AS time, status, job_id, jobs.id IS NOT NULL AS there
        FROM firings LEFT JOIN jobs ON jobs.id = job_id WHERE schedule_id = %s ORDER BY fire_time"""
    return stack.rows(statement, schedule_id)


def once_each(stack: Stack, schedule_id: str) -> None:
    """No second is missing, none is there twice, and each has its job."""
    found = fired(stack, schedule_id)
    assert [row["time"] for row in found] == list(range(found[0]["time"], found[0]["time"] + len(found)))
    assert {row["status"] for row in found} == {"started"}
    assert all(row["there"] for row in found)
    jobs = stack.rows("SELECT count(*) AS count FROM jobs JOIN schedules USING (account_id) WHERE schedules.id = %s",
                      schedule_id)  # fmt: skip
    assert jobs[0]["count"] == len({row["job_id"] for row in found}) == len(found)


@pytest.fixture
def schedulers(installation: Stack):
    """Three of them."""
    names = [f"clock-{number}" for number in range(3)]
    children = [installation.start(named(name, SchedulerProcess(installation.settings), installation.settings))
                for name in names]  # fmt: skip
    yield children
    for name in names:
        installation.children[name].kill()
        installation.children[name].clear()
        del installation.children[name]


@ON_REDIS
def test_the_leader_is_killed_again_and_again(installation, schedulers):
    schedule_id = every_second(installation.database)
    for _ in range(KILLS):
        before = len(fired(installation, schedule_id))
        eventually(lambda before=before: len(fired(installation, schedule_id)) > before, PATIENCE)
        pid = eventually(lambda: leading(installation))
        (child,) = (child for child in schedulers if child.pid == pid)
        child.kill()
        child.clear()
        child.start()

    caught_up(installation, schedule_id)
    once_each(installation, schedule_id)


@ON_REDIS
def test_a_frozen_leader_is_followed_by_another_one_and_does_no_harm_when_it_wakes(installation, schedulers):
    schedule_id = every_second(installation.database)
    eventually(lambda: fired(installation, schedule_id), PATIENCE)
    frozen = leading(installation)
    os.kill(frozen, signal.SIGSTOP)
    try:
        eventually(lambda: leading(installation) not in (0, frozen), PATIENCE)
        caught_up(installation, schedule_id)
    finally:
        os.kill(frozen, signal.SIGCONT)

    caught_up(installation, schedule_id)
    once_each(installation, schedule_id)


def caught_up(stack: Stack, schedule_id: str) -> None:
    """All that was due by now has fired."""
    now = time.time()
    eventually(lambda: fired(stack, schedule_id)[-1]["time"] >= now, PATIENCE)
