"""Threads apart for what hashes passwords, so that a flood of logins is slow for itself and for nobody else.

The line before them is short enough that whoever stands in it is served within seconds; who finds it full is asked to
come back. A hash takes a core and 19 MiB: more at once than cores would only take memory. And they are always the same
threads, for the memory stays with the thread that has hashed: in a common pool, it would be 19 MiB for each of forty.
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

#: Requests that hash at once.
AT_ONCE = max(2, min(8, os.cpu_count() or 2))

#: Requests that may wait for each of these: a login takes about 50 ms of a core, a signup 70 ms.
LINE = 40


class Hashing:
    """The threads and their line, of one event loop."""

    def __init__(self, at_once: int = AT_ONCE, line: int = AT_ONCE * LINE) -> None:
        self._turn = anyio.CapacityLimiter(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="hashing")
        self._room = at_once + line
        self.present = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do the work when its turn has come. Raises Unavailable when the line is long."""
        if self.present >= self._room:
            raise Unavailable("Too many people are logging in at this moment.")
        self.present += 1
        try:
            async with self._turn:
                return await self._apart(work)
        finally:
            self.present -= 1

    async def _apart(self, work: Callable[[], Result]) -> Result:
        """What has begun is waited for, also for somebody who has left."""
        context = contextvars.copy_context()
        with anyio.CancelScope(shield=True):
            result = await asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
        return result
