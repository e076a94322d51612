"""Given due schedules, then each time fires once with its job, whatever the clock does, or its firing has the error."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from bench.harness.waiting import wait_until
from models.accounts.ownership import Access
from models.jobs.jobs import list_jobs
from models.memory import meditations
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from models.schedules import firings, schedules
from models.schedules.schedules import Schedule
from models.turns import conversations
from pipelines.chat.new_turn import NewTurn
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


def later(**duration):
    return NOON + timedelta(**duration)


@pytest.fixture
def add(job_store, member):
    """`add(trigger, …)` → the id of a schedule of the member, planned at noon."""

    def add(trigger, *, if_missed="run_once", grace=60, meditation=None, **turn):
        request = {"request": REQUEST, "input": [HELLO], **turn}
        plan = turns.turn_plan(NewTurn(**request), any_model=True) if meditation is None else meditation
        schedule = Schedule(
            id=new_id("sched"), account_id=member.account_id, user_id=member.user_id, name="a test",
            kind="turn" if meditation is None else "meditation",
            asked={}, plan=plan, trigger=trigger_to_json(trigger),
            if_missed=if_missed, grace_seconds=grace, paused_at=None,
            next_fire_at=trigger.next_after(later(microseconds=-1)), planned_at=NOON, created_at=NOON, updated_at=NOON,
        )  # fmt: skip
        with job_store.database.transaction() as connection:
            schedules.insert(connection, schedule)
        return schedule.id

    return add


@pytest.fixture
def fire_all(job_store, settings):
    """`fire_all(now)` → how many schedules were handled."""
    return lambda now: len(list(fire_due(job_store.database, settings, [*STARTERS], now)))


@pytest.fixture
def history(job_store, member):
    """`history(schedule_id)` → its firings, oldest first."""

    def history(schedule_id):
        with job_store.database.connection() as connection:
            rows = firings.list_firings(connection, schedule_id, member.account_id, limit=1000)
        return sorted(rows, key=lambda firing: firing.fire_time)

    return history


@pytest.fixture
def jobs(job_store, member):
    """`jobs()` → the ids of the account's jobs."""

    def jobs():
        with job_store.database.connection() as connection:
            return {job.id for job in list_jobs(connection, Access.account(member.account_id), limit=1000)}

    return jobs


def test_a_firing_runs_its_turn_in_the_space_of_the_end_user(add, fire_all, history, job_store):
    schedule_ids = [add(Interval(60, NOON), **space) for space in ({"space": "alice"}, {})]

    fire_all(later(milliseconds=300))

    with job_store.database.connection() as connection:
        for schedule_id, space in zip(schedule_ids, ("alice", ""), strict=True):
            (fired,) = history(schedule_id)
            row = connection.execute("SELECT space FROM responses WHERE id = %s", (fired.response_id,)).fetchone()
            assert row == {"space": space}


def test_a_plan_without_an_end_user_is_as_earlier_versions_fire_it():
    turn = NewTurn(REQUEST, [HELLO])

    assert "space" not in turns.turn_plan(turn, any_model=True)
    assert turns.turn_plan(replace(turn, space="alice"), any_model=True)["space"] == "alice"


def test_a_firing_starts_the_meditation_of_its_space(add, fire_all, history, job_store, member):
    schedule_ids = [add(Interval(60, NOON), meditation=plan) for plan in ({"space": "alice"}, {"space": "bob"}, {})]

    fire_all(later(milliseconds=300))

    with job_store.database.connection() as connection:
        for schedule_id, name in zip(schedule_ids, ("alice", "bob", ""), strict=True):
            key = SpaceKey(member.account_id, member.user_id, name)
            assert meditations.unfinished(connection, key).job_id == history(schedule_id)[0].job_id


def outcomes(history):
    """Return the seconds after noon and status of each firing."""
    return [(int((firing.fire_time - NOON).total_seconds()), firing.status) for firing in history]


