"""The thread pool that hashes passwords."""

import threading
import time

import anyio
import pytest

from web.access.hashing_pool import HashingPool
from web.http.threads import run_in_thread


def test_hashing_beyond_the_queue_limit_is_rejected():
    async def hash_concurrently():
        hashing, errors = HashingPool(threads=1, queue=2), []

        async def hash_once():
            try:
                await hashing.run(lambda: time.sleep(0.01))
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(type(error).__name__)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(hash_once)
        return errors

    assert anyio.run(hash_concurrently) == ["Unavailable"] * 2


def test_hashing_always_uses_the_same_threads():
    # Given a shared thread pool that is in use
    async def hash_concurrently():
        hashing, hashing_threads, shared_threads = HashingPool(threads=2), set(), set()

        async def hash_once():
            shared_threads.add(await run_in_thread(lambda: time.sleep(0.001) or threading.get_ident()))
            hashing_threads.add(await hashing.run(lambda: time.sleep(0.001) or threading.get_ident()))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(hash_once)
        return hashing_threads, shared_threads

    # When many users log in
    hashing_threads, shared_threads = anyio.run(hash_concurrently)

    # Then only the hashing threads have allocated memory for a hash
    assert len(hashing_threads) <= 2
    assert hashing_threads.isdisjoint(shared_threads)


def test_an_error_in_a_hashing_thread_reaches_the_caller():
    def fail():
        raise ValueError("no such password")

    with pytest.raises(ValueError, match="no such password"):
        anyio.run(HashingPool().run, fail)
