"""Given schedules, whatever the clock does, then each time fires once with its job, or it is said why not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from bench.harness.waiting import wait_until
from models.jobs.jobs import list_jobs
from models.platform.ids import new_id
from models.schedules import firings, schedules
from models.schedules.schedules import Schedule
from models.turns import conversations
from pipelines.chat.start import NewTurn
from pipelines.schedules import starters, turns
from pipelines.schedules.firing import fire, fire_due
from pipelines.schedules.starters import STARTERS, StartedWork
from pipelines.schedules.triggers import Cron, Interval, Once, trigger_to_json

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

REQUEST = {
    "model": None,
    "instructions": None,
    "background": True,
    "metadata": {},
    "temperature": None,
    "top_p": None,
    "max_output_tokens": 10,
    "user": None,
}

HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


def later(**given):
    return NOON + timedelta(**given)


@pytest.fixture
def add(desk, member):
    """`add(trigger, …)` → the id of a schedule of the member's that was planned at noon."""

    def add(trigger, *, if_missed="run_once", grace=60, **turn):
        request = {"request": REQUEST, "input": [HELLO], **turn}
        schedule = Schedule(
            id=new_id("sched"), account_id=member.account_id, user_id=member.user_id, name="a test", kind="turn",
            asked={}, plan=turns.turn_plan(NewTurn(**request), any_model=True), trigger=trigger_to_json(trigger),
            if_missed=if_missed, grace_seconds=grace, paused_at=None,
            next_fire_at=trigger.next_after(later(microseconds=-1)), planned_at=NOON, created_at=NOON, updated_at=NOON,
        )  # fmt: skip
        with desk.database.transaction() as connection:
            schedules.insert(connection, schedule)
        return schedule.id

    return add


@pytest.fixture
def strike(desk, settings):
    """`strike(now)`: one look at the clock; how many were dealt with."""
    return lambda now: len(list(fire_due(desk.database, settings, [*STARTERS], now)))


@pytest.fixture
def history(desk, member):
    """`history(schedule_id)` → its firings, the oldest first."""

    def history(schedule_id):
        with desk.database.connection() as connection:
            found = firings.list_firings(connection, schedule_id, member.account_id, limit=1000)
        return sorted(found, key=lambda firing: firing.fire_time)

    return history


@pytest.fixture
def jobs(desk, member):
    """`jobs()` → the ids of the account's jobs."""

    def jobs():
        with desk.database.connection() as connection:
            return {job.id for job in list_jobs(connection, member.account_id, limit=1000)}

    return jobs


def told(found):
    return [(int((firing.fire_time - NOON).total_seconds()), firing.status) for firing in found]


def test_a_firing_is_there_with_its_turn(add, strike, history, jobs):
    schedule_id = add(Interval(60, NOON))

    strike(later(milliseconds=300))

    (fired,) = history(schedule_id)
    assert (fired.status, fired.fire_time, fired.missed_since) == ("started", NOON, None)
    assert jobs() == {fired.job_id}
    assert fired.job_state == "queued"
    assert fired.response_id is not None
    assert strike(later(seconds=59)) == 0


@pytest.mark.parametrize(
    ("if_missed", "now", "expected"),
    [
        ("run_once", 150, [(90, "started"), (120, "started"), (150, "started")]),  # 0, 30 and 60 are made up for by 90
        ("skip", 150, [(60, "skipped"), (90, "started"), (120, "started"), (150, "started")]),
    ],
)
def test_what_is_late_fires_and_what_was_missed_is_coalesced_or_skipped(
    add, strike, history, jobs, if_missed, now, expected
):
    schedule_id = add(Interval(30, NOON), if_missed=if_missed)

    strike(later(seconds=now))

    found = history(schedule_id)
    assert told(found) == expected
    assert [firing.missed_since for firing in found] == [NOON, *[None] * (len(expected) - 1)]
    assert len(jobs()) == sum(status == "started" for _, status in expected)


@pytest.mark.parametrize(("if_missed", "status"), [("run_once", "started"), ("skip", "skipped")])
def test_a_single_missed_time_runs_or_is_skipped(add, strike, history, jobs, if_missed, status):
    once, rarely = add(Once(NOON), if_missed=if_missed), add(Cron("0 12 * * *"), if_missed=if_missed)

    strike(later(hours=100))

    assert told(history(once)) == [(0, status)]
    assert told(history(rarely)) == [(4 * 86_400, status)]
    assert len(jobs()) == (2 if status == "started" else 0)
    assert strike(later(hours=100)) == 0


def test_processes_at_the_same_time_fire_once(add, desk, settings, history, jobs):
    ids = [add(Interval(1, NOON)) for _ in range(5)]

    def look():
        for second in range(8):
            list(fire_due(desk.database, settings, ["turn"], later(seconds=second)))

    with ThreadPoolExecutor(4) as pool:
        for looked in [pool.submit(look) for _ in range(4)]:
            looked.result()
    for schedule_id in ids:
        assert told(history(schedule_id)) == [(second, "started") for second in range(8)]
    assert len(jobs()) == 40


