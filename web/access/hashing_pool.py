"""Threads that hash passwords, separate from all others, so that a flood of logins delays only logins.

The queue is short enough that a request in it is served within seconds; when it is full, requests are rejected with
status 503. A hash takes a core and 19 MiB, so more threads than cores would only take memory. Argon2's memory stays
with the thread that has hashed: in the shared thread pool it would be 19 MiB for each of its 64 threads.
"""

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio

from models.platform.errors import Unavailable

Result = TypeVar("Result")

#: Requests that hash concurrently.
THREADS = max(2, min(8, os.cpu_count() or 2))

#: Requests that may wait for each thread: a login takes about 50 ms of a core, a signup 70 ms.
QUEUE_PER_THREAD = 40


class HashingPool:
    """The threads and their queue, used from one event loop. `active` counts running and waiting requests."""

    def __init__(self, threads: int = THREADS, queue: int = THREADS * QUEUE_PER_THREAD) -> None:
        self._limiter = anyio.CapacityLimiter(threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="hashing")
        self._capacity = threads + queue
        self.active = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run `work` in one of the threads. Raises Unavailable when the queue is full."""
        if self.active >= self._capacity:
            raise Unavailable("Too many logins are being processed at the moment; try again later.")
        self.active += 1
        try:
            async with self._limiter:
                return await self._run_in_thread(work)
        finally:
            self.active -= 1

    async def _run_in_thread(self, work: Callable[[], Result]) -> Result:
        """Run `work` to its end even if the client disconnects, so that its thread is free when the slot is."""
        context = contextvars.copy_context()
        with anyio.CancelScope(shield=True):
            result = await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
        return result
