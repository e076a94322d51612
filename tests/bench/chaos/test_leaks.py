"""Given what processes held when all was warm, when one holds more than its pools can, then it is named."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from bench.chaos import leaks
from bench.chaos.leaks import DESCRIPTORS, THREADS, Baseline, Held, forgotten, held
from models.platform.database import Database
from tests.bench.chaos.conftest import Finished

BASELINE = Baseline({"web-a": Held(1, 10, 30), "web-b": Held(2, 12, 40), "inference-a": Held(3, 50, 60)}, {})


def test_a_pool_that_filled_is_no_leak():
    assert list(BASELINE.grown("web-a", Held(1, 10 + THREADS, 30 + DESCRIPTORS))) == []


def test_more_is_one():
    found = list(BASELINE.grown("web-a", Held(1, 11 + THREADS, 31 + DESCRIPTORS)))

    assert [violation.subject for violation in found] == ["web-a", "web-a"]


def test_a_process_that_was_started_since_is_held_to_its_like():
    assert list(BASELINE.grown("web-a", Held(9, 12 + THREADS, 40 + DESCRIPTORS))) == []
    assert list(BASELINE.grown("web-a", Held(9, 13 + THREADS, 40)))


def test_threads_and_descriptors_are_counted():
    before, leaving = held(os.getpid()), threading.Event()

    with ThreadPoolExecutor(4) as pool, open("/dev/null"):
        started = [pool.submit(leaving.wait) for _ in range(4)]
        now = held(os.getpid())
        leaving.set()

    assert len(started) == 4
    assert now.threads >= before.threads + 4
    assert now.descriptors >= before.descriptors + 1


def test_a_transaction_that_nobody_ends_is_named(database: Database, settings, monkeypatch):
    monkeypatch.setattr(leaks, "LONGEST_TRANSACTION", 0.0)

    with database.transaction() as connection:
        connection.execute("SELECT 'left open'")
        found = list(forgotten(settings))

    assert any("left open" in violation.detail for violation in found)


def test_a_fleet_leaves_nothing_behind(finished: Finished):
    assert [str(leak) for leak in finished.leaks] == []


def test_a_slot_that_nobody_gets_is_named(finished: Finished):
    assert [violation.subject for violation in finished.without_slot] == ["slots"]
    assert "of 5 turns at once, [4, 4, 4] ran at once" in finished.without_slot[0].detail
