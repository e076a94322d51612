"""Publish due jobs to the broker: the relay, a thread in each process that enqueues jobs.

It reads due rows, publishes them with confirms and marks them as published, in one transaction. After a crash in
between, a message is sent twice, which is harmless, since a job is claimed once. Where a process dies between its
commit and the message, the scheduler's sweeper publishes the job.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence

import dramatiq
import redis

from models.jobs import outbox
from models.jobs.catalogue import priority_queue
from models.jobs.outbox import DueJob
from models.jobs.windows import window_sizes
from models.platform.database import Connection, Database
from models.platform.errors import Unavailable
from models.platform.metrics import RELAY_PUBLISHED
from tasks.broker import Broker, job_message

log = logging.getLogger(__name__)

#: Seconds for which the fairness windows, which depend on the threads that serve each queue, are cached.
WINDOWS_MAX_AGE = 1.0

#: Seconds before the next try after a failure.
RETRY_INTERVAL = 0.25

#: Most passes over a shard in one go, each of at most outbox.BATCH jobs and outbox.LANES lanes.
MAX_PASSES = 100

#: Seconds between two heartbeats to an idle broker.
KEEP_ALIVE_INTERVAL = 5.0


class Relay:
    """Publishes the due jobs of lanes when nudged, and with `interval` those of all lanes every so many seconds."""

    def __init__(self, database: Database, broker: Broker, *, interval: float | None = None) -> None:
        self._database = database
        self._broker = broker
        self._interval = interval
        self._windows: dict[str, int] = {}
        self._windows_read = 0.0
        self._cursors: dict[int, dict[str, str]] = {shard: {} for shard in range(outbox.SHARDS)}
        self._lanes: set[str] = set()
        self._sweep_requested = False
        self._lock = threading.Lock()
        self._nudged = threading.Event()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> "Relay":
        """Start the thread. It publishes, too, what this process inserts with `Connection.nudge_after_commit`."""
        self._database.nudge = self.nudge
        self._thread.start()
        return self

    @property
    def thread(self) -> threading.Thread:
        """The thread that publishes jobs."""
        return self._thread

    def nudge(self, *lanes: str) -> None:
        """Have the thread publish what is due in some lanes; without lanes, in all. Returns at once."""
        with self._lock:
            self._lanes.update(lanes)
            self._sweep_requested |= not lanes
        self._nudged.set()

    def stop(self) -> None:
        """Stop the thread. The sweeper publishes what is left."""
        self._running = False
        self._nudged.set()
        self._thread.join(5)

    def publish_lanes(self, lanes: Collection[str]) -> int:
        """Publish one batch of due jobs of some lanes, and return its size.

        Raises the broker's error after marking what was sent.
        """
        windows = self._current_windows()
        return self._publish(lambda connection: outbox.lock_due_jobs_of_lanes(connection, windows, lanes))

    def publish_all(self) -> int:
        """Publish the due jobs of all lanes, and return their number. Raises as `publish_lanes`."""
        return sum(self._publish_shard(shard) for shard in range(outbox.SHARDS))

    def _publish_shard(self, shard: int) -> int:
        windows, cursor = self._current_windows(), self._cursors[shard]
        published = 0
        for _ in range(MAX_PASSES):
            size = self._publish(lambda connection: outbox.lock_due_jobs_of_shard(connection, windows, shard, cursor))
            published += size
            if size < outbox.BATCH and not cursor:
                break
        return published

    def _publish(self, lock_due_jobs: Callable[[Connection], list[DueJob]]) -> int:
        with self._database.batch() as connection:
            sent, error = self._send(lock_due_jobs(connection))
            if sent:
                outbox.mark_published(connection, sent)
        RELAY_PUBLISHED.inc(len(sent))
        if error is not None:
            raise error
        return len(sent)

    def _send(self, due: Sequence[DueJob]) -> tuple[list[DueJob], Exception | None]:
        """Publish a batch. Returns the jobs to mark as published, and the error that kept the others from it."""
        if not due:
            return [], None
        messages = [job_message(_message_queue(job), job.kind, job.id) for job in due]
        result = self._broker.publish_batch(messages)
        confirmed = {message.message_id for message in result.confirmed}
        sent = [job for job, message in zip(due, messages, strict=True) if message.message_id in confirmed]
        return sent, result.error

    def _current_windows(self) -> dict[str, int]:
        if time.monotonic() - self._windows_read > WINDOWS_MAX_AGE:
            with self._database.connection() as connection:
                self._windows = window_sizes(connection)
            self._windows_read = time.monotonic()
        return self._windows

    def _run(self) -> None:
        swept = time.monotonic()
        while self._running:
            nudged = self._nudged.wait(self._interval or KEEP_ALIVE_INTERVAL)
            sweep_due = self._interval is not None and time.monotonic() - swept >= self._interval
            if not nudged and not sweep_due:
                self._keep_alive()
                continue
            self._nudged.clear()
            lanes, sweep = self._take_requests()
            self._publish_requested(lanes, sweep or sweep_due)
            if sweep or sweep_due:
                swept = time.monotonic()

    def _take_requests(self) -> tuple[set[str], bool]:
        with self._lock:
            lanes, self._lanes = self._lanes, set()
            sweep, self._sweep_requested = self._sweep_requested, False
        return lanes, sweep

    def _keep_alive(self) -> None:
        try:
            self._broker.keep_alive()
        except Exception:
            log.exception("Cannot keep the broker's connection alive; the next publish reconnects")

    def _publish_requested(self, lanes: set[str], sweep: bool) -> None:
        try:
            if lanes:
                while self._running and self.publish_lanes(lanes) == outbox.BATCH:
                    pass
            if sweep and self._running:
                self.publish_all()
        except (Unavailable, dramatiq.errors.BrokerError, redis.RedisError, OSError) as error:
            log.warning("Cannot publish jobs, retrying: %s", error)
            self._retry_soon(lanes, sweep)
        except Exception:
            log.exception("Cannot publish jobs, retrying")
            self._retry_soon(lanes, sweep)

    def _retry_soon(self, lanes: set[str], sweep: bool) -> None:
        if self._running:
            time.sleep(RETRY_INTERVAL)
            self.nudge(*lanes)
            if sweep:
                self.nudge()


def _message_queue(job: DueJob) -> str:
    """Return the queue of a job's message."""
    return priority_queue(job.queue) if job.first else job.queue
