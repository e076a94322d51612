"""Counts of unfinished jobs and their bytes that are used again for a short time: a long queue is not counted for each
request.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Smaller counts are not used again: they cost little.
MIN_COUNT = 500

#: Seconds for which a count is used again, per counted job: about a hundred times as long as the counting takes.
SECONDS_PER_JOB = 50e-6


@dataclass(frozen=True, slots=True)
class UnfinishedCount:
    """The number of unfinished jobs of an account or a thread, and their bytes."""

    jobs: int = 0
    size: int = 0

    def plus(self, size: int) -> "UnfinishedCount":
        """Return the count with one more job of this size."""
        return UnfinishedCount(self.jobs + 1, self.size + size)


@dataclass(slots=True)
class _Entry:
    count: UnfinishedCount
    expires_at: float


class RecentCounts:
    """The large counts of this process by key, each increased by the jobs that were admitted since."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def take(self, key: str, size: int = 0) -> UnfinishedCount | None:
        """Return a recent count and add the job of this size that the caller inserts; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or self._clock() >= entry.expires_at:
                return None
            count, entry.count = entry.count, entry.count.plus(size)
            return count

    def put(self, key: str, count: UnfinishedCount, size: int = 0) -> UnfinishedCount:
        """Store a count, if it is large, and add the job of this size that the caller inserts. Returns the count."""
        now = self._clock()
        with self._lock:
            self._entries = {other: entry for other, entry in self._entries.items() if entry.expires_at > now}
            if count.jobs >= MIN_COUNT:
                self._entries[key] = _Entry(count.plus(size), now + count.jobs * SECONDS_PER_JOB)
        return count
