"""The relay: a thread in each process that enqueues, which publishes the rows that are due.

It reads what is due, publishes with confirms, and marks what it has sent, in one transaction. A crash in between sends
a message twice, which is harmless: a claim takes a job once. What no relay sends, because its process died between the
commit and the message, the scheduler's sweeper does.
"""

import logging
import threading
import time
from collections.abc import Sequence

import dramatiq
import redis

from models.jobs import outbox
from models.jobs.outbox import Due
from models.platform.database import Database
from models.platform.errors import Unavailable
from tasks.broker import Broker, job_message

log = logging.getLogger(__name__)

#: Seconds between two looks at how many threads serve each queue.
WINDOWS_AGE = 1.0

#: Seconds after a failure before the next try, and between two signs of life to an idle broker.
RETRY_INTERVAL = 0.25
IDLE_INTERVAL = 5.0


class Relay:
    """Publishes due jobs when nudged; with `interval` seconds also by the clock, as the sweeper does."""

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
        """Something was committed that may be due. Returns at once."""
        self._nudged.set()

    def stop(self) -> None:
        """End the thread; what is not published then, the sweeper publishes."""
        self._running = False
        self._nudged.set()
        self._thread.join(5)

    def publish_due(self) -> int:
        """One pass: publish what is due and return how many jobs that were."""
        windows = self._fresh_windows()
        with self._database.batch() as connection:
            sent, failure = self._send(outbox.due(connection, windows))
            if sent:
                outbox.mark_published(connection, sent)
        if failure is not None:
            raise failure
        return len(sent)

    def _send(self, due: Sequence[Due]) -> tuple[list[Due], Exception | None]:
        """Publish as far as the broker lets us: what it has taken is to be marked, whatever befell the next."""
        sent: list[Due] = []
        try:
            for job in due:
                self._broker.enqueue(job_message(job.queue, job.kind, job.id))
                sent.append(job)
        except Exception as error:  # noqa: BLE001 - raised again after the mark
            return sent, error
        return sent, None

    def _fresh_windows(self) -> dict[str, int]:
        if time.monotonic() - self._windows_read > WINDOWS_AGE:
            with self._database.connection() as connection:
                self._windows = outbox.windows(connection)
            self._windows_read = time.monotonic()
        return self._windows

    def _run(self) -> None:
        while self._running:
            if not self._nudged.wait(self._interval or IDLE_INTERVAL) and self._interval is None:
                self._keep_alive()
                continue
            self._nudged.clear()
            self._publish_all()

    def _keep_alive(self) -> None:
        try:
            self._broker.keep_alive()
        except Exception:
            log.exception("the broker gives no sign of life; the next message finds out")

    def _publish_all(self) -> None:
        try:
            while self._running and self.publish_due() == outbox.BATCH:
                pass
        except (Unavailable, dramatiq.errors.BrokerError, redis.RedisError, OSError) as error:
            log.warning("can't publish for now, will try again: %s", error)
            self._again()
        except Exception:
            log.exception("can't publish for now, will try again")
            self._again()

    def _again(self) -> None:
        if self._running:
            time.sleep(RETRY_INTERVAL)
            self._nudged.set()
