"""Threads apart for what hashes passwords, so that a flood of logins is slow for itself and for nobody else.

The line before them is short enough that whoever stands in it is served within seconds; who finds it full is asked to
come back. A hash takes a core and 19 MiB: more at once than cores would only take memory.
"""

import os
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from models.errors import Unavailable

Result = TypeVar("Result")

#: Requests that hash at once.
AT_ONCE = max(2, min(8, os.cpu_count() or 2))

#: Requests that may wait for each of these: a login takes about 50 ms of a core, a signup 70 ms.
LINE = 40


class Hashing:
    """The threads and their line, of one event loop."""

    def __init__(self, at_once: int = AT_ONCE, line: int = AT_ONCE * LINE) -> None:
        self._threads = anyio.CapacityLimiter(at_once)
        self._room = at_once + line
        self.present = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do the work when its turn has come. Raises Unavailable when the line is long."""
        if self.present >= self._room:
            raise Unavailable("Too many people are logging in at this moment.")
        self.present += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self.present -= 1
