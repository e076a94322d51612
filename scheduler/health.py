"""Whether a scheduler lives and works, for probes and metrics."""

import time
from collections.abc import Sequence

from models.platform import metrics
from models.platform.dead_threads import dead_threads
from models.platform.exposition import Exposition, Values
from scheduler.periodic_thread import PeriodicThread

#: Seconds, and intervals of a task, after which it counts as not working without a successful run.
SILENCE, INTERVALS = 15.0, 4


class SchedulerHealth:
    """The health of a scheduler, by its periodic tasks."""

    def __init__(self) -> None:
        self._tasks: Sequence[PeriodicThread] = ()

    def started(self, tasks: Sequence[PeriodicThread]) -> None:
        """Note that these tasks run."""
        self._tasks = tasks

    def live(self) -> list[str]:
        """Return the threads that have ended. Servers that are away are no problem."""
        return dead_threads(task.thread for task in self._tasks)

    def ready(self) -> list[str]:
        """Return the tasks that have not succeeded lately."""
        if not self._tasks:
            return ["the scheduler is starting"]
        return [f"{task.name} has not succeeded lately" for task in self._tasks if not _is_recent(task)]

    def install(self, exposition: Exposition) -> None:
        """Register the metrics."""
        exposition.read(metrics.SCHEDULER_LAST_RUN, self._last_runs)
        exposition.read(metrics.SCHEDULER_LEADER, lambda: {(): float(not self.ready())})

    def _last_runs(self) -> Values:
        return {(task.name,): task.last_success for task in self._tasks if task.last_success is not None}


def _is_recent(task: PeriodicThread) -> bool:
    return task.last_success is not None and time.time() - task.last_success < max(SILENCE, INTERVALS * task.interval)
