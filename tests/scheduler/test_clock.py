"""Given several schedulers, when a schedule is due, then it fires once; jobs of dead workers are requeued."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from bench.harness.waiting import wait_until
from models.accounts import files
from models.accounts.ownership import Access
from models.jobs.cancellation import cancel
from models.jobs.jobs import PLATFORM_ACCOUNT, list_jobs
from models.jobs.leases import LEASE
from models.jobs.workers import register
from models.platform.errors import Unavailable
from models.schedules import schedules
from pipelines.maintenance.expired_files import FILES_ONLY
from pipelines.schedules.triggers import Cron
from scheduler import clock as module
from scheduler.clock import Clock
from scheduler.periodic_thread import PeriodicThread
from scheduler.timetable import TIMETABLE, TimetableEntry, schedule_id, store_timetable


class RecordingQueue:
    """A queue that records its announcements."""

    nudges = trims = 0

    def __init__(self):
        self.announced_jobs = []

    def nudge(self, *lanes):
        self.nudges += 1

    def announce_job(self, job_id, opening_events, lane):
        self.announced_jobs.append(job_id)

    def forget_journal(self, job_id):
        pass

    def trim_announcements(self):
        self.trims += 1

    def broker_age(self):
        return None


@pytest.fixture
def new_clock(job_store, settings):
    """`new_clock()` → the clock of one more scheduler, and its queue."""

    def new_clock():
        queue = RecordingQueue()
        return Clock(settings, job_store.database, queue), queue

    return new_clock


@pytest.fixture
def timetable(job_store, monkeypatch):
    """The stored timetable, with every entry due. The next times are 12 hours away, whatever the time of day is now."""
    hour = (datetime.now(UTC) + timedelta(hours=12)).hour
    for kind, entry in TIMETABLE.items():
        monkeypatch.setitem(TIMETABLE, kind, replace(entry, trigger=Cron(f"0 {hour} * * *")))
    store_timetable(job_store.database)
    make_due(job_store)


def make_due(job_store, ago=0):
    """Make every schedule due `ago` seconds ago. Each call needs another value, since no time fires twice."""
    due = "date_trunc('second', now()) - make_interval(secs => %s)"
    with job_store.database.connection() as connection:
        connection.execute(f"UPDATE schedules SET next_fire_at = {due}", (ago,))


def platform_jobs(job_store):
    with job_store.database.connection() as connection:
        return list_jobs(connection, Access.account(PLATFORM_ACCOUNT), limit=1000)


def next_times(job_store):
    with job_store.database.connection() as connection:
        return {schedule.kind: schedule.next_fire_at for schedule in schedules.list_all(connection, 100)}


def test_due_entries_fire_and_are_announced_to_the_queue(job_store, new_clock, timetable):
    clock, queue = new_clock()

    clock.fire()

    assert {job.kind for job in platform_jobs(job_store)} == set(TIMETABLE)
    assert sorted(queue.announced_jobs) == sorted(job.id for job in platform_jobs(job_store))
    assert all(next_time > datetime.now(UTC) for next_time in next_times(job_store).values())


def test_concurrent_schedulers_fire_each_time_once(job_store, new_clock, timetable):
    for minutes in range(5):
        make_due(job_store, ago=60 * minutes)
        before = len(platform_jobs(job_store))
        start = threading.Barrier(4)
        clocks = [new_clock() for _ in range(4)]

        def fire_twice(clock, start=start):
            start.wait()
            clock.fire()
            clock.fire()

        with ThreadPoolExecutor(4) as pool:
            for result in [pool.submit(fire_twice, clock) for clock, _ in clocks]:
                result.result()
        last, last_queue = new_clock()
        last.fire()

        jobs = {job.id for job in platform_jobs(job_store)}
        announced = [job_id for _, queue in clocks for job_id in queue.announced_jobs] + last_queue.announced_jobs
        assert len(jobs) == before + len(TIMETABLE)
        assert len(announced) == len(TIMETABLE)
        assert set(announced) <= jobs


def test_a_starting_scheduler_stores_the_timetable(job_store, new_clock, monkeypatch):
    new_clock()[0].fire()
    before = next_times(job_store)
    assert set(before) == set(TIMETABLE)

    new_clock()[0].fire()
    assert next_times(job_store) == before

    changed = TimetableEntry(Cron("15 4 * * *"))
    monkeypatch.setitem(TIMETABLE, "maintenance.prune", changed)
    new_clock()[0].fire()
    assert next_times(job_store)["maintenance.prune"] == changed.trigger.next_after(datetime.now(UTC))


def test_the_timetable_of_an_older_version_is_corrected_after_an_interval(job_store, new_clock, monkeypatch):
    clock, _ = new_clock()
    clock.fire()
    current = next_times(job_store)
    with monkeypatch.context() as older_version:
        older_version.setitem(TIMETABLE, "maintenance.prune", TimetableEntry(Cron("15 4 * * *")))
        new_clock()[0].fire()
    stored_by_older_version = next_times(job_store)

    clock.fire()
    assert next_times(job_store) == stored_by_older_version != current

    later = time.monotonic() + module.TIMETABLE_INTERVAL
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    clock.fire()
    assert next_times(job_store) == current


def test_a_kind_that_this_version_does_not_know_stays_due(job_store, new_clock, timetable):
    with job_store.database.connection() as connection:
        connection.execute(
            "UPDATE schedules SET kind = 'of.tomorrow' WHERE id = %s", (schedule_id("maintenance.prune"),)
        )

    new_clock()[0].fire()

    assert "maintenance.prune" not in {job.kind for job in platform_jobs(job_store)}
    assert next_times(job_store)["of.tomorrow"] < datetime.now(UTC) + timedelta(seconds=1)


@pytest.fixture
def monotonic(monkeypatch):
    """The clock's time, which the test advances."""
    times = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: times.now))
    return times