def test_a_clock_that_goes_ahead_and_back_fires_no_time_twice_and_leaves_none_out(add, strike, history, jobs):
    each_minute, once = add(Interval(60, NOON)), add(Once(later(minutes=30)))
    strike(NOON)

    strike(later(hours=1))  # ahead: all until then was missed
    strike(later(minutes=1))  # and back
    strike(later(minutes=2))
    strike(later(minutes=60))

    assert told(history(once)) == [(1800, "started")]
    found = told(history(each_minute))
    assert {(60, "started"), (120, "started"), (3600, "started")} <= set(found)
    assert len(found) == len(set(found))
    assert len(jobs()) == len(found) + 1


def test_a_process_that_dies_before_the_commit_leaves_nothing(add, desk, settings, strike, history, jobs, monkeypatch):
    schedule_id = add(Interval(60, NOON))

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(schedules, "plan", die)
        with pytest.raises(Killed):
            strike(NOON)
    assert (history(schedule_id), jobs()) == ([], set())

    strike(later(seconds=5))

    assert told(history(schedule_id)) == [(0, "started")]
    assert len(jobs()) == 1


def test_one_that_is_held_by_another_process_holds_nobody_up(add, desk, settings, history):
    held, free = add(Interval(60, NOON)), add(Interval(60, NOON))
    with desk.database.transaction() as other:
        assert schedules.lock_if_due(other, held) is not None
        assert [fired.schedule_id for fired in fire_due(desk.database, settings, ["turn"], NOON)] == [free]

    assert [fired.schedule_id for fired in fire_due(desk.database, settings, ["turn"], NOON)] == [held]


def test_a_frozen_process_finds_its_time_fired_when_it_wakes(add, desk, settings, strike, history, monkeypatch):
    """It has looked what is due, and takes it only after another one has."""
    schedule_id = add(Interval(60, NOON))
    with desk.database.connection() as connection:
        (due,) = schedules.list_due(connection, ["turn"], 10, NOON)
    strike(NOON)

    assert fire(desk.database, settings, due, later(seconds=30)) is None
    assert told(history(schedule_id)) == [(0, "started")]


@pytest.mark.parametrize(
    ("limits", "code"), [({"unfinished_jobs": 0}, "too_many_jobs"), ({"tokens_per_month": 5}, "insufficient_quota")]
)
def test_what_the_account_may_not_have_is_told_and_not_tried_for_ever(
    add, desk, member, strike, history, jobs, limits, code
):
    schedule_id = add(Interval(60, NOON))
    with desk.database.connection() as connection:
        connection.execute("UPDATE accounts SET limits = %s", (Jsonb(limits),))

    strike(NOON)

    (fired,) = history(schedule_id)
    assert (fired.status, fired.error["code"], fired.job_id) == ("refused", code, None)
    assert jobs() == set()
    assert strike(later(seconds=30)) == 0


def test_a_conversation_that_is_gone_is_told(add, desk, member, strike, history):
    with desk.database.connection() as connection:
        made = conversations.create(connection, new_id("conv"), member.account_id, {})
    kept = add(Interval(60, NOON), conversation_id=made.id)
    lost = add(Interval(60, NOON), conversation_id="conv_gone")

    strike(NOON)

    assert [told(history(kept)), told(history(lost))] == [[(0, "started")], [(0, "refused")]]
    assert history(lost)[0].error["code"] == "not_found"


def test_a_fault_of_ours_stops_neither_the_others_nor_the_next_time(add, strike, history, jobs, monkeypatch):
    broken, sound = add(Interval(60, NOON), input=[{**HELLO, "id": "broken"}]), add(Interval(60, NOON))
    start = starters.start

    def fail(connection, schedule, *given):
        begun = start(connection, schedule, *given)
        if schedule.id == broken:
            raise ValueError("after all was inserted")
        return begun

    monkeypatch.setattr(starters, "start", fail)
    strike(NOON)
    assert (told(history(broken)), told(history(sound))) == ([(0, "refused")], [(0, "started")])
    assert len(jobs()) == 1

    monkeypatch.undo()
    strike(later(seconds=60))
    assert told(history(broken))[1:] == [(60, "started")]


def test_who_has_left_leaves_no_schedule(add, desk, member, strike, jobs):
    add(Interval(60, NOON))
    with desk.database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (member.user_id,))

    assert strike(NOON) == 0
    assert jobs() == set()


def test_a_member_who_is_removed_while_a_schedule_fires_waits_and_nobody_waits_for_ever(
    add, desk, member, settings, history, monkeypatch
):
    schedule_id = add(Interval(60, NOON))
    waiting = "SELECT FROM pg_locks WHERE NOT granted"
    removal = threading.Thread(target=lambda: remove(desk, member))

    def start(connection, schedule, standing, _):
        removal.start()
        with desk.database.connection() as other:
            wait_until(lambda: other.execute(waiting).fetchone() is not None)
        return StartedWork("job_1")

    monkeypatch.setitem(STARTERS, "turn", start)
    fired = list(fire_due(desk.database, settings, ["turn"], NOON))
    removal.join()

    assert [each.schedule_id for each in fired] == [schedule_id]
    assert history(schedule_id) == []


def remove(desk, member):
    with desk.database.transaction() as connection:
        connection.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (member.account_id,))
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (member.user_id,))
