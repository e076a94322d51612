"""Limit the bytes that streams hold for clients which do not read them.

A stream reads its history by pages, and the next one only when the client has taken the last one. An account's streams
together hold a limited number of bytes: beyond it, none of them reads more until some bytes are sent, or until a client
that does not read is disconnected by `web.http.protocol`. Its client resumes with its last id.
"""

import asyncio
from collections import Counter, deque

#: Bytes that the streams of an account hold, and those of all accounts. At the latter limit an account with less than
#: its share still reads, so that the streams of some accounts cannot stop those of others.
ACCOUNT_BYTES, PROCESS_BYTES, SHARE_BYTES = 32 * 1_048_576, 256 * 1_048_576, 4 * 1_048_576

#: Seconds after which a waiting stream looks again.
CHECK_INTERVAL = 1.0


class UnsentBytes:
    """The bytes that the streams of a process hold, by account. Not thread-safe: use it on the event loop."""

    def __init__(self) -> None:
        self.by_owner: Counter[str] = Counter()
        self.total = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def is_full(self, owner: str) -> bool:
        """Return whether the streams of an account may hold no more."""
        held = self.by_owner.get(owner, 0)
        return held >= ACCOUNT_BYTES or (self.total >= PROCESS_BYTES and held >= SHARE_BYTES)

    async def wait_for_room(self, owner: str) -> None:
        """Wait until the streams of an account may hold more. Those that wait longest come first."""
        while self.is_full(owner):
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(owner, deque()).append(waiter)
            await asyncio.wait([waiter], timeout=CHECK_INTERVAL)  # one that was woken may have read nothing

    def add(self, owner: str, size: int) -> None:
        """Count bytes that a stream of the account holds from now on, or with a negative size no longer holds."""
        self.by_owner[owner] += size
        self.total += size
        if not self.by_owner[owner]:
            del self.by_owner[owner]
        self._wake(owner)
        if size < 0 and self._waiting:
            self._wake(next(iter(self._waiting)))

    def _wake(self, owner: str) -> None:
        """Wake one waiting stream of an account that has room; it wakes the next one when it has read."""
        waiting = self._waiting.get(owner)
        while waiting and not self.is_full(owner):
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break
        if waiting is not None and not waiting:
            del self._waiting[owner]


class Held:
    """The bytes that one stream holds; without an owner they are not counted."""

    __slots__ = ("_owner", "_unsent", "size")

    def __init__(self, unsent: UnsentBytes, owner: str | None) -> None:
        self._unsent = unsent
        self._owner = owner
        self.size = 0

    async def wait_for_room(self) -> None:
        """Wait until the account's streams may hold more."""
        if self._owner is not None:
            await self._unsent.wait_for_room(self._owner)

    @property
    def may_read(self) -> bool:
        """Whether the account's streams may hold more."""
        return self._owner is None or not self._unsent.is_full(self._owner)

    def set(self, size: int) -> None:
        """Hold so many bytes, instead of those before."""
        if self._owner is not None and size != self.size:
            size, self.size = size - self.size, size
            self._unsent.add(self._owner, size)
