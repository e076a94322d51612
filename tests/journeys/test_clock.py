"""Each fire time fires once while three schedulers run and are killed or frozen repeatedly."""

import os
import signal
import time

import pytest

from bench.harness.waiting import wait_until
from models.accounts import accounts
from models.platform.database import Database
from models.platform.ids import new_id
from models.schedules import schedules
from models.schedules.schedules import Schedule
from pipelines.chat.new_turn import NewTurn
from pipelines.schedules import turns
from pipelines.schedules.triggers import Interval, trigger_to_json
from tests.journeys.stack import ON_REDIS, Installation
from tests.pipelines.schedules.test_firing import HELLO, REQUEST

#: Seconds in which a schedule that is due must have fired, on a busy machine.
PATIENCE = 60.0

#: Number of kills, each right after a firing.
KILLS = 9

#: Number of freezes, so that some hit an open transaction.
FREEZES = 6


def insert_schedule(database: Database) -> str:
    """Insert a schedule that fires every second, which is more often than the API allows."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        now = schedules.database_time(connection)
        trigger = Interval(1, now.replace(microsecond=0))
        schedule = Schedule(
            id=new_id("sched"), account_id=member.account_id, user_id=member.user_id, name="a test", kind="turn",
            asked={}, plan=turns.turn_plan(NewTurn(REQUEST, [HELLO]), any_model=True), trigger=trigger_to_json(trigger),
            if_missed="run_once", grace_seconds=3600, paused_at=None, next_fire_at=trigger.next_after(now),
            planned_at=now, created_at=now, updated_at=now,
        )  # fmt: skip
        schedules.insert(connection, schedule)
    return schedule.id


def list_firings(stack: Installation, schedule_id: str):
    statement = """
        SELECT extract(epoch FROM fire_time)::bigint AS time, status, job_id, jobs.id IS NOT NULL AS has_job
        FROM firings LEFT JOIN jobs ON jobs.id = job_id WHERE schedule_id = %s ORDER BY fire_time"""
    return stack.rows(statement, schedule_id)


def assert_each_second_fired_once(stack: Installation, schedule_id: str) -> None:
    """Assert that each second fired once and started one job."""
    rows = list_firings(stack, schedule_id)
    assert [row["time"] for row in rows] == list(range(rows[0]["time"], rows[0]["time"] + len(rows)))
    assert {row["status"] for row in rows} == {"started"}
    assert all(row["has_job"] for row in rows)
    jobs = stack.rows("SELECT count(*) AS count FROM jobs JOIN schedules USING (account_id) WHERE schedules.id = %s",
                      schedule_id)  # fmt: skip
    assert jobs[0]["count"] == len({row["job_id"] for row in rows}) == len(rows)


@pytest.fixture
def schedulers(installation: Installation):
    """Three running schedulers."""
    names = [f"clock-{number}" for number in range(3)]
    children = [installation.start_scheduler(name) for name in names]
    yield children
    for child in children:
        installation.remove(child)


@ON_REDIS
def test_killed_schedulers_neither_skip_nor_repeat_a_firing(installation, schedulers):
    schedule_id = insert_schedule(installation.database)
    for kill in range(KILLS):
        before = len(list_firings(installation, schedule_id))
        wait_until(lambda before=before: len(list_firings(installation, schedule_id)) > before, PATIENCE)
        child = schedulers[kill % len(schedulers)]
        child.kill()
        child.clear()
        child.start()

    wait_until_all_due_fired(installation, schedule_id)
    assert_each_second_fired_once(installation, schedule_id)


@ON_REDIS
def test_frozen_scheduler_neither_delays_nor_repeats_a_firing(installation, schedulers):
    schedule_id = insert_schedule(installation.database)
    wait_until(lambda: list_firings(installation, schedule_id), PATIENCE)
    for freeze in range(FREEZES):
        frozen = schedulers[freeze % len(schedulers)].pid
        os.kill(frozen, signal.SIGSTOP)
        try:
            wait_until_all_due_fired(installation, schedule_id)
        finally:
            os.kill(frozen, signal.SIGCONT)

    wait_until_all_due_fired(installation, schedule_id)
    assert_each_second_fired_once(installation, schedule_id)


def wait_until_all_due_fired(stack: Installation, schedule_id: str) -> None:
    """Wait until everything that is due by now has fired."""
    now = time.time()
    wait_until(lambda: list_firings(stack, schedule_id)[-1]["time"] >= now, PATIENCE)