def sweep_for(clock, monotonic, seconds):
    """Sweep once a second."""
    for _ in range(int(seconds)):
        monotonic.now += 1
        clock.sweep()


@pytest.fixture
def job_of_a_silent_worker(job_store):
    job_id = job_store.enqueue(PLATFORM_ACCOUNT, kind="maintenance.prune")
    job_store.claim(job_id, worker="silent")
    with job_store.database.connection() as connection:
        register(connection, "silent", host="h", pid=1, pools=[], threads={"maintenance": 1})
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 hour'")
    return job_id


def test_a_sweep_requeues_jobs_of_dead_workers_and_nudges_the_relay(
    job_store, new_clock, monotonic, job_of_a_silent_worker
):
    clock, queue = new_clock()

    sweep_for(clock, monotonic, LEASE)

    job = job_store.job(job_of_a_silent_worker)
    assert (job.state, job.failures, queue.nudges) == ("queued", 1, 1)


def test_no_lease_expires_before_the_database_was_reachable_for_a_full_lease(
    job_store, new_clock, monotonic, job_of_a_silent_worker, monkeypatch
):
    """No worker could renew its lease while the database was away."""
    # Given a sweeper that cannot reach the database for a minute
    clock, _ = new_clock()
    sweep_for(clock, monotonic, LEASE / 2)
    with monkeypatch.context() as away:
        away.setattr(job_store.database, "connection", unavailable)
        for _ in range(60):
            with suppress(Unavailable):
                sweep_for(clock, monotonic, 1)
    # When it sweeps for less than a lease, and then for longer
    sweep_for(clock, monotonic, LEASE - 1)
    assert job_store.job(job_of_a_silent_worker).state == "running"
    sweep_for(clock, monotonic, 1)
    # Then the job is requeued after a full lease
    assert job_store.job(job_of_a_silent_worker).state == "queued"


def test_a_sweeper_that_was_frozen_waits_for_a_full_lease_again(
    job_store, new_clock, monotonic, job_of_a_silent_worker
):
    clock, _ = new_clock()
    sweep_for(clock, monotonic, LEASE - 1)

    monotonic.now += 60
    clock.sweep()

    assert job_store.job(job_of_a_silent_worker).state == "running"


def test_a_sweep_queues_jobs_that_have_become_due(job_store, new_clock):
    clock, queue = new_clock()
    job_id = job_store.enqueue(PLATFORM_ACCOUNT, kind="maintenance.prune")
    job_store.update(job_id, "state = 'scheduled'")

    clock.sweep()

    assert (job_store.job(job_id).state, queue.nudges) == ("queued", 1)


def unavailable():
    raise Unavailable("away")


def test_a_sweep_during_a_database_outage_does_not_count_as_a_run(job_store, new_clock, monkeypatch):
    monkeypatch.setattr(job_store.database, "connection", unavailable)

    with pytest.raises(Unavailable):  # which its thread logs
        new_clock()[0].sweep()


def test_a_periodic_thread_continues_after_an_exception():
    calls = []

    def work():
        calls.append(1)
        raise [Unavailable("away"), ValueError("a fault")][len(calls) % 2]

    thread = PeriodicThread("test", 0.001, work).start()
    wait_until(lambda: len(calls) >= 4)
    thread.stop()


def test_the_sweeper_trims_announcements_now_and_then(new_clock):
    clock, queue = new_clock()

    clock.sweep()
    clock.sweep()

    assert queue.trims == 1


def test_the_sweeper_has_the_file_of_a_cancelled_import_deleted(new_clock, job_store):
    # Given an import that was cancelled before it began
    clock, queue = new_clock()
    account = job_store.create_account()
    job_id = job_store.enqueue(account, "memory.import")
    with job_store.database.transaction() as connection:
        files.insert(
            connection, "file_cancelled", account, job_id=job_id, filename="f", purpose=files.IMPORT,
            content_type="text/plain", size=5, object_key="k", days=7,
        )  # fmt: skip
        cancel(connection, job_id, account)

    # When the sweeper runs twice
    clock.sweep()
    clock.sweep()

    # Then one job deletes the expired file
    jobs = [job for job in platform_jobs(job_store) if job.arguments == FILES_ONLY]
    assert [(job.kind, job.state) for job in jobs] == [("maintenance.prune", "queued")]
    assert queue.nudges >= 1
