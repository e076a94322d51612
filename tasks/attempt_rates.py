"""How long the attempts of a worker process take, and how many turns it has ended, by queue.

The heartbeat stores both: the router predicts waits from the one, and counts the turns of a day by the other.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from models.jobs.jobs import Job

#: The weight of the last attempt in the mean: about the last ten count.
WEIGHT = 0.2

#: The kind of job that is a turn.
TURN = "turn.run"


class AttemptRates:
    """The mean seconds of attempts, and the turns that have ended since they were taken. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began: dict[int, tuple[str, float]] = {}  # running attempts, by the identity of their jobs
        self._means: dict[str, float] = {}
        self._ended = Counter[str]()

    def begin(self, job: Job) -> None:
        """Note that an attempt begins."""
        with self._lock:
            self._began[id(job)] = (job.queue, self._clock())

    def finish(self, job: Job) -> None:
        """Note that an attempt is over, however it went."""
        with self._lock:
            queue, began = self._began.pop(id(job))
            seconds = self._clock() - began
            mean = self._means.get(queue, seconds)
            self._means[queue] = mean + WEIGHT * (seconds - mean)

    def count_end(self, job: Job) -> None:
        """Count a job that has ended, if it is a turn."""
        if job.kind == TURN:
            with self._lock:
                self._ended[job.queue] += 1

    def mean_seconds(self) -> dict[str, float]:
        """Return the mean seconds of an attempt by queue.

        Attempts that have been running for longer raise it: the first of a slow engine would otherwise say nothing for
        minutes.
        """
        now = self._clock()
        with self._lock:
            running: dict[str, list[float]] = {}
            for queue, began in self._began.values():
                running.setdefault(queue, []).append(now - began)
            return {queue: _mean(self._means.get(queue), running.get(queue, ())) for queue in self._means | running}

    def take_ended(self) -> dict[str, int]:
        """Return the turns that have ended since the last call, by queue, and begin at zero."""
        with self._lock:
            ended, self._ended = self._ended, Counter()
        return dict(ended)

    def put_back(self, ended: Mapping[str, int]) -> None:
        """Count turns again that could not be stored."""
        with self._lock:
            self._ended.update(ended)


def _mean(finished: float | None, running: Sequence[float]) -> float:
    elapsed = sum(running) / len(running) if running else 0.0
    return max(finished or 0.0, elapsed)
