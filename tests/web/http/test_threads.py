"""Blocking calls in the threads of the process."""

import asyncio
import threading

from web.http.threads import THREADS, install_threads, run_in_thread


def test_calls_block_their_own_threads_up_to_the_limit() -> None:
    # Given a barrier that opens once as many calls wait as there are threads
    barrier = threading.Barrier(THREADS)

    async def wait_together() -> list[int]:
        install_threads()
        return await asyncio.gather(*(run_in_thread(barrier.wait, 10.0) for _ in range(THREADS)))

    # When so many calls block at once
    places = asyncio.run(wait_together())

    # Then each has had a thread of its own
    assert sorted(places) == list(range(THREADS))


def test_call_that_has_begun_runs_to_its_end_when_its_caller_is_cancelled() -> None:
    # Given a call that waits for a signal
    begun, signal, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        signal.wait(10)
        ended.set()

    async def cancel_the_caller() -> None:
        install_threads()
        caller = asyncio.create_task(run_in_thread(work))
        while not begun.is_set():
            await asyncio.sleep(0)
        # When its caller is cancelled
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        assert not ended.is_set()
        signal.set()

    asyncio.run(cancel_the_caller())

    # Then the call has ended before the loop was closed
    assert ended.is_set()
