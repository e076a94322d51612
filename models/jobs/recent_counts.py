"""Counts of unfinished jobs that are used again for a short time: a long queue is not counted for each request."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Smaller counts are not used again: they cost little.
MIN_COUNT = 500

#: Seconds for which a count is used again, per counted job: about a hundred times as long as the counting takes.
SECONDS_PER_JOB = 50e-6


@dataclass(slots=True)
class _Count:
    jobs: int
    expires_at: float


class RecentCounts:
    """The large counts of this process by key, each increased by the jobs that were admitted since."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}

    def take(self, key: str) -> int | None:
        """Return a recent count and increase it by the job that the caller inserts; None if there is none."""
        with self._lock:
            count = self._counts.get(key)
            if count is None or self._clock() >= count.expires_at:
                return None
            count.jobs += 1
            return count.jobs - 1

    def put(self, key: str, jobs: int) -> int:
        """Store a count, if it is large, increased by the job that the caller inserts. Returns the count."""
        now = self._clock()
        with self._lock:
            self._counts = {other: count for other, count in self._counts.items() if count.expires_at > now}
            if jobs >= MIN_COUNT:
                self._counts[key] = _Count(jobs + 1, now + jobs * SECONDS_PER_JOB)
        return jobs