def test_a_firing_has_its_turn(add, fire_all, history, jobs):
    schedule_id = add(Interval(60, NOON))

    fire_all(later(milliseconds=300))

    (fired,) = history(schedule_id)
    assert (fired.status, fired.fire_time, fired.missed_since) == ("started", NOON, None)
    assert jobs() == {fired.job_id}
    assert fired.job_state == "queued"
    assert fired.response_id is not None
    assert fire_all(later(seconds=59)) == 0


@pytest.mark.parametrize(
    ("if_missed", "now", "expected"),
    [
        ("run_once", 150, [(90, "started"), (120, "started"), (150, "started")]),  # 0, 30 and 60 are made up for by 90
        ("skip", 150, [(60, "skipped"), (90, "started"), (120, "started"), (150, "started")]),
    ],
)
def test_late_times_fire_and_missed_times_fire_once_or_are_skipped(
    add, fire_all, history, jobs, if_missed, now, expected
):
    schedule_id = add(Interval(30, NOON), if_missed=if_missed)

    fire_all(later(seconds=now))

    fired = history(schedule_id)
    assert outcomes(fired) == expected
    assert [firing.missed_since for firing in fired] == [NOON, *[None] * (len(expected) - 1)]
    assert len(jobs()) == sum(status == "started" for _, status in expected)


@pytest.mark.parametrize(("if_missed", "status"), [("run_once", "started"), ("skip", "skipped")])
def test_a_single_missed_time_fires_or_is_skipped(add, fire_all, history, jobs, if_missed, status):
    once, rarely = add(Once(NOON), if_missed=if_missed), add(Cron("0 12 * * *"), if_missed=if_missed)

    fire_all(later(hours=100))

    assert outcomes(history(once)) == [(0, status)]
    assert outcomes(history(rarely)) == [(4 * 86_400, status)]
    assert len(jobs()) == (2 if status == "started" else 0)
    assert fire_all(later(hours=100)) == 0


def test_concurrent_processes_fire_each_time_once(add, job_store, settings, history, jobs):
    ids = [add(Interval(1, NOON)) for _ in range(5)]

    def fire_for_eight_seconds():
        for second in range(8):
            list(fire_due(job_store.database, settings, ["turn"], later(seconds=second)))

    with ThreadPoolExecutor(4) as pool:
        for result in [pool.submit(fire_for_eight_seconds) for _ in range(4)]:
            result.result()
    for schedule_id in ids:
        assert outcomes(history(schedule_id)) == [(second, "started") for second in range(8)]
    assert len(jobs()) == 40


def test_a_clock_that_jumps_ahead_and_back_fires_each_time_once(add, fire_all, history, jobs):
    each_minute, once = add(Interval(60, NOON)), add(Once(later(minutes=30)))
    fire_all(NOON)

    fire_all(later(hours=1))  # jumps ahead: all times until then were missed
    fire_all(later(minutes=1))  # and back
    fire_all(later(minutes=2))
    fire_all(later(minutes=60))

    assert outcomes(history(once)) == [(1800, "started")]
    fired = outcomes(history(each_minute))
    assert {(60, "started"), (120, "started"), (3600, "started")} <= set(fired)
    assert len(fired) == len(set(fired))
    assert len(jobs()) == len(fired) + 1


def test_a_process_that_dies_before_the_commit_leaves_no_firing_and_no_job(
    add, job_store, settings, fire_all, history, jobs, monkeypatch
):
    schedule_id = add(Interval(60, NOON))

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(schedules, "set_next_fire", die)
        with pytest.raises(Killed):
            fire_all(NOON)
    assert (history(schedule_id), jobs()) == ([], set())

    fire_all(later(seconds=5))

    assert outcomes(history(schedule_id)) == [(0, "started")]
    assert len(jobs()) == 1


def test_a_schedule_locked_by_another_process_does_not_delay_the_others(add, job_store, settings, history):
    locked, free = add(Interval(60, NOON)), add(Interval(60, NOON))
    with job_store.database.transaction() as other:
        assert schedules.lock_if_due(other, locked) is not None
        assert [fired.schedule_id for fired in fire_due(job_store.database, settings, ["turn"], NOON)] == [free]

    assert [fired.schedule_id for fired in fire_due(job_store.database, settings, ["turn"], NOON)] == [locked]


