"""Given clocks, when something is due, then it is there once, whoever leads; and what died is given back."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models.jobs.jobs import PLATFORM_ACCOUNT, list_jobs
from models.platform.errors import Unavailable
from models.schedules import schedules
from pipelines.schedules.triggers import Cron
from scheduler.clock import Clock
from scheduler.periodic_thread import PeriodicThread
from scheduler.timetable import TIMETABLE, TimetableEntry, schedule_id, store_timetable
from tests.waiting import eventually


class Told:
    """A queue that only counts what it is told."""

    nudges = 0

    def __init__(self):
        self.enqueued_jobs = []

    def nudge(self):
        self.nudges += 1

    def announce_job(self, job_id, opening):
        self.enqueued_jobs.append(job_id)

    def forget_journal(self, job_id):
        pass


class Leading:
    """A leadership that is what a test says."""

    def __init__(self, leads=True):
        self.leads = leads

    def held(self):
        return self.leads


@pytest.fixture
def clock(desk, settings):
    """`clock(leads)` → a clock and its queue."""

    def clock(leads=True):
        queue = Told()
        return Clock(settings, desk.database, queue, Leading(leads)), queue

    return clock


@pytest.fixture
def timetable(desk, monkeypatch):
    """The timetable in its place, every entry of which has just become due; its own next times are far away, whatever
    the time of day is now."""
    hour = (datetime.now(UTC) + timedelta(hours=12)).hour
    for kind, entry in TIMETABLE.items():
        monkeypatch.setitem(TIMETABLE, kind, replace(entry, trigger=Cron(f"0 {hour} * * *")))
    store_timetable(desk.database)
    make_due(desk)


def make_due(desk, ago=0):
    """At a time of its own: none fires twice."""
    due = "date_trunc('second', now()) - make_interval(secs => %s)"
    with desk.database.connection() as connection:
        connection.execute(f"UPDATE schedules SET next_fire_at = {due}", (ago,))


def jobs(desk):
    with desk.database.connection() as connection:
        return list_jobs(connection, PLATFORM_ACCOUNT, limit=1000)


def next_times(desk):
    with desk.database.connection() as connection:
        return {found.kind: found.next_fire_at for found in schedules.any_schedules(connection, 100)}


def test_every_entry_fires_when_it_is_due_and_the_queue_is_told(desk, clock, timetable):
    leader, queue = clock()

    leader.fire()

    assert {job.kind for job in jobs(desk)} == set(TIMETABLE)
    assert sorted(queue.enqueued_jobs) == sorted(job.id for job in jobs(desk))
    assert all(time > datetime.now(UTC) for time in next_times(desk).values())


def test_leaders_at_the_same_time_fire_once(desk, clock, timetable):
    """Two leaders for a moment, again and again, or a restart at that very moment."""
    for time in range(5):
        make_due(desk, ago=60 * time)
        before = len(jobs(desk))
        with ThreadPoolExecutor(4) as pool:
            for fired in [pool.submit(clock()[0].fire) for _ in range(8)]:
                fired.result()
        clock()[0].fire()
        assert len(jobs(desk)) == before + len(TIMETABLE)


def test_only_the_leader_fires(desk, clock, timetable):
    follower, queue = clock(leads=False)

    follower.fire()

    assert (jobs(desk), queue.enqueued_jobs) == ([], [])


def test_a_new_leader_puts_the_timetable_in_its_place(desk, clock, monkeypatch):
    clock()[0].fire()
    before = next_times(desk)
    assert set(before) == set(TIMETABLE)

    clock()[0].fire()
    assert next_times(desk) == before

    other = TimetableEntry(Cron("15 4 * * *"))
    monkeypatch.setitem(TIMETABLE, "maintenance.prune", other)
    clock()[0].fire()
    assert next_times(desk)["maintenance.prune"] == other.trigger.next_after(datetime.now(UTC))


def test_what_this_version_does_not_know_is_left_to_others(desk, clock, timetable):
    with desk.database.connection() as connection:
        connection.execute(
            "UPDATE schedules SET kind = 'of.tomorrow' WHERE id = %s", (schedule_id("maintenance.prune"),)
        )

    clock()[0].fire()

    assert "maintenance.prune" not in {job.kind for job in jobs(desk)}
    assert next_times(desk)["of.tomorrow"] < datetime.now(UTC) + timedelta(seconds=1)


def test_a_sweep_gives_back_what_has_no_worker_and_nudges(desk, clock):
    sweeper, queue = clock(leads=False)
    job_id = desk.enqueue(PLATFORM_ACCOUNT, kind="maintenance.prune")
    desk.claim(job_id)
    sweeper.sweep()
    assert (desk.job(job_id).state, queue.nudges) == ("running", 0)

    desk.set(job_id, "lease_until = now() - interval '1 second'")
    sweeper.sweep()

    assert (desk.job(job_id).state, desk.job(job_id).failures, queue.nudges) == ("queued", 1, 1)


def test_a_sweep_without_a_database_is_one_for_later(desk, clock, monkeypatch):
    def away():
        raise Unavailable("away")

    monkeypatch.setattr(desk.database, "connection", away)

    clock()[0].sweep()


def test_a_round_that_fails_is_followed_by_the_next():
    seen = []

    def work():
        seen.append(1)
        raise [Unavailable("away"), ValueError("a fault")][len(seen) % 2]

    rounds = PeriodicThread("test", 0.001, work).start()
    eventually(lambda: len(seen) >= 4)
    rounds.stop()
