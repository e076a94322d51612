"""The watchdog measures the CPU time that the loop is busy, and logs what ran."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest

from bench.harness.waiting import wait_until
from web.http import loop_watchdog
from web.http.loop_watchdog import LoopWatchdog


def watch(function: Callable[[], object], watchdog: LoopWatchdog) -> None:
    """Run a function on a watched loop, repeatedly until the watchdog has measured at least ten times."""

    async def run() -> None:
        watchdog.start()
        for _ in range(10):
            await asyncio.sleep(2 * loop_watchdog.INTERVAL)
            function()
        await asyncio.sleep(2 * loop_watchdog.INTERVAL)

    asyncio.run(run())
    watchdog.stop()


def burn_cpu() -> None:
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> LoopWatchdog:
    monkeypatch.setattr(loop_watchdog, "INTERVAL", 0.01)
    monkeypatch.setattr(loop_watchdog, "LIMIT", 0.05)
    return LoopWatchdog()


def test_a_callback_that_keeps_the_loop_busy_is_measured_and_logged(
    watchdog: LoopWatchdog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        watch(burn_cpu, watchdog)
    assert 0.1 < watchdog.longest < 1
    assert "The event loop was busy for" in caplog.text
    assert "burn_cpu" in caplog.text


def test_a_loop_that_waits_is_not_busy(watchdog: LoopWatchdog, caplog: pytest.LogCaptureFixture) -> None:
    # Sleeping takes no CPU time, as waiting for a processor on a busy machine takes none
    with caplog.at_level(logging.WARNING):
        watch(lambda: time.sleep(0.1), watchdog)
    assert watchdog.longest < 0.05
    assert not caplog.text


def test_the_maximum_is_forgotten_after_two_periods(watchdog: LoopWatchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog._note(0.5)
    assert watchdog.longest == 0.5
    for expected in (0.5, 0.0):
        watchdog._period_ends_at = time.monotonic() - 1
        watchdog._note(0.0)
        assert watchdog.longest == expected


def test_the_watchdog_ends_with_its_loop(watchdog: LoopWatchdog) -> None:
    asyncio.run(_start(watchdog))
    wait_until(lambda: all(thread.name != "loop watchdog" for thread in threading.enumerate()))


async def _start(watchdog: LoopWatchdog) -> None:
    watchdog.start()
