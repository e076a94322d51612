"""Whether a worker process lives and takes jobs, for probes."""

import threading
import time
from collections.abc import Sequence

import dramatiq

from models.jobs.leases import LEASE
from models.platform.dead_threads import dead_threads
from tasks.heartbeat import Heartbeat
from tasks.job_runner import JobRunner


class WorkerHealth:
    """The health of a worker. Until it has started, it is alive and not ready: an engine may load for minutes."""

    def __init__(self) -> None:
        self._runner: JobRunner | None = None
        self._threads: list[threading.Thread] = []

    def started(self, runner: JobRunner, heartbeat: Heartbeat, workers: Sequence[dramatiq.Worker]) -> None:
        """Store the threads of a worker that has begun to consume messages."""
        messages = [thread for worker in workers for thread in (*worker.workers, *worker.consumers.values())]
        self._threads = [runner.relay.thread, runner.writer.thread, *heartbeat.threads, *messages]
        self._runner = runner

    def live(self) -> list[str]:
        """Return the names of threads that have ended; none while the worker stops, or for an unreachable server."""
        if self._runner is None or self._runner.stopping.is_set():
            return []
        return dead_threads(self._threads)

    def ready(self) -> list[str]:
        """Return why the worker takes no jobs."""
        if self._runner is None:
            return ["the engine is being loaded"]
        if self._runner.stopping.is_set():
            return ["the worker is stopping"]
        silent = time.monotonic() - self._runner.lease_renewed_at
        lease = [f"the lease was renewed {silent:.0f} s ago, before it expired"] if silent > LEASE else []
        return [*dead_threads(self._threads), *lease]
