"""Interactive attempts get a slot at once; batch attempts wait for one and yield it."""

import threading

import pytest

from bench.harness.waiting import wait_until
from models.jobs.attempt_context import Attempt
from models.platform.errors import Cancelled, Released
from tasks.slot_sharing import SlotSharing


class Runs:
    """Attempts that run until they are stopped or finished."""

    def __init__(self, slots, new_attempt):
        self.sharing = SlotSharing(slots)
        self.running: list[Attempt] = []
        self.errors: dict[int, Exception] = {}
        self.threads: list[threading.Thread] = []
        self.finished: set[int] = set()
        self._new_attempt = new_attempt

    def start(self, kind):
        attempt = self._new_attempt()
        run = getattr(self.sharing, kind)(self._work)

        def execute():
            try:
                run(attempt)
            except Exception as error:  # noqa: BLE001
                self.errors[id(attempt)] = error

        thread = threading.Thread(target=execute)
        thread.start()
        self.threads.append(thread)
        return attempt

    def _work(self, attempt):
        self.running.append(attempt)
        try:
            wait_until(lambda: attempt.should_stop() or id(attempt) in self.finished)
            attempt.check()
        finally:
            self.running.remove(attempt)

    def finish(self, attempt):
        self.finished.add(id(attempt))
        wait_until(lambda: attempt not in self.running)


@pytest.fixture
def runs(job_store, account):
    """`runs(slots)` → attempts on an engine with some slots."""
    opened = []

    def new_attempt():
        return Attempt(job_store.start(account), job_store.database, UnfencedJournal(), deadline=float("inf"))

    def open_runs(slots):
        opened.append(Runs(slots, new_attempt))
        return opened[-1]

    yield open_runs
    for each in opened:
        for attempt in list(each.running):
            each.finish(attempt)
        for thread in each.threads:
            thread.join(20)


class UnfencedJournal:
    """A journal that these attempts do not write."""

    fenced = False


def test_a_batch_attempt_leaves_one_slot_to_interactive_work(runs):
    runs = runs(3)
    batch = [runs.start("batch") for _ in range(3)]
    wait_until(lambda: len(runs.running) == 2)

    turn = runs.start("interactive")

    wait_until(lambda: turn in runs.running)
    assert not runs.errors
    waiting = next(attempt for attempt in batch if attempt not in runs.running)
    waiting.stop("cancelled")
    wait_until(lambda: runs.errors)
    assert isinstance(runs.errors[id(waiting)], Cancelled)


def test_the_youngest_batch_attempt_yields_when_interactive_work_needs_its_slot(runs):
    runs = runs(2)
    batch = runs.start("batch")
    wait_until(lambda: batch in runs.running)

    turns = [runs.start("interactive") for _ in range(2)]

    wait_until(lambda: all(turn in runs.running for turn in turns) and id(batch) in runs.errors)
    error = runs.errors[id(batch)]
    assert isinstance(error, Released)
    assert error.delay > 0


def test_a_waiting_batch_attempt_starts_when_a_slot_is_free(runs):
    runs = runs(1)
    turn = runs.start("interactive")
    wait_until(lambda: turn in runs.running)
    batch = runs.start("batch")

    runs.finish(turn)

    wait_until(lambda: batch in runs.running)
