"""Publish due jobs to the broker: the relay, a thread in each process that enqueues jobs.

It reads due rows, publishes them with confirms and marks them as published, in one transaction. After a crash in
between, a message is sent twice, which is harmless, since a job is claimed once. Where a process dies between its
commit and the message, the scheduler's sweeper publishes the job.
"""

import logging
import threading
import time
from collections.abc import Sequence

import dramatiq
import redis

from models.jobs import outbox
from models.jobs.outbox import DueJob
from models.platform.database import Database
from models.platform.errors import Unavailable
from tasks.broker import Broker, job_message

log = logging.getLogger(__name__)

#: Seconds for which the fairness windows, which depend on the threads that serve each queue, are cached.
WINDOWS_MAX_AGE = 1.0

#: Seconds before the next try after a failure.
RETRY_INTERVAL = 0.25

#: Seconds between two heartbeats to an idle broker.
KEEP_ALIVE_INTERVAL = 5.0


class Relay:
    """Publishes due jobs when nudged, and with `interval` also every so many seconds, as in the sweeper."""

    def __init__(self, database: Database, broker: Broker, *, interval: float | None = None) -> None:
        self._database = database
        self._broker = broker
        self._interval = interval
        self._windows: dict[str, int] = {}
        self._windows_read = 0.0
        self._nudged = threading.Event()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> "Relay":
        """Start the thread."""
        self._thread.start()
        return self

    def nudge(self) -> None:
        """Have the thread publish what is due. Returns at once."""
        self._nudged.set()

    def stop(self) -> None:
        """Stop the thread. The sweeper publishes what is left."""
        self._running = False
        self._nudged.set()
        self._thread.join(5)

    def publish_due(self) -> int:
        """Publish one batch of due jobs and return its size. Raises the broker's error after marking what was sent."""
        windows = self._current_windows()
        with self._database.batch() as connection:
            sent, error = self._send(outbox.lock_due_jobs(connection, windows))
            if sent:
                outbox.mark_published(connection, sent)
        if error is not None:
            raise error
        return len(sent)

    def _send(self, due: Sequence[DueJob]) -> tuple[list[DueJob], Exception | None]:
        """Publish until the first error; what was sent before it has to be marked as published."""
        sent: list[DueJob] = []
        try:
            for job in due:
                self._broker.enqueue(job_message(job.queue, job.kind, job.id))
                sent.append(job)
        except Exception as error:  # noqa: BLE001 - raised again after the jobs are marked
            return sent, error
        return sent, None

    def _current_windows(self) -> dict[str, int]:
        if time.monotonic() - self._windows_read > WINDOWS_MAX_AGE:
            with self._database.connection() as connection:
                self._windows = outbox.windows(connection)
            self._windows_read = time.monotonic()
        return self._windows

    def _run(self) -> None:
        while self._running:
            if not self._nudged.wait(self._interval or KEEP_ALIVE_INTERVAL) and self._interval is None:
                self._keep_alive()
                continue
            self._nudged.clear()
            self._publish_all()

    def _keep_alive(self) -> None:
        try:
            self._broker.keep_alive()
        except Exception:
            log.exception("Cannot keep the broker's connection alive; the next publish reconnects")

    def _publish_all(self) -> None:
        try:
            while self._running and self.publish_due() == outbox.BATCH:
                pass
        except (Unavailable, dramatiq.errors.BrokerError, redis.RedisError, OSError) as error:
            log.warning("Cannot publish jobs, retrying: %s", error)
            self._retry_soon()
        except Exception:
            log.exception("Cannot publish jobs, retrying")
            self._retry_soon()

    def _retry_soon(self) -> None:
        if self._running:
            time.sleep(RETRY_INTERVAL)
            self._nudged.set()
