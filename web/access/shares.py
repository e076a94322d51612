"""Limit the blocking calls that one account makes at a time in this process.

Each call takes a thread and a connection to Postgres of the process. Without a limit, slow calls of one account take
all of them, and everybody waits. A call beyond the limit waits on the event loop, where it takes neither.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from models.platform.errors import LimitExceeded

#: Seconds that a call waits for its account's earlier ones, and after which to retry one that was rejected.
TIMEOUT, RETRY_AFTER = 10.0, 1.0


@dataclass(slots=True)
class _Share:
    """The calls of one owner: those that run hold the semaphore, `users` counts those that wait too."""

    semaphore: asyncio.Semaphore
    users: int = 0


class Shares:
    """Runs at most `limit` calls of each owner at a time. For one event loop."""

    def __init__(self, limit: int, timeout: float = TIMEOUT) -> None:
        self._limit = limit
        self._timeout = timeout
        self._shares: dict[str, _Share] = {}

    @asynccontextmanager
    async def take(self, owner: str) -> AsyncIterator[None]:
        """Take one of the owner's places during the block, in the order of arrival. Raises LimitExceeded."""
        share = self._shares.setdefault(owner, _Share(asyncio.Semaphore(self._limit)))
        share.users += 1
        try:
            await self._acquire(share)
            try:
                yield
            finally:
                share.semaphore.release()
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[owner]

    async def _acquire(self, share: _Share) -> None:
        if not share.semaphore.locked():
            await share.semaphore.acquire()  # at once
            return
        try:
            await asyncio.wait_for(share.semaphore.acquire(), self._timeout)
        except TimeoutError:
            message = "The account's earlier requests of this kind take too long. Retry when some have ended."
            raise LimitExceeded(message, code="too_many_requests", retry_after=RETRY_AFTER) from None
