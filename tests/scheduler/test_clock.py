"""Given a clock, when a minute comes, then its job is there once; and what died is given back."""

from datetime import UTC, datetime

import pytest

from models.errors import Unavailable
from models.jobs import PLATFORM_ACCOUNT, list_jobs
from scheduler import clock as module
from scheduler.clock import Clock
from scheduler.timetable import TIMETABLE


class Told:
    """A queue that only counts its nudges."""

    nudges = 0

    def nudge(self):
        self.nudges += 1


class Leading:
    """A leadership that is what a test says."""

    def __init__(self, leads):
        self.leads = leads

    def held(self):
        return self.leads


class Stopped(datetime):
    """A clock that shows what a test says."""

    minute_now = 30

    @classmethod
    def now(cls, zone=None):
        return datetime(2026, 1, 1, 3, cls.minute_now, 59, tzinfo=UTC)


@pytest.fixture
def fired(desk):
    def count():
        with desk.database.connection() as connection:
            return len(list_jobs(connection, PLATFORM_ACCOUNT, kind="maintenance.prune"))

    return count


def test_a_firing_enqueues_once_a_minute_whoever_fires(desk, fired, monkeypatch):
    """Two leaders for a moment, or a restart at that very minute."""
    monkeypatch.setattr(module, "datetime", Stopped)
    clocks = [Clock(desk.database, Told(), Leading(True)) for _ in range(2)]
    for clock in [*clocks, *clocks]:
        clock.fire("maintenance.prune")
    assert fired() == 1

    monkeypatch.setattr(Stopped, "minute_now", 31)
    clocks[0].fire("maintenance.prune")

    assert fired() == 2


def test_only_the_leader_fires(desk, fired):
    queue = Told()

    Clock(desk.database, queue, Leading(False)).fire("maintenance.prune")

    assert (fired(), queue.nudges) == (0, 0)


def test_every_entry_can_fire(desk):
    for kind in TIMETABLE:
        Clock(desk.database, Told(), Leading(True)).fire(kind)

    with desk.database.connection() as connection:
        assert {job.kind for job in list_jobs(connection, PLATFORM_ACCOUNT)} == set(TIMETABLE)


def test_a_sweep_gives_back_what_has_no_worker_and_nudges(desk):
    queue = Told()
    clock = Clock(desk.database, queue, Leading(False))
    job_id = desk.enqueue(PLATFORM_ACCOUNT, kind="maintenance.prune")
    desk.claim(job_id)
    clock.sweep()
    assert (desk.job(job_id).state, queue.nudges) == ("running", 0)

    desk.set(job_id, "lease_until = now() - interval '1 second'")
    clock.sweep()

    assert (desk.job(job_id).state, desk.job(job_id).failures, queue.nudges) == ("queued", 1, 1)


def test_a_sweep_without_a_database_is_one_for_later(desk, monkeypatch):
    def away():
        raise Unavailable("away")

    monkeypatch.setattr(desk.database, "connection", away)

    Clock(desk.database, Told(), Leading(True)).sweep()
