"""A thread gets the result of its coroutine, and leaves it behind when its job stops."""

import threading
import time

import anyio
import pytest

from pipelines.agents import event_loop
from pipelines.agents.event_loop import Stopped


async def answer():
    return 42


async def fail():
    raise ValueError("broken")


def test_the_result_or_the_error_of_a_coroutine_is_the_threads():
    assert event_loop.run(answer, lambda: False) == 42
    with pytest.raises(ValueError, match="broken"):
        event_loop.run(fail, lambda: False)


def test_a_thread_that_stops_does_not_wait_for_a_coroutine_that_ignores_it():
    # Given
    ended = threading.Event()

    async def stubborn():
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)
        ended.set()

    # When
    begun = time.monotonic()
    with pytest.raises(Stopped):
        event_loop.run(stubborn, lambda: True)

    # Then
    assert time.monotonic() - begun < 0.1
    assert not ended.is_set()


def test_a_thread_that_stops_cancels_its_coroutine():
    # Given
    started, cancelled = threading.Event(), threading.Event()

    async def wait():
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    # When
    with pytest.raises(Stopped):
        event_loop.run(wait, started.is_set)

    # Then
    assert cancelled.wait(5)


def test_an_error_of_the_question_whether_to_stop_cancels_the_coroutine():
    # Given
    cancelled = threading.Event()

    async def wait():
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    def raise_when_started():
        time.sleep(0.05)
        raise ZeroDivisionError

    # When
    with pytest.raises(ZeroDivisionError):
        event_loop.run(wait, raise_when_started)

    # Then
    assert cancelled.wait(5)


def test_many_threads_share_the_loop():
    # Given
    results: list[int] = []

    async def slow():
        await anyio.sleep(0.1)
        return 1

    threads = [threading.Thread(target=lambda: results.append(event_loop.run(slow, lambda: False))) for _ in range(20)]

    # When
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then
    assert len(results) == 20
    assert time.monotonic() - begun < 1.5
