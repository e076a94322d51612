"""The heartbeat of a worker: renew its leases, write checkpoints, receive cancellations."""

import logging
import threading
import time

import redis

from models.jobs import attempts, workers
from models.jobs.attempt_context import Attempt
from models.journal import journal
from models.platform.errors import Fenced, Unavailable
from tasks.job_runner import JobRunner

log = logging.getLogger(__name__)

#: Seconds past its time limit after which an attempt's lease is no longer renewed.
OVERDUE_GRACE = 30.0

#: Seconds between two tries while Postgres is unavailable, so that no lease expires because of one failed heartbeat.
RETRY_INTERVAL = 1.0

#: Seconds between two connections to the cancellation channel.
RECONNECT_INTERVAL = 0.25

#: Seconds that the listener waits for a message before it checks whether the worker is stopping.
LISTEN_INTERVAL = 1.0


class Heartbeat:
    """Two threads: one renews leases every few seconds, one listens for cancellations, which take effect at once."""

    def __init__(self, runner: JobRunner, *, host: str, pid: int, pools: list[str], queues: list[str], threads: int):
        self._runner = runner
        self._identity = {"host": host, "pid": pid, "pools": pools, "queues": queues, "threads": threads}
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, name="heartbeat", daemon=True),
            threading.Thread(target=self._listen, name="cancel-listener", daemon=True),
        ]

    def start(self) -> None:
        """Register the worker and start the threads."""
        self._beat_once()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads and unregister the worker."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * LISTEN_INTERVAL)
        try:
            with self._runner.database.connection() as connection:
                workers.unregister(connection, self._runner.name)
        except Unavailable:
            return  # the row is deleted once its last heartbeat is old enough

    def _beat(self) -> None:
        interval = attempts.RENEWAL
        while not self._stopped.wait(interval):
            try:
                self._beat_once()
                interval = attempts.RENEWAL
            except Unavailable as error:
                log.warning("Heartbeat failed, retrying: database unavailable: %s", error)
                interval = RETRY_INTERVAL
            except Exception:
                log.exception("Heartbeat failed, retrying")
                interval = RETRY_INTERVAL

    def _beat_once(self) -> None:
        running = {attempt.job.id: attempt for attempt in self._runner.running_attempts()}
        overdue = {job_id for job_id, attempt in running.items() if _overdue(attempt)}
        renewable = {
            job_id: attempt for job_id, attempt in self._runner.claimed_attempts().items() if job_id not in overdue
        }
        with self._runner.database.connection() as connection:
            workers.register(connection, self._runner.name, **self._identity)  # type: ignore[arg-type]
            renewed = attempts.renew_leases(connection, renewable) if renewable else {}
        for job_id, attempt in running.items():
            if job_id in renewable:
                self._apply_renewal(attempt, renewed.get(job_id))

    def _apply_renewal(self, attempt: Attempt, cancelled: bool | None) -> None:
        """Stop or checkpoint an attempt; `cancelled` is None when the job no longer belongs to it."""
        if cancelled is None:
            attempt.stop("overtaken")  # has no effect on an attempt that has just ended
        elif cancelled:
            attempt.stop("cancelled")
        else:
            self._checkpoint(attempt)

    def _checkpoint(self, attempt: Attempt) -> None:
        unarchived = attempt.journal.unarchived()
        if not unarchived:
            return
        try:
            with self._runner.database.transaction() as connection:
                attempts.checkpoint(connection, attempt.job, unarchived)
        except Fenced:
            return  # the attempt has ended, or a later one has claimed the job: the next heartbeat or write stops it
        attempt.journal.mark_archived(unarchived[-1].sequence)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen_on_connection()
            except (redis.RedisError, OSError) as error:
                log.warning("Cancellation channel lost, reconnecting: %s", error)
                self._stopped.wait(RECONNECT_INTERVAL)

    def _listen_on_connection(self) -> None:
        with self._runner.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(journal.CANCEL_CHANNEL)
            while not self._stopped.is_set():
                message = channel.get_message(timeout=LISTEN_INTERVAL)
                if message is not None:
                    for job_id in message["data"].decode().split("\n"):
                        self._runner.cancel(job_id)


def _overdue(attempt: Attempt) -> bool:
    return time.monotonic() > attempt.deadline + OVERDUE_GRACE