def test_a_process_that_resumes_after_a_freeze_does_not_fire_again(
    add, job_store, settings, fire_all, history, monkeypatch
):
    """It has read that the schedule is due, and locks it only after another process has fired it."""
    schedule_id = add(Interval(60, NOON))
    with job_store.database.connection() as connection:
        (due,) = schedules.list_due(connection, ["turn"], 10, NOON)
    fire_all(NOON)

    assert fire(job_store.database, settings, due, later(seconds=30)) is None
    assert outcomes(history(schedule_id)) == [(0, "started")]


@pytest.mark.parametrize(
    ("limits", "code"), [({"unfinished_jobs": 0}, "too_many_jobs"), ({"tokens_per_month": 5}, "insufficient_quota")]
)
def test_a_firing_beyond_the_accounts_limits_is_refused_and_not_retried(
    add, job_store, member, fire_all, history, jobs, limits, code
):
    schedule_id = add(Interval(60, NOON))
    with job_store.database.connection() as connection:
        connection.execute("UPDATE accounts SET limits = %s", (Jsonb(limits),))

    fire_all(NOON)

    (firing,) = history(schedule_id)
    assert (firing.status, firing.error["code"], firing.job_id) == ("refused", code, None)
    assert jobs() == set()
    assert fire_all(later(seconds=30)) == 0


def test_a_firing_for_a_deleted_conversation_is_refused(add, job_store, member, fire_all, history):
    with job_store.database.connection() as connection:
        conversation = conversations.create(connection, new_id("conv"), member.account_id, member.user_id, {})
    existing = add(Interval(60, NOON), conversation_id=conversation.id)
    missing = add(Interval(60, NOON), conversation_id="conv_gone")

    fire_all(NOON)

    assert [outcomes(history(existing)), outcomes(history(missing))] == [[(0, "started")], [(0, "refused")]]
    assert history(missing)[0].error["code"] == "not_found"


def test_an_internal_error_stops_neither_other_schedules_nor_the_next_time(add, fire_all, history, jobs, monkeypatch):
    broken, working = add(Interval(60, NOON), input=[{**HELLO, "id": "broken"}]), add(Interval(60, NOON))
    start = starters.start

    def fail(connection, schedule, *arguments):
        started = start(connection, schedule, *arguments)
        if schedule.id == broken:
            raise ValueError("after all was inserted")
        return started

    monkeypatch.setattr(starters, "start", fail)
    fire_all(NOON)
    assert (outcomes(history(broken)), outcomes(history(working))) == ([(0, "refused")], [(0, "started")])
    assert len(jobs()) == 1

    monkeypatch.undo()
    fire_all(later(seconds=60))
    assert outcomes(history(broken))[1:] == [(60, "started")]


def test_the_schedules_of_a_removed_member_do_not_fire(add, job_store, member, fire_all, jobs):
    add(Interval(60, NOON))
    with job_store.database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (member.user_id,))

    assert fire_all(NOON) == 0
    assert jobs() == set()


def test_removing_a_member_while_a_schedule_fires_does_not_deadlock(
    add, job_store, member, settings, history, monkeypatch
):
    schedule_id = add(Interval(60, NOON))
    waiting_locks = "SELECT FROM pg_locks WHERE NOT granted"
    removal = threading.Thread(target=lambda: remove(job_store, member))

    def start(connection, schedule, auth_context, *_):
        removal.start()
        with job_store.database.connection() as other:
            wait_until(lambda: other.execute(waiting_locks).fetchone() is not None)
        return StartedWork("job_1", "acct_1")

    monkeypatch.setitem(STARTERS, "turn", start)
    fired = list(fire_due(job_store.database, settings, ["turn"], NOON))
    removal.join()

    assert [each.schedule_id for each in fired] == [schedule_id]
    assert history(schedule_id) == []


def remove(job_store, member):
    with job_store.database.transaction() as connection:
        connection.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", (member.account_id,))
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (member.user_id,))
