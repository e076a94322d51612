"""Given the usage of processes after the warm-up, when one exceeds it by more than its pools, then it is reported."""

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

from bench.chaos import leaks
from bench.chaos.leaks import DESCRIPTORS, MOST_THREADS, THREADS, Baseline, ProcessUsage, check_transactions, usage_of
from models.platform.database import Database
from tests.bench.chaos.conftest import FinishedFleet

BASELINE = Baseline(
    {"web-a": ProcessUsage(1, 10, 30), "web-b": ProcessUsage(2, 12, 40), "inference-a": ProcessUsage(3, 50, 60)}, {}
)


def test_growth_by_the_size_of_pools_is_no_leak():
    assert list(BASELINE.check_process("inference-a", ProcessUsage(3, 50 + THREADS, 60 + DESCRIPTORS))) == []


def test_more_growth_is_a_leak():
    violations = list(BASELINE.check_process("inference-a", ProcessUsage(3, 51 + THREADS, 61 + DESCRIPTORS)))

    assert [violation.subject for violation in violations] == ["inference-a", "inference-a"]


def test_a_web_process_may_have_as_many_threads_as_its_pools():
    most = MOST_THREADS["web"]

    assert list(BASELINE.check_process("web-a", ProcessUsage(1, most, 30))) == []
    assert list(BASELINE.check_process("web-a", ProcessUsage(1, most + 1, 30)))


def test_a_restarted_process_is_compared_with_its_kind():
    assert list(BASELINE.check_process("inference-a", ProcessUsage(9, 50 + THREADS, 60 + DESCRIPTORS))) == []
    assert list(BASELINE.check_process("inference-a", ProcessUsage(9, 51 + THREADS, 60)))
    assert list(BASELINE.check_process("web-a", ProcessUsage(9, 12, 40 + DESCRIPTORS))) == []


def test_threads_and_descriptors_are_counted():
    before, stopping = usage_of(os.getpid()), threading.Event()

    with ThreadPoolExecutor(4) as pool, open("/dev/null"):
        started = [pool.submit(stopping.wait) for _ in range(4)]
        now = usage_of(os.getpid())
        stopping.set()

    assert len(started) == 4
    assert now.threads >= before.threads + 4
    assert now.descriptors >= before.descriptors + 1


def test_an_open_transaction_is_reported(database: Database, settings, monkeypatch):
    monkeypatch.setattr(leaks, "LONGEST_TRANSACTION", 0.0)

    with database.transaction() as connection:
        connection.execute("SELECT 'left open'")
        violations = list(check_transactions(settings))

    assert any("left open" in violation.detail for violation in violations)


def test_a_run_without_faults_leaks_nothing(finished: FinishedFleet):
    assert [str(leak) for leak in finished.leaks] == []


def test_a_missing_slot_is_reported(finished: FinishedFleet):
    assert [violation.subject for violation in finished.missing_slot] == ["slots"]
    slots, *peaks = map(int, re.findall(r"\d+", finished.missing_slot[0].detail))
    assert slots == 5
    assert max(peaks) <= 4  # fewer on a busy machine
