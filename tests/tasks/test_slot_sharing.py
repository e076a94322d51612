"""Interactive attempts get a slot at once; batch attempts wait for one and yield it."""

import threading

import pytest

from bench.harness.waiting import wait_until
from models.jobs.attempt_context import Attempt
from models.platform.errors import Cancelled, Released
from tasks import slot_sharing as module
from tasks.slot_sharing import SlotSharing


class Runs:
    """Attempts that run until they are stopped or finished."""

    def __init__(self, slots, new_attempt):
        self.sharing = SlotSharing(slots)
        self.running: list[Attempt] = []
        self.errors: dict[int, Exception] = {}
        self.threads: list[threading.Thread] = []
        self.finished: set[Attempt] = set()
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
            wait_until(lambda: attempt.should_stop() or attempt in self.finished)
            attempt.check()
        finally:
            self.running.remove(attempt)

    def finish(self, attempt):
        self.finished.add(attempt)
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


def wait_in_queue(job_store, account, seconds=1):
    """Insert a job with a message that no thread has taken for some seconds."""
    job_id = job_store.enqueue(account)
    job_store.update(job_id, f"published_at = now() - interval '{seconds} seconds'")
    return job_id


@pytest.fixture
def full(runs, monkeypatch):
    """Attempts of one account that have all three slots."""
    monkeypatch.setattr(module, "SHORTEST_SLICE", 0)
    runs = runs(3)
    for number in range(3):
        runs.start("interactive")
        wait_until(lambda count=number + 1: len(runs.running) == count)
    return runs


def test_an_account_with_all_slots_leaves_one_to_another_that_waits(full, job_store):
    newest = full.running[-1]
    wait_in_queue(job_store, job_store.create_account())

    full.sharing.yield_to_others(job_store.database)

    wait_until(lambda: full.errors)
    assert isinstance(full.errors[id(newest)], Released)
    assert len(full.running) == 2
    # And it keeps the others, although more work waits
    wait_in_queue(job_store, job_store.create_account())
    full.sharing.yield_to_others(job_store.database)
    assert not any(attempt.should_stop() for attempt in full.running)


def test_an_account_that_is_alone_keeps_all_slots(full, job_store, account):
    wait_in_queue(job_store, account)

    full.sharing.yield_to_others(job_store.database)

    assert not any(attempt.should_stop() for attempt in full.running)


def test_a_turn_that_has_just_begun_does_not_yield(full, job_store, monkeypatch):
    monkeypatch.setattr(module, "SHORTEST_SLICE", 60)
    wait_in_queue(job_store, job_store.create_account())

    full.sharing.yield_to_others(job_store.database)

    assert not any(attempt.should_stop() for attempt in full.running)


def test_a_turn_that_is_reading_its_prompt_does_not_yield(full, job_store):
    older, *_, newest = full.running
    newest.journal.tokens = 0
    wait_in_queue(job_store, job_store.create_account())

    full.sharing.yield_to_others(job_store.database)

    assert not newest.should_stop()
    assert not older.should_stop()
    wait_until(lambda: len(full.running) == 2)  # the one between them


class UnfencedJournal:
    """A journal that these attempts do not write."""

    fenced = False
    tokens = 1


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


def start_with_priority(runs):
    """Start a turn of the tier `priority`, which has no tokens yet."""
    turn = runs.start("interactive")
    turn.job.arguments["service_class"] = "priority"
    turn.journal = UnfencedJournal()
    turn.journal.tokens = 0
    wait_until(lambda: turn in runs.running)
    return turn


def test_the_turn_that_began_last_yields_its_slot_to_one_with_priority(full):
    *older, newest = full.running
    turn = start_with_priority(full)

    full.sharing.yield_to_priority()

    wait_until(lambda: full.errors)
    assert isinstance(full.errors[id(newest)], Released)
    # And no other one yields to the same turn
    full.start("interactive")
    wait_until(lambda: len(full.running) == 4)
    full.sharing.yield_to_priority()
    assert not any(attempt.should_stop() for attempt in [*older, turn])


def test_no_turn_yields_while_a_slot_is_free(full):
    full.finish(full.running[0])
    start_with_priority(full)

    full.sharing.yield_to_priority()

    assert not any(attempt.should_stop() for attempt in full.running)


def test_turns_with_priority_do_not_yield_to_each_other(full):
    for attempt in full.running:
        attempt.job.arguments["service_class"] = "priority"
    start_with_priority(full)

    full.sharing.yield_to_priority()

    assert not any(attempt.should_stop() for attempt in full.running)


def test_an_only_slot_is_not_taken_from_a_turn_that_has_just_begun(runs):
    runs = runs(1)
    turn = runs.start("interactive")
    wait_until(lambda: turn in runs.running)
    start_with_priority(runs)

    runs.sharing.yield_to_priority()

    assert not turn.should_stop()
